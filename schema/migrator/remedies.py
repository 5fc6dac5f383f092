"""The commands that repair a schema, ready to paste into a shell or psql."""

from collections.abc import Mapping
from shlex import quote
from typing import Final

from psycopg import sql

from dsql_outbox.outbox import DEFAULT_SCHEMA, MAX_TRANSACTION_ROWS

from .migration import Deploy, Migration
from .migration_text import Column, Index, Relation

MAX_SHARDS: Final = MAX_TRANSACTION_ROWS
"""One transaction inserts all lease rows, so the row limit of a transaction bounds the shards."""


def is_shard(shard: int) -> bool:
    """Return whether a writer may use a shard of this number."""
    return 0 <= shard < MAX_SHARDS


class Remedies:
    """The remedies of one schema; each method returns one or more commands as text."""

    def __init__(self, schema: str) -> None:
        self._schema = schema

    def apply(self, shards: int | None = None, deploy: Deploy = "before") -> str:
        """Run the migrator, up to `shards` shards, in the given phase of a deploy."""
        schema = "" if self._schema == DEFAULT_SCHEMA else f" --schema {self._schema}"
        number = "" if shards is None else f" --shards {shards}"
        after = " --after-deploy" if deploy == "after" else ""
        return f"dsql-outbox schema apply{schema}{number}{after}"

    def relay_shard(self, shard: int, highest: int) -> str:
        """Rescue messages in a shard that has no lease row: add shards up to it.

        No writer uses a shard outside 0 to `MAX_SHARDS` - 1, so its rows are deleted.
        """
        if is_shard(shard):
            return self.apply(max(shard, highest) + 1)
        return f"DELETE FROM {_quoted(self._schema, 'outbox')} WHERE shard = {shard}"  # noqa: S608 - shown, not run

    def forget_lease(self, shard: int) -> str:
        """Delete the lease row of a shard that no writer uses."""
        return f"DELETE FROM {_quoted(self._schema, 'outbox_leases')} WHERE shard = {shard}"  # noqa: S608 - shown, not run

    def grant(self, roles: Mapping[str, str]) -> str:
        """Grant the rights of duties; `roles` maps a duty to its role."""
        schema = "" if self._schema == DEFAULT_SCHEMA else f" --schema {self._schema}"
        named = "".join(f" --{duty} {quote(role)}" for duty, role in roles.items())
        return f"dsql-outbox schema grant{schema}{named}"

    def apply_again(self, migration: Migration) -> str:
        """Delete the record of a migration, then apply it again."""
        table = _quoted(self._schema, "schema_migrations")
        forget = f"DELETE FROM {table} WHERE version = {migration.version}"  # noqa: S608 - shown, not run
        return f"{forget}; then {self.apply(deploy=migration.deploy)}"

    def accept(self, migration: Migration) -> str:
        """Record the present checksum of a migration, as if its present text had been applied."""
        table = _quoted(self._schema, "schema_migrations")
        change = f"SET checksum = '{migration.checksum}' WHERE version = {migration.version}"
        return f"UPDATE {table} {change}"

    def set_aside(self, namesake: Relation) -> str:
        """Rename a view that has the name of a table, or the reverse."""
        return self._alter(namesake, f"RENAME TO {_quoted(f'{namesake.name}_old')}")

    def replace_view(self, view: Relation, migration: Migration) -> str:
        """Drop a view, which holds no data, and create it again."""
        return f"DROP VIEW {_quoted(self._schema, view.name)}; {self.apply_again(migration)}"

    def add_column(self, table: Relation, column: Column) -> str:
        """Add a missing column, without NOT NULL.

        PostgreSQL refuses NOT NULL here if the table has rows, and DSQL always refuses it.
        """
        return self._alter(table, f"ADD COLUMN {_quoted(column.name)} {column.type}")

    def drop_column(self, table: Relation, column: Column) -> str:
        """Drop a column that this version does not know."""
        return self._alter(table, f"DROP COLUMN {_quoted(column.name)}")

    def drop_index(self, index: Index) -> str:
        """Drop an index, which holds no data, so that it can be built again."""
        return f"DROP INDEX {_quoted(self._schema, index.name)}"

    def set_type(self, table: Relation, column: Column) -> str:
        """Change the type of a column."""
        change = f"ALTER COLUMN {_quoted(column.name)} TYPE {column.type}"
        return self._alter(table, change, rebuild=True)

    def set_null(self, table: Relation, column: Column) -> str:
        """Make a column refuse NULL, or accept it."""
        verb = "SET" if column.required else "DROP"
        change = f"ALTER COLUMN {_quoted(column.name)} {verb} NOT NULL"
        return self._alter(table, change, rebuild=column.required)

    def set_key(self, table: Relation) -> str:
        """Replace a wrong primary key, or add a missing one."""
        columns = ", ".join(_quoted(column) for column in table.key)
        drop = f"DROP CONSTRAINT IF EXISTS {_quoted(f'{table.name}_pkey')}"
        return self._alter(table, f"{drop}, ADD PRIMARY KEY ({columns})", rebuild=True)

    def _alter(self, table: Relation, change: str, *, rebuild: bool = False) -> str:
        note = " (Aurora DSQL cannot: copy the rows into a new table)" if rebuild else ""
        return f"ALTER TABLE {_quoted(self._schema, table.name)} {change}{note}"


def _quoted(*names: str) -> str:
    return sql.Identifier(*names).as_string(None)
