"""What each migration of the app runs: the library's own migrator, on a connection of its own."""

from typing import Any, Final

from django.db import router
from django.db.migrations.operations.base import Operation

from dsql_outbox.schema.migrator import apply, ddl, remove

from .databases import database_of
from .settings import outbox_settings

_HEAD: Final = "-- manage.py migrate runs these statements one by one, as `schema apply` does:"


class ApplySchema(Operation):
    """Bring the tables to the version of the library that is installed.

    `version` is the number of the last of the library's own migrations in the release. Where the
    tables are there already, only the migration of Django is recorded. Backward, the first one
    drops the tables if nothing is stored in them, and the others leave the tables: the code of an
    earlier release works on them.
    """

    atomic = False
    reduces_to_sql = True
    reversible = True

    def __init__(self, version: int, *, is_first: bool = False) -> None:
        self.version = version
        self.is_first = is_first

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        """Return how it is made, as Django's writer of migrations asks."""
        return type(self).__name__, [self.version], {"is_first": self.is_first}

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change nothing: the app has no models."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Apply the library's migrations. For `sqlmigrate`, collect their statements."""
        del from_state, to_state
        alias = schema_editor.connection.alias
        if not _holds_tables(app_label, alias):
            return
        given = outbox_settings()
        if schema_editor.collect_sql:
            script = ddl(given.schema, given.shards, given.tables)
            schema_editor.collected_sql += [_HEAD, *script.rstrip("\n").split("\n")]
            return
        apply(database_of(alias), shards=given.shards, tables=given.tables)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Drop the tables if this is the first migration. Raises `SchemaError` if rows are in."""
        del from_state, to_state
        alias = schema_editor.connection.alias
        if not (self.is_first and _holds_tables(app_label, alias)):
            return
        if schema_editor.collect_sql:
            schema_editor.collected_sql.append(
                "-- drops the tables, unless something is stored in them"
            )
            return
        remove(database_of(alias), keep_events=True)

    def describe(self) -> str:
        """Return what `migrate --plan` and `sqlmigrate` say."""
        return f"Outbox: apply the migrations of dsql-outbox up to {self.version:04}"


def _holds_tables(app_label: str, alias: str) -> bool:
    found: Any = router
    return alias in outbox_settings().databases and found.allow_migrate(alias, app_label)
