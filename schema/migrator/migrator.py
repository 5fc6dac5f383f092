"""Bring the tables into a database, or up to this version.

There is no lock: DSQL has none, and a lease could expire under a migrator that
is stopped in the middle. Instead every step may run twice, and at once with
another migrator: the database puts the two in order, the later one finds the
step done, and a conflict is tried again.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile

import msgspec

from dsql_outbox.outbox import (
    DEFAULT_SHARDS,
    Connection,
    Database,
    SchemaError,
    SettingsError,
)
from dsql_outbox.schema.drift.remedies import MAX_SHARDS, Remedies
from dsql_outbox.schema.drift.shape import Shape, read_shape
from dsql_outbox.schema.named_statements import statement

from .backfill import backfill
from .execution import execute
from .index_build import IndexBuild, has_jobs
from .migration import Deploy, Migration, migrations
from .migration_text import Backfill, Form, Index, forms


class Applied(msgspec.Struct, frozen=True):
    """What `apply` found and did.

    `applied` names the migrations of this run, as in ``0004 outbox``, and
    `waiting` those that are left, each with the command that applies it;
    `migrations` and `shards` count what is there now.
    """

    schema: str
    applied: tuple[str, ...]
    migrations: int
    shards: int
    waiting: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])


class Recorded(msgspec.Struct, frozen=True):
    """A row of schema_migrations."""

    version: int
    name: str
    checksum: str


class PresentTables(msgspec.Struct, frozen=True):
    """What is in a database before a run.

    `exists` tells of the schema; `pending` are the migrations to come;
    `highest` is the number of shards by the highest of them, `leases` the rows
    that there are.
    """

    exists: bool
    pending: tuple[Migration, ...]
    highest: int
    leases: int

    @property
    def unused(self) -> bool:
        """No shard yet, so nobody can have written: there is no older code to spare."""
        return self.leases == 0

    def shards(self, schema: str, wanted: int | None) -> int:
        """The number of shards to have; raises `SettingsError` if it can't be."""
        shards = require_shards(wanted or self.highest or DEFAULT_SHARDS)
        if shards < self.highest:
            raise SettingsError(
                f"schema {schema} has {self.highest} shards and cannot go down to {shards}: "
                "entities keep the shard of their first event"
            )
        return shards


def apply(database: Database, *, shards: int | None = None, deploy: Deploy = "before") -> Applied:
    """Create or upgrade the tables; what is there already is left alone.

    May run any number of times and in several processes at once, and goes on
    where a crash stopped it. Every statement is a transaction of its own, as
    DSQL demands; a backfill takes one a page. `shards` can only grow; None
    keeps their number, or makes `DEFAULT_SHARDS` where there are none.
    `deploy`: which phase of a deploy this is. It ends where the next migration
    belongs to the other phase; tables that nobody has used get all at once.

    Raises `SettingsError` for a number of shards that cannot be, `SchemaError`
    when a migration was applied with another text, when an index cannot be
    built, or, after all that may be applied, when the last phase of an earlier
    version stands in the way of the rest; and the driver's errors.
    """
    if shards is not None:
        require_shards(shards)
    schema = database.schema
    with database.connect() as connection:
        present = read_present(connection, schema)
        present.shards(schema, shards)
        todo = due(present, deploy)
        if not present.exists:
            execute(connection, statement("schema_create", schema))
        made = dict(forms())
        for migration in todo:
            _make(connection, schema, migration, made[migration])
            execute(connection, migration.record(schema))
        count = _add_shards(connection, schema, shards)
    rest = present.pending[len(todo) :]
    if deploy == "before":
        _refuse_behind(schema, rest)
    remedies = Remedies(schema)
    applied = tuple(migration.label for migration in todo)
    waiting = {found.label: remedies.apply(deploy=found.deploy) for found in rest}
    return Applied(schema, applied, len(migrations()) - len(rest), count, waiting)


def ddl(schema: str, shards: int = DEFAULT_SHARDS) -> str:
    """All that `apply` runs on an empty database, as a script; run it statement by statement.

    Raises `SettingsError` for a number of shards that cannot be.
    """
    require_shards(shards)
    steps = [statement("schema_create", schema)]
    for migration in migrations():
        steps += [migration.ddl(schema), migration.record(schema)]
    steps.append(statement("shards_add", schema, shards=shards))
    return "\n".join(f"{step.decode().strip()};\n" for step in steps)


def read_present(connection: Connection, schema: str) -> PresentTables:
    """What is there; raises `SchemaError` when a migration was applied with another text."""
    shape = read_shape(connection, schema)
    recorded = read_recorded(connection, schema, shape or {})
    _refuse_changed(schema, recorded)
    pending = tuple(found for found in migrations() if found.version not in recorded)
    counted = (0, 0)
    if shape and "outbox_leases" in shape:
        counted = _count_shards(connection, schema)
    return PresentTables(shape is not None, pending, *counted)


def due(present: PresentTables, deploy: Deploy) -> Sequence[Migration]:
    """The migrations of this phase: in order, up to the first of the other phase."""
    if present.unused:
        return present.pending
    return list(takewhile(lambda migration: migration.deploy == deploy, present.pending))


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


def require_shards(shards: int) -> int:
    """The number; raises `SettingsError` if there cannot be so many or so few shards."""
    if not 1 <= shards <= MAX_SHARDS:
        raise SettingsError(f"shards must be from 1 to {MAX_SHARDS}, got {shards}")
    return shards


def _make(connection: Connection, schema: str, migration: Migration, form: Form) -> None:
    match form:
        case Index():
            is_dsql = has_jobs(connection)
            IndexBuild(connection, schema, migration, form, is_dsql=is_dsql).run()
        case Backfill():
            backfill(connection, schema, form)
        case _:
            execute(connection, migration.ddl(schema))


def _refuse_behind(schema: str, rest: Sequence[Migration]) -> None:
    behind = [migration for migration in rest if migration.deploy == "before"]
    if behind:
        remedies = Remedies(schema)
        raise SchemaError(
            f"schema {schema} lacks migration {rest[0].label}, which ends the deploy of an "
            f"earlier version and comes before {behind[0].label}: when no code older than that "
            f"version runs, run {remedies.apply(deploy='after')}; then {remedies.apply()}"
        )


def _refuse_changed(schema: str, recorded: Mapping[int, Recorded]) -> None:
    for migration in migrations():
        found = recorded.get(migration.version)
        if found and found.checksum != migration.checksum:
            raise SchemaError(changed_text(schema, migration, found))


def _count_shards(connection: Connection, schema: str) -> tuple[int, int]:
    highest, leases = execute(connection, statement("shards_present", schema)).fetchall()[0]
    return highest, leases


def _add_shards(connection: Connection, schema: str, shards: int | None) -> int:
    # Counted again: another migrator may have been at work.
    present = PresentTables(True, (), *_count_shards(connection, schema))
    wanted = present.shards(schema, shards)
    if present.leases < wanted:
        execute(connection, statement("shards_add", schema, shards=wanted))
    return wanted
