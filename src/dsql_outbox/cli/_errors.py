"""How a command ends when something fails: one line on stderr and an exit code."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import click
import psycopg

from dsql_outbox.outbox import MissingExtra, OutboxError, SettingsError

FAILED: Final = 1
"""Exit code of a command that did not do what it should, or found what should not be."""


class Misused(click.ClickException):
    """The caller must mend something: exit code 2, as click's own usage errors."""

    exit_code = 2


@contextmanager
def short_errors() -> Generator[None]:
    """Turn the library's and the driver's errors into click's; also a decorator of commands.

    The exit code is 2 for what the caller must mend (a setting, a missing
    extra) and 1 for all else. Other exceptions keep their traceback.
    """
    try:
        yield
    except (MissingExtra, SettingsError) as error:
        raise Misused(_line(error)) from error
    except (OutboxError, psycopg.Error) as error:
        raise click.ClickException(_line(error)) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
