"""Create the tables in a database, print them, and drop them.

Migrators take no lock. DSQL has no advisory locks, and a lease could expire while its
migrator is suspended. Instead, every step may run twice, also in two migrators at the same
time. The database orders the two, and the later one finds the step done. `execute` repeats
a statement after a conflict.
"""

from collections.abc import Callable, Mapping
from typing import Final, get_args

import msgspec
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import SchemaError, SettingsError
from dsql_outbox.outbox.settings import DEFAULT_SHARDS, TARGET_SHARDS

from .commands import apply_command, drop_command
from .named_statements import compose, execute, statement
from .operation import operation
from .ownership import refuse_others
from .tables import RECORDS, Shape, TableSet, expected_shape, migrations, read_shape

_KEPT: Final = {"business_events": "events_first", "inbox": "inbox_first"}
"""The tables that `keep_events` looks at, with the statement that finds a row."""

MAX_SHARDS: Final = TARGET_SHARDS
"""Each target has a range of shards of this width."""


class Applied(msgspec.Struct, frozen=True):
    """The result of `apply`.

    `applied` are the labels of the migrations of this run, such as ``0004 outbox``.
    `migrations` and `shards` are the numbers after the run; the inbox has no shards.
    """

    schema: str
    applied: tuple[str, ...]
    migrations: int
    shards: int


class Recorded(msgspec.Struct, frozen=True):
    """A row of the table ``schema_migrations``."""

    version: int
    name: str
    checksum: str

    @property
    def label(self) -> str:
        """The name in messages, as that of a migration."""
        return f"{self.version:04} {self.name}"


def apply(  # noqa: PLR0913 - all of them options
    database: Database,
    *,
    shards: int | None = None,
    tables: TableSet = "all",
    reason: str = "",
    user: str | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Applied:
    """Create the tables and views that are missing; what exists is left alone.

    `apply` may run any number of times, in several processes at once, and after a crash.
    Every statement is its own transaction, as DSQL demands.

    With ``tables="inbox"`` only those of the inbox are created. A later call creates the others.

    The number of `shards` can only grow. None keeps it, or creates `DEFAULT_SHARDS` in a new
    schema. `told` gets the label of each migration when it begins. More shards for tables in use
    are recorded as an operation, with `reason` and `user`; the default is that of the process.

    Raises `SettingsError` if `shards` is below the present number, out of range or for the inbox,
    `SchemaError` if the tables are older than version 1 or belong to another role, or if the role
    may not create the schema, and the driver's errors.
    """
    require_shards(shards, tables)
    schema = database.schema
    with database.connect() as connection:
        shape = read_shape(connection, schema)
        # Before any row is read: a view of a stranger runs code when it is read.
        refuse_others(connection, schema)
        recorded = read_recorded(connection, schema, shape or {})
        if older := older_text(schema, recorded):
            raise SchemaError(older)
        if tables == "all":
            _wanted_shards(connection, schema, shape or {}, shards)
        if shape is None:
            _create_schema(connection, schema)
        todo = [
            each
            for each in migrations(tables)
            if each.version not in recorded or each.name not in (shape or {})
        ]
        for migration in todo:
            told(migration.label)
            execute(connection, migration.ddl(schema))
            # Another role may have made it just before us, so we ask before we write a row.
            if migration.name == RECORDS:
                refuse_others(connection, schema)
            execute(connection, migration.record(schema))
        if todo:
            refuse_others(connection, schema)
        count = 0
        if tables == "all":
            count = _add_shards(connection, schema, shards, reason=reason, user=user)
    return Applied(schema, tuple(each.label for each in todo), len(migrations(tables)), count)


def _create_schema(connection: Connection, schema: str) -> None:
    try:
        execute(connection, statement("schema_create", schema))
    except InsufficientPrivilege:
        found = connection.info
        grant = sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
            sql.Identifier(found.dbname), sql.Identifier(found.user)
        )
        raise SchemaError(
            f"role {found.user} may not create schema {schema}: let the owner of the database run "
            f"`{grant.as_string(connection)}`"
        ) from None


def ddl(schema: str, shards: int | None = None, tables: TableSet = "all") -> str:
    """All statements that `apply` runs on an empty database, as a script.

    Run the script statement by statement: DSQL takes one DDL statement per
    transaction. Raises `SettingsError` if `shards` is out of range, or for the inbox.
    """
    return "\n".join(f"{step};\n" for step in script(schema, shards, tables))


def script(schema: str, shards: int | None = None, tables: TableSet = "all") -> list[str]:
    """The statements of `ddl`, one by one. Each may run again. Raises as `ddl`."""
    require_shards(shards, tables)
    steps = [statement("schema_create", schema)]
    for migration in migrations(tables):
        steps += [migration.ddl(schema), migration.record(schema)]
    if tables == "all":
        steps += _shard_steps(schema, shards or DEFAULT_SHARDS)
    return [step.decode().strip() for step in steps]


def remove(database: Database, *, keep_events: bool = False) -> list[str]:
    """Drop the tables and views of the outbox, one statement each, and return their names.

    All data in them is lost. The schema goes too, if nothing else is in it. A missing schema is
    not an error, so `remove` may run twice. With `keep_events`, as for a step back of a migration
    tool, nothing is dropped if an event is stored, or a message that a consumer has handled.

    Raises `SchemaError` for such a row, and the driver's errors.
    """
    schema = database.schema
    with database.connect() as connection:
        shape = read_shape(connection, schema)
        if shape is None:
            return []
        if keep_events:
            refuse_others(connection, schema)
            for table, first in _KEPT.items():
                if table in shape and execute(connection, statement(first, schema)).rowcount:
                    raise SchemaError(
                        f"schema {schema} has rows in {table}, so its tables stay: to lose them, "
                        f"run {drop_command(schema)}"
                    )
        ours = sorted(shape.keys() & expected_shape().keys(), key=lambda name: not shape[name].view)
        for name in ours:
            drop = "view_drop" if shape[name].view else "table_drop"
            execute(connection, compose(drop, schema, relation=sql.Identifier(name)))
        if len(ours) == len(shape) and schema != "public":
            execute(connection, statement("schema_drop", schema))
        return ours


def read_recorded(connection: Connection, schema: str, shape: Shape) -> dict[int, Recorded]:
    """The recorded migrations of a schema, by version; `shape` are its tables and views."""
    if RECORDS not in shape:
        return {}
    rows = execute(connection, statement("migrations_recorded", schema)).fetchall()
    return {row[0]: Recorded(*row) for row in rows}


def older_text(schema: str, recorded: Mapping[int, Recorded]) -> str | None:
    """The message for tables that an earlier commit has made; None if there are none.

    Nothing was released before version 1, so no path leads from them. A migration never
    changes after a release: one that was applied with another text is of an earlier commit.
    """
    checksums = {each.version: each.checksum for each in migrations()}
    of_ours = (each for each in recorded.values() if each.version in checksums)
    found = next((each for each in of_ours if each.checksum != checksums[each.version]), None)
    if found is None:
        return None
    return (
        f"the tables of schema {schema} are of an earlier commit ({found.label}), older than "
        "version 1, and cannot be upgraded: to start anew without their data, run "
        f"{drop_command(schema)}; then {apply_command(schema)}"
    )


def require_shards(shards: int | None, tables: TableSet = "all") -> None:
    """Raise `SettingsError` for a number out of range, or that the tables cannot have."""
    if tables not in get_args(TableSet):
        raise SettingsError(f'tables must be "all" or "inbox", got {tables!r}')
    if shards is None:
        return
    if tables == "inbox":
        raise SettingsError("the tables of the inbox have no shards: leave the number out")
    if not 1 <= shards <= MAX_SHARDS:
        raise SettingsError(f"shards must be from 1 to {MAX_SHARDS}, got {shards}")


def _wanted_shards(
    connection: Connection, schema: str, shape: Shape, shards: int | None
) -> tuple[int, int, int]:
    """The number of shards after the run, the highest shard now plus 1, and the lease rows now."""
    highest, leases = 0, 0
    if {"outbox_leases", "outbox_targets"} <= shape.keys():
        query = statement("shards_present", schema, most=MAX_SHARDS)
        highest, leases = execute(connection, query).fetchall()[0]
    wanted = shards or highest or DEFAULT_SHARDS
    if wanted < highest:
        raise SettingsError(
            f"schema {schema} has {highest} shards and cannot go down to {wanted}: "
            "entities keep the shard of their first event"
        )
    return wanted, highest, leases


def _add_shards(
    connection: Connection, schema: str, shards: int | None, *, reason: str, user: str | None
) -> int:
    """Add the default target and what shards are missing. Return their number."""
    # Counted again: another migrator may have added shards meanwhile.
    count, highest, leases = _wanted_shards(connection, schema, expected_shape(), shards)
    if 0 < highest < count:
        grown = operation("schema apply", reason=reason, user=user, of=f"{count} shards")
        execute(connection, statement("operation_record", schema), grown)
    if leases < count:
        default, add = _shard_steps(schema, count)
        execute(connection, default)
        while execute(connection, add).rowcount:
            pass
    return count


def _shard_steps(schema: str, shards: int) -> list[bytes]:
    """The statements that make the default target, and add shards to all."""
    return [statement("targets_default", schema), statement("shards_add", schema, shards=shards)]
