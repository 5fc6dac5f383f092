"""The end of a command after a failure: one line on stderr and an exit code.

The codes follow sysexits.h where it defines one. They direct a supervisor: after 69 and 75 it
should try again, after 2 and 78 it should alert a person.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import click
import psycopg

from dsql_outbox.outbox import MissingExtra, OutboxError, SettingsError, is_unreachable, told

FAILED: Final = 1
"""Exit code of a command that did not finish its work, or of a check that failed."""

UNREACHABLE: Final = 69
"""Exit code of a command that could not reach the database, or lost it: EX_UNAVAILABLE."""

OVERDUE: Final = 75
"""Exit code of a daemon that did not finish within its time limit: EX_TEMPFAIL."""


class Misused(click.ClickException):
    """The caller must correct something: exit code 2, as for click's usage errors."""

    exit_code = 2


class Unreachable(click.ClickException):
    """The database cannot be reached."""

    exit_code = UNREACHABLE


@contextmanager
def short_errors() -> Generator[None]:
    """Turn errors of the library and the driver into click's; also a decorator of commands.

    The exit code is 2 for `SettingsError` and `MissingExtra`, 69 for a database
    that cannot be reached, and 1 for every other `OutboxError` or driver error.
    Other exceptions pass through and show a traceback, because they are bugs.
    """
    try:
        yield
    except (MissingExtra, SettingsError) as error:
        raise Misused(told(error)) from error
    except (OutboxError, psycopg.Error) as error:
        kind = Unreachable if is_unreachable(error) else click.ClickException
        raise kind(told(error)) from error
