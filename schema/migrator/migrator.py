"""Create the tables in a database, or upgrade them to this version.

Migrators take no lock. DSQL has no advisory locks, and a lease could expire while its
migrator is suspended. Instead, every step may run twice, also in two migrators at the same
time. The database orders the two, and the later one finds the step done. `execute` repeats
a statement after a conflict.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile

import msgspec
from psycopg import sql

from dsql_outbox.outbox import (
    DEFAULT_SHARDS,
    Connection,
    Database,
    SchemaError,
    SettingsError,
)
from dsql_outbox.schema.named_statements import compose, execute, statement

from .backfill import PAGE_ROWS, backfill
from .index_build import IndexBuild, create_index, has_jobs
from .migration import Deploy, Migration, migrations
from .migration_text import Backfill, Form, Index, forms
from .remedies import MAX_SHARDS, Remedies
from .shape import Shape, read_shape


class Applied(msgspec.Struct, frozen=True):
    """The result of `apply`.

    `applied` are the labels of the migrations of this run, such as ``0004 outbox``.
    `waiting` maps the label of each migration that is left to the command that
    applies it. `migrations` and `shards` are the numbers after the run.
    """

    schema: str
    applied: tuple[str, ...]
    migrations: int
    shards: int
    waiting: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])


class ApplyStep(msgspec.Struct, frozen=True):
    """The migration that `apply` runs now; `rows` is about how many rows a backfill has read."""

    label: str
    rows: int = 0


ApplyTold = Callable[[ApplyStep], None]
"""Takes each step when it begins, and a backfill again after each page."""


class Recorded(msgspec.Struct, frozen=True):
    """A row of the table ``schema_migrations``."""

    version: int
    name: str
    checksum: str


class PresentTables(msgspec.Struct, frozen=True):
    """The state of a schema before a run.

    `exists` says whether the schema exists, and `pending` are the migrations not
    applied yet. `highest` is the highest shard plus 1, or 0; `leases` is the number
    of lease rows, which is lower when shards in between are missing.
    """

    exists: bool
    pending: tuple[Migration, ...]
    highest: int
    leases: int

    @property
    def unused(self) -> bool:
        """Whether there is no shard: then no writer has written yet, and no older code runs."""
        return self.leases == 0

    def shards(self, schema: str, wanted: int | None) -> int:
        """The number of shards after the run.

        Raises `SettingsError` if it would be below the present number or out of range.
        """
        shards = require_shards(wanted or self.highest or DEFAULT_SHARDS)
        if shards < self.highest:
            raise SettingsError(
                f"schema {schema} has {self.highest} shards and cannot go down to {shards}: "
                "entities keep the shard of their first event"
            )
        return shards


def apply(
    database: Database,
    *,
    shards: int | None = None,
    deploy: Deploy = "before",
    told: ApplyTold = lambda _: None,
) -> Applied:
    """Create or upgrade the tables; objects that exist are left alone.

    `apply` may run any number of times, in several processes at once, and after a crash.
    Every statement is its own transaction, as DSQL demands; a backfill takes one transaction
    per page.

    The number of `shards` can only grow. None keeps it, or creates `DEFAULT_SHARDS` in a new
    schema. `deploy` is the phase of the deploy: the run stops before the first migration of
    the other phase. A schema without shards gets all migrations in one run. `told` gets the
    steps.

    Raises `SettingsError` if `shards` is below the present number or out of range.
    Raises `SchemaError` when a migration was applied with another text, when an
    index cannot be built, and when a migration that ends an earlier deploy comes
    before the rest; the migrations up to that one are applied by then. Raises the
    driver's errors.
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
            told(ApplyStep(migration.label))
            _make(connection, schema, migration, made[migration], told)
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
    """All statements that `apply` runs on an empty database, as a script.

    Run the script statement by statement: DSQL takes one DDL statement per
    transaction. Raises `SettingsError` if `shards` is out of range.
    """
    require_shards(shards)
    steps = [statement("schema_create", schema)]
    for migration in migrations():
        steps += [migration.ddl(schema), migration.record(schema)]
    steps.append(statement("shards_add", schema, shards=shards))
    return "\n".join(f"{step.decode().strip()};\n" for step in steps)


def read_present(connection: Connection, schema: str) -> PresentTables:
    """The present state. Raises `SchemaError` when a migration was applied with another text."""
    shape = read_shape(connection, schema)
    recorded = read_recorded(connection, schema, shape or {})
    _refuse_changed(schema, recorded)
    pending = tuple(found for found in migrations() if found.version not in recorded)
    counted = (0, 0)
    if shape and "outbox_leases" in shape:
        counted = _count_shards(connection, schema)
    return PresentTables(shape is not None, pending, *counted)


def due(present: PresentTables, deploy: Deploy) -> Sequence[Migration]:
    """The pending migrations of a phase, in order, up to the first of the other phase.

    A schema that was never used gets all of them.
    """
    if present.unused:
        return present.pending
    return list(takewhile(lambda migration: migration.deploy == deploy, present.pending))


def read_recorded(connection: Connection, schema: str, shape: Shape) -> dict[int, Recorded]:
    """The recorded migrations of a schema, by version; `shape` are its tables and views."""
    if "schema_migrations" not in shape:
        return {}
    rows = execute(connection, statement("migrations_recorded", schema)).fetchall()
    return {row[0]: Recorded(*row) for row in rows}


def changed_text(schema: str, migration: Migration, recorded: Recorded) -> str:
    """The message for a migration that was applied with another text, with the remedy."""
    return (
        f"migration {migration.label} of schema {schema} was applied with another text "
        f"(checksum {recorded.checksum[:12]}.., here {migration.checksum[:12]}..): install the "
        "version of dsql-outbox that applied it; or, if its table is as it must be, run "
        f"{Remedies(schema).accept(migration)}"
    )


def require_shards(shards: int) -> int:
    """Return the number. Raises `SettingsError` unless it is from 1 to `MAX_SHARDS`."""
    if not 1 <= shards <= MAX_SHARDS:
        raise SettingsError(f"shards must be from 1 to {MAX_SHARDS}, got {shards}")
    return shards


def _make(
    connection: Connection, schema: str, migration: Migration, form: Form, told: ApplyTold
) -> None:
    match form:
        case Index():
            is_dsql = has_jobs(connection)
            IndexBuild(connection, schema, migration, form, is_dsql=is_dsql).run()
        case Backfill():
            for rows in backfill(connection, schema, form):
                told(ApplyStep(migration.label, rows))
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
    query = statement("shards_present", schema, most=MAX_SHARDS)
    highest, leases = execute(connection, query).fetchall()[0]
    return highest, leases


def _add_shards(connection: Connection, schema: str, shards: int | None) -> int:
    # Count again: another migrator may have added shards since `read_present`.
    present = PresentTables(True, (), *_count_shards(connection, schema))
    wanted = present.shards(schema, shards)
    if present.leases < wanted:
        execute(connection, statement("shards_add", schema, shards=wanted))
    return wanted


class PlannedStep(msgspec.Struct, frozen=True):
    """One step that is left to do.

    `name` is the label of a migration such as ``0004 outbox``, or ``schema`` or
    ``shards``. `command` takes the step, and `statements` are its statements, one
    transaction each. `note` adds a remark, or is empty.
    """

    name: str
    deploy: Deploy
    command: str
    statements: tuple[str, ...]
    note: str = ""


def plan(database: Database, *, shards: int | None = None) -> list[PlannedStep]:
    """Return the steps that are left, in order; the list is empty if there are none.

    Raises `SettingsError` if `shards` is below the present number or out of range,
    `SchemaError` when a migration was applied with another text, and the driver's
    errors.
    """
    if shards is not None:
        require_shards(shards)
    with database.connect() as connection:
        return _Planner(connection, database.schema, shards).steps()


class _Planner:
    def __init__(self, connection: Connection, schema: str, shards: int | None) -> None:
        self._connection = connection
        self._schema = schema
        self._shards = shards
        self._remedies = Remedies(schema)

    def steps(self) -> list[PlannedStep]:
        present = read_present(self._connection, self._schema)
        wanted = present.shards(self._schema, self._shards)
        todo = due(present, "before")
        now = self._remedies.apply(self._shards)
        steps: list[PlannedStep] = []
        if not present.exists:
            steps.append(PlannedStep("schema", "before", now, (self._text("schema_create"),)))
        steps += [self._migration(migration, now) for migration in todo]
        if present.leases < wanted:
            added = self._text("shards_add", shards=wanted)
            steps.append(PlannedStep("shards", "before", now, (added,)))
        for migration in present.pending[len(todo) :]:
            later = self._remedies.apply(deploy=migration.deploy)
            steps.append(self._migration(migration, later))
        return steps

    def _migration(self, migration: Migration, command: str) -> PlannedStep:
        query, note = migration.ddl(self._schema), ""
        match dict(forms())[migration]:
            case Index():
                is_dsql = has_jobs(self._connection)
                query = create_index(migration, self._schema, is_dsql=is_dsql)
                note = "waits until the index is valid"
            case Backfill():
                note = f"in pages of {PAGE_ROWS} keys, each a transaction of its own"
            case _:
                pass
        texts = _text(query), _text(migration.record(self._schema))
        return PlannedStep(migration.label, migration.deploy, command, texts, note)

    def _text(self, name: str, **literals: int) -> str:
        return _text(statement(name, self._schema, **literals))


def _text(query: bytes) -> str:
    return query.decode().strip()


def remove(database: Database) -> None:
    """Drop every table and view of the schema, one statement each, and then the schema.

    All data in them is lost. A missing schema is not an error, so `remove` may run twice. An
    object that is neither a table nor a view stays, and makes the last statement fail. Raises
    the driver's errors.
    """
    with database.connect() as connection:
        shape = read_shape(connection, database.schema) or {}
        for relation in sorted(shape.values(), key=lambda found: not found.view):
            drop = "view_drop" if relation.view else "table_drop"
            name = sql.Identifier(relation.name)
            execute(connection, compose(drop, database.schema, relation=name))
        execute(connection, statement("schema_drop", database.schema))
