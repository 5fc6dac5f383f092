"""What an error for a missing right means: which command grants it."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psycopg

from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import MissingRight
from dsql_outbox.outbox.failure import refuses_access
from dsql_outbox.outbox.redaction import error_line

if TYPE_CHECKING:
    from .roles import Duty

_WORD: Final = re.compile("[a-z0-9_]+")
"""The names in a text that the server may have translated. Ours have no other characters."""


def missing_right(
    error: Exception, database: Database, duty: "Duty", *, role: str | None = None
) -> MissingRight | None:
    """Return a `MissingRight` if the error is about a right that `duty` needs.

    `error` is the driver's own. A right on a table of somebody else, as a trigger may lack it,
    is none of ours, and `schema grant` would not help. `role` is the role of the connection if
    that is not known to be the one of `database`.
    """
    if not refuses_access(error):
        return None
    # A writer whose role lacks nothing never needs them.
    from .commands import grant_command  # noqa: PLC0415
    from .roles import grants  # noqa: PLC0415

    text = error_line(error)
    names = {grant.name or database.schema for grant in grants(duty)}
    if names.isdisjoint(_WORD.findall(text)):
        return None
    named = role or database.role or "ROLE"
    found = MissingRight(text, grant_command(database.schema, {duty: named}))
    found.__cause__ = error
    return found


@contextmanager
def rights_expected(database: Database, duty: "Duty | None") -> Generator[None]:
    """Raise `MissingRight` if a statement of the block lacks a right of `duty`, if one is given."""
    try:
        yield
    except psycopg.Error as error:
        if duty is None or (named := missing_right(error, database, duty)) is None:
            raise
        raise named from error
