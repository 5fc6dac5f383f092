"""The end of a command after a failure: one line on stderr and an exit code.

The codes follow sysexits.h where it defines one. They direct a supervisor: after 69 and 75 it
should try again, after 2 and 78 it should alert a person.
"""

from typing import Final

import click
import psycopg

from dsql_outbox.observability.shown_text import visible
from dsql_outbox.outbox.errors import (
    JobRefused,
    MissingExtra,
    OutboxError,
    SchemaError,
    SettingsError,
)
from dsql_outbox.outbox.failure import is_unreachable
from dsql_outbox.outbox.redaction import error_line

FAILED: Final = 1
"""Exit code of a command that did not finish its work, or of a check that failed."""

UNREACHABLE: Final = 69
"""Exit code of a command that could not reach the database, or lost it: EX_UNAVAILABLE."""

OVERDUE: Final = 75
"""Exit code of a daemon that did not finish within its time limit, or of a job that cannot run
now: EX_TEMPFAIL."""


class Misused(click.ClickException):
    """The caller must correct something: exit code 2, as for click's usage errors."""

    exit_code = 2


class Unreachable(click.ClickException):
    """The database cannot be reached."""

    exit_code = UNREACHABLE


class Refused(click.ClickException):
    """Another job or a target must end first: EX_TEMPFAIL."""

    exit_code = OVERDUE


class TablesMissing(click.ClickException):
    """The outbox tables are missing, or not those of this version: EX_CONFIG."""

    exit_code = 78


def short_error(error: Exception) -> click.ClickException | None:
    """The error as click shows it, with control characters escaped; None for a bug.

    Errors of the library and the driver have a short form. The exit code is 2 for `SettingsError`
    and `MissingExtra`, 78 for `SchemaError`, 75 for `JobRefused`, 69 for a database that cannot be
    reached, and 1 for every other one. Any other exception is a bug, which shows its traceback.
    """
    match error:
        case click.ClickException():
            # In place: a subclass of click has more to show than its message.
            error.__dict__["message"] = _escaped(error.message)  # click declares it final
            return error
        case MissingExtra() | SettingsError():
            kind: type[click.ClickException] = Misused
        case SchemaError():
            kind = TablesMissing
        case JobRefused():
            kind = Refused
        case OutboxError() | psycopg.Error():
            kind = Unreachable if is_unreachable(error) else click.ClickException
        case _:
            return None
    return kind(_escaped(error_line(error)))


def _escaped(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))
