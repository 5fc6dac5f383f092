"""The tables, views and indexes that must exist, and those that exist."""

from collections.abc import Mapping
from functools import cache
from itertools import groupby
from typing import Any

import msgspec

from dsql_outbox.outbox import Connection
from dsql_outbox.schema.named_statements import execute, statement

from .migration import Migration
from .migration_text import (
    AddedColumn,
    Backfill,
    Column,
    Index,
    Relation,
    forms,
    with_column,
)

Shape = Mapping[str, Relation]


class Expected(msgspec.Struct, frozen=True):
    """The objects that must exist, each with the migration that creates it.

    `relations` and `indexes` are by name; `added` are the columns that a later
    migration added, by table and column.
    """

    relations: Mapping[str, tuple[Migration, Relation]]
    added: Mapping[tuple[str, str], Migration]
    indexes: Mapping[str, tuple[Migration, Index]]


class FoundIndex(msgspec.Struct, frozen=True):
    """An index in the catalog; not `valid` while it is built, and after its build failed."""

    index: Index
    valid: bool


@cache
def expected() -> Expected:
    """The result of all migrations of this version."""
    made = Expected(relations := {}, added := {}, indexes := {})
    for migration, form in forms():
        match form:
            case Relation():
                relations[form.name] = migration, form
            case AddedColumn():
                maker, table = relations[form.table]
                relations[form.table] = maker, with_column(table, form.column)
                added[form.table, form.column.name] = migration
            case Index():
                indexes[form.name] = migration, form
            case Backfill():
                pass
    return made


def read_shape(connection: Connection, schema: str) -> Shape | None:
    """The tables and views of a schema, by name; None if the schema does not exist."""
    rows = execute(connection, statement("schema_shape", schema), {"schema": schema}).fetchall()
    if not rows:
        return None
    grouped = groupby((row for row in rows if row[0] is not None), key=lambda row: row[:2])
    return {name: _relation(name, view, list(columns)) for (name, view), columns in grouped}


def read_indexes(connection: Connection, schema: str) -> dict[str, FoundIndex]:
    """The indexes of a schema by name, without those of primary keys."""
    rows = execute(connection, statement("schema_indexes", schema), {"schema": schema}).fetchall()
    grouped = groupby(rows, key=lambda row: row[:3])
    return {
        name: FoundIndex(Index(name, table, tuple(row[3] for row in columns)), valid)
        for (name, table, valid), columns in grouped
    }


def _relation(name: str, view: bool, rows: list[tuple[Any, ...]]) -> Relation:
    columns = tuple(Column(row[2], row[3], row[4]) for row in rows if row[2] is not None)
    key = sorted((row[5], row[2]) for row in rows if row[5] is not None)
    return Relation(name, view=view, columns=columns, key=tuple(column for _, column in key))
