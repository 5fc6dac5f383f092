"""What a schema without some of its tables means: gone, older, dropped, or made for an inbox.

`schema apply` creates them in each case, but it brings no message back. So the texts say which.
"""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import psycopg

from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.database import Database

from .commands import apply_command
from .migrator import read_recorded
from .tables import Shape, expected_shape, has_inbox_alone, migrations, read_shape

_NAMED: Final = 3


class MissingTables(NamedTuple):
    """What is missing, and what to do."""

    text: str
    remedy: str
    inbox_alone: bool = False
    """Nothing is lost or older: the inbox's tables are there, and no others were made."""

    def __str__(self) -> str:
        """Both, as the text of an error."""
        return f"{self.text}: {self.remedy}"


def find_missing(connection: Connection, database: Database) -> MissingTables | None:
    """Look for what is missing; None if each table and view is there. Raises the driver's errors.

    No right is needed for it. Without the right to read which migrations were applied, tables
    count as ones that were never made.
    """
    shape = read_shape(connection, database.schema)
    place = f"database {connection.info.dbname} at {database.address}"
    recorded = () if shape is None else _recorded(connection, database.schema, shape)
    return describe(database.schema, place, shape, recorded)


def describe(
    schema: str, place: str, present: Collection[str] | None, recorded: Collection[str]
) -> MissingTables | None:
    """Judge the tables that are `present` (None: not even the schema) and those once made."""
    missing = [name for name in expected_shape() if name not in (present or ())]
    if not missing:
        return None
    apply = f"`{apply_command(schema)}`"
    if len(missing) == len(expected_shape()):
        what = f"schema {schema} does not exist in {place}"
        if present is not None:
            what = f"schema {schema} has no outbox table in {place}"
        return MissingTables(
            what,
            "if messages were relayed here before, it was dropped or this is another database: "
            f"check the URL, and restore. {apply} makes it new and empty",
        )
    if has_inbox_alone(present or (), recorded):
        return MissingTables(
            f"schema {schema} has the tables of the inbox alone, for a service that only consumes",
            f"{apply} adds the others and keeps what is there",
            inbox_alone=True,
        )
    dropped = [name for name in missing if name in recorded]
    if dropped:
        return MissingTables(
            f"schema {schema} has lost {_named(dropped)}, which somebody has dropped",
            f"restore from a backup. {apply} makes what is missing new and empty",
        )
    return MissingTables(
        f"schema {schema} is older than this program and lacks {_named(missing)}",
        f"{apply} adds what is missing and keeps all messages; the owner of the tables runs it",
    )


def _recorded(connection: Connection, schema: str, shape: Shape) -> set[str]:
    """The names of the tables and views that were made here."""
    try:
        versions = read_recorded(connection, schema, shape)
    except psycopg.errors.InsufficientPrivilege:
        return set()
    return {each.name for each in migrations() if each.version in versions}


def _named(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    if len(names) == 1:
        return f"table {names[0]}"
    if len(names) > _NAMED:
        return f"tables {', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"
    return f"tables {', '.join(names[:-1])} and {names[-1]}"
