"""Show the steps that `apply` would take, without taking them."""

import msgspec

from dsql_outbox.outbox import Connection, Database
from dsql_outbox.schema.named_statements import statement

from .backfill import PAGE_ROWS
from .index_build import create_index, has_jobs
from .migration import Deploy, Migration
from .migration_text import Backfill, Index, forms
from .migrator import due, read_present, require_shards
from .remedies import Remedies


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
