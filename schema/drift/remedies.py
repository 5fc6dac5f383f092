"""The commands that mend a schema, ready to paste."""

from collections.abc import Mapping
from shlex import quote
from typing import Final

from psycopg import sql

from dsql_outbox.outbox import DEFAULT_SCHEMA, MAX_TRANSACTION_ROWS
from dsql_outbox.schema.migrator.migration import Deploy, Migration
from dsql_outbox.schema.migrator.migration_text import Column, Index, Relation

MAX_SHARDS: Final = MAX_TRANSACTION_ROWS
"""All lease rows are inserted in one transaction."""


class Remedies:
    """One schema's remedies; each method returns a command, or several."""

    def __init__(self, schema: str) -> None:
        self._schema = schema

    def apply(self, shards: int | None = None, deploy: Deploy = "before") -> str:
        """Let the migrator do it."""
        schema = "" if self._schema == DEFAULT_SCHEMA else f" --schema {self._schema}"
        number = "" if shards is None else f" --shards {shards}"
        after = " --after-deploy" if deploy == "after" else ""
        return f"dsql-outbox schema apply{schema}{number}{after}"

    def relay_shard(self, shard: int, highest: int) -> str:
        """For messages in a shard without a lease; one that there can never be is no writer's."""
        if 0 <= shard < MAX_SHARDS:
            return self.apply(max(shard, highest) + 1)
        return f"DELETE FROM {_quoted(self._schema, 'outbox')} WHERE shard = {shard}"  # noqa: S608 - shown, not run

    def grant(self, roles: Mapping[str, str]) -> str:
        """Give roles what they need; `roles` has the role of each duty."""
        schema = "" if self._schema == DEFAULT_SCHEMA else f" --schema {self._schema}"
        named = "".join(f" --{duty} {quote(role)}" for duty, role in roles.items())
        return f"dsql-outbox schema grant{schema}{named}"

    def apply_again(self, migration: Migration) -> str:
        """Make the migrator forget, then let it do it."""
        table = _quoted(self._schema, "schema_migrations")
        forget = f"DELETE FROM {table} WHERE version = {migration.version}"  # noqa: S608 - shown, not run
        return f"{forget}; then {self.apply(deploy=migration.deploy)}"

    def accept(self, migration: Migration) -> str:
        """Take a migration's present text for the one that was applied."""
        table = _quoted(self._schema, "schema_migrations")
        change = f"SET checksum = '{migration.checksum}' WHERE version = {migration.version}"
        return f"UPDATE {table} {change}"

    def set_aside(self, namesake: Relation) -> str:
        """For a view where a table must be, or the reverse."""
        return self._alter(namesake, f"RENAME TO {_quoted(f'{namesake.name}_old')}")

    def replace_view(self, view: Relation, migration: Migration) -> str:
        """A view holds no data: drop it and have it made."""
        return f"DROP VIEW {_quoted(self._schema, view.name)}; {self.apply_again(migration)}"

    def add_column(self, table: Relation, column: Column) -> str:
        """Without NOT NULL, which neither filled tables nor DSQL take here."""
        return self._alter(table, f"ADD COLUMN {_quoted(column.name)} {column.type}")

    def drop_column(self, table: Relation, column: Column) -> str:
        """For a column that this version doesn't know."""
        return self._alter(table, f"DROP COLUMN {_quoted(column.name)}")

    def drop_index(self, index: Index) -> str:
        """An index holds no data: drop it and have it made."""
        return f"DROP INDEX {_quoted(self._schema, index.name)}"

    def set_type(self, table: Relation, column: Column) -> str:
        """For a column of another type."""
        change = f"ALTER COLUMN {_quoted(column.name)} TYPE {column.type}"
        return self._alter(table, change, rebuild=True)

    def set_null(self, table: Relation, column: Column) -> str:
        """For a column that takes NULL and must not, or the reverse."""
        verb = "SET" if column.required else "DROP"
        change = f"ALTER COLUMN {_quoted(column.name)} {verb} NOT NULL"
        return self._alter(table, change, rebuild=column.required)

    def set_key(self, table: Relation) -> str:
        """For a table with another primary key, or none."""
        columns = ", ".join(_quoted(column) for column in table.key)
        drop = f"DROP CONSTRAINT IF EXISTS {_quoted(f'{table.name}_pkey')}"
        return self._alter(table, f"{drop}, ADD PRIMARY KEY ({columns})", rebuild=True)

    def _alter(self, table: Relation, change: str, *, rebuild: bool = False) -> str:
        note = " (Aurora DSQL cannot: copy the rows into a table made anew)" if rebuild else ""
        return f"ALTER TABLE {_quoted(self._schema, table.name)} {change}{note}"


def _quoted(*names: str) -> str:
    return sql.Identifier(*names).as_string(None)
