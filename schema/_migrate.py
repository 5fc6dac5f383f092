"""Bring the tables into a database, or up to this version."""

from collections.abc import Mapping
from typing import Final

import msgspec

from dsql_outbox.outbox import (
    DEFAULT_SHARDS,
    MAX_TRANSACTION_ROWS,
    Connection,
    Database,
    SchemaError,
    SettingsError,
)

from ._execute import execute
from ._migrations import Migration, migrations
from ._remedies import Remedies
from ._shape import Shape, read_shape
from ._statements import statement

MAX_SHARDS: Final = MAX_TRANSACTION_ROWS
"""All lease rows are inserted in one transaction."""


class Applied(msgspec.Struct, frozen=True):
    """What `apply` found and did.

    `applied` names the migrations of this run, as in ``0004 outbox``;
    `migrations` and `shards` count what is there now.
    """

    schema: str
    applied: tuple[str, ...]
    migrations: int
    shards: int


class Recorded(msgspec.Struct, frozen=True):
    """A row of schema_migrations."""

    version: int
    name: str
    checksum: str


def apply(database: Database, *, shards: int | None = None) -> Applied:
    """Create or upgrade the tables; what is there already is left alone.

    May run any number of times and in several processes at once, and goes on
    where a crash stopped it. Every statement is a transaction of its own, as
    DSQL demands. `shards` can only grow; None keeps their number, or makes
    `DEFAULT_SHARDS` where there are none.

    Raises `SettingsError` for a number of shards that cannot be, `SchemaError`
    when a migration was applied with another text, and the driver's errors.
    """
    if shards is not None:
        _require_shards(shards)
    with database.connect() as connection:
        applied = _migrate(connection, database.schema)
        present = _add_shards(connection, database.schema, shards)
    labels = tuple(migration.label for migration in applied)
    return Applied(database.schema, labels, len(migrations()), present)


def ddl(schema: str, shards: int = DEFAULT_SHARDS) -> str:
    """All that `apply` runs on an empty database, as a script; run it statement by statement.

    Raises `SettingsError` for a number of shards that cannot be.
    """
    _require_shards(shards)
    steps = [statement("schema_create", schema)]
    for migration in migrations():
        steps += [migration.ddl(schema), migration.record(schema)]
    steps.append(statement("shards_add", schema, shards=shards))
    return "\n".join(f"{step.decode().strip()};\n" for step in steps)


def read_recorded(connection: Connection, schema: str, shape: Shape) -> dict[int, Recorded]:
    """The migrations that were applied to a schema of this shape, by version."""
    if "schema_migrations" not in shape:
        return {}
    rows = execute(connection, statement("migrations_recorded", schema)).fetchall()
    return {row[0]: Recorded(*row) for row in rows}


def changed_text(schema: str, migration: Migration, recorded: Recorded) -> str:
    """What to tell and to do when a migration was applied with another text."""
    return (
        f"migration {migration.label} of schema {schema} was applied with another text "
        f"(checksum {recorded.checksum[:12]}.., here {migration.checksum[:12]}..): install the "
        "version of dsql-outbox that applied it; or, if its table is as it must be, run "
        f"{Remedies(schema).accept(migration)}"
    )


def _migrate(connection: Connection, schema: str) -> list[Migration]:
    shape = read_shape(connection, schema)
    if shape is None:
        execute(connection, statement("schema_create", schema))
    recorded = read_recorded(connection, schema, shape or {})
    _refuse_changed(schema, recorded)
    pending = [migration for migration in migrations() if migration.version not in recorded]
    for migration in pending:
        execute(connection, migration.ddl(schema))
        execute(connection, migration.record(schema))
    return pending


def _refuse_changed(schema: str, recorded: Mapping[int, Recorded]) -> None:
    for migration in migrations():
        found = recorded.get(migration.version)
        if found and found.checksum != migration.checksum:
            raise SchemaError(changed_text(schema, migration, found))


def _add_shards(connection: Connection, schema: str, shards: int | None) -> int:
    highest, present = execute(connection, statement("shards_present", schema)).fetchall()[0]
    wanted = _require_shards(shards or highest or DEFAULT_SHARDS)
    if wanted < highest:
        raise SettingsError(
            f"schema {schema} has {highest} shards and cannot go down to {wanted}: "
            "entities keep the shard of their first event"
        )
    if present < wanted:
        execute(connection, statement("shards_add", schema, shards=wanted))
    return wanted


def _require_shards(shards: int) -> int:
    if not 1 <= shards <= MAX_SHARDS:
        raise SettingsError(f"shards must be from 1 to {MAX_SHARDS}, got {shards}")
    return shards
