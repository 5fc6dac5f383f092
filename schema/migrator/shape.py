"""The tables, views and indexes that must exist, and those that exist."""

from collections.abc import Mapping
from functools import cache
from itertools import groupby
from typing import NamedTuple

import msgspec

from dsql_outbox.outbox import Connection
from dsql_outbox.schema.named_statements import read, statement

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
    rows = read(connection, statement("schema_shape", schema), _ColumnRow, {"schema": schema})
    if not rows:
        return None
    by_relation = groupby(rows, key=lambda row: (row.relation, row.view))
    return {
        name: _relation(name, view, list(columns))
        for (name, view), columns in by_relation
        if name is not None
    }


def read_indexes(connection: Connection, schema: str) -> dict[str, FoundIndex]:
    """The indexes of a schema by name, without those of primary keys."""
    rows = read(connection, statement("schema_indexes", schema), _IndexRow, {"schema": schema})
    grouped = groupby(rows, key=lambda row: (row.name, row.table_name, row.valid))
    return {
        name: FoundIndex(Index(name, table, tuple(row.column_name for row in columns)), valid)
        for (name, table, valid), columns in grouped
    }


class _ColumnRow(NamedTuple):
    """A row of ``schema_shape``: NULL but for the relation if this has no column."""

    relation: str | None
    view: bool
    name: str | None
    type: str
    required: bool
    key_place: int | None


class _IndexRow(NamedTuple):
    """A row of ``schema_indexes``."""

    name: str
    table_name: str
    valid: bool
    column_name: str


def _relation(name: str, view: bool, rows: list[_ColumnRow]) -> Relation:
    columns = tuple(
        Column(row.name, row.type, row.required) for row in rows if row.name is not None
    )
    key = sorted(
        (row.key_place, row.name)
        for row in rows
        if row.key_place is not None and row.name is not None
    )
    return Relation(name, view=view, columns=columns, key=tuple(column for _, column in key))
