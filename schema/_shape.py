"""What tables and columns there must be, and what there are.

The migrations are the one source: what must be is read from their text. The
reader knows the forms that we write and refuses any other, so a migration that
it would misread fails the tests.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import groupby
from typing import Any, Final

import msgspec

from dsql_outbox.outbox import Connection

from ._execute import execute
from ._migrations import Migration, migrations
from ._statements import statement


class Column(msgspec.Struct, frozen=True):
    """`type` is PostgreSQL's full name of it, such as ``character varying(64)``."""

    name: str
    type: str
    required: bool


class Relation(msgspec.Struct, frozen=True):
    """A table, or a view; `key` names the columns of the primary key, in order."""

    name: str
    view: bool
    columns: tuple[Column, ...]
    key: tuple[str, ...]


Shape = Mapping[str, Relation]

_TABLE: Final = re.compile(r"CREATE TABLE IF NOT EXISTS \{schema\}\.(\w+) \(\n(.*)\n\)", re.DOTALL)
_COLUMN: Final = re.compile(r"(\w+) (\w+)(\(\d+\))?( NOT NULL| PRIMARY KEY)?")
_KEY: Final = re.compile(r"PRIMARY KEY \((.*)\)")
_VIEW: Final = re.compile(
    r"CREATE OR REPLACE VIEW \{schema\}\.(\w+) AS\s+SELECT ([\w, ]+) FROM \{schema\}\.(\w+)"
)
_FULL_NAMES: Final = {
    "int": "integer",
    "timestamptz": "timestamp with time zone",
    "varchar": "character varying",
}


@cache
def expected() -> tuple[tuple[Migration, Relation], ...]:
    """What must be there, and the migration that makes it."""
    made: list[tuple[Migration, Relation]] = []
    for migration in migrations():
        before = {relation.name: relation for _, relation in made}
        made.append((migration, parse(migration, before)))
    return tuple(made)


def parse(migration: Migration, before: Shape) -> Relation:
    """What one migration makes, given what those `before` it made.

    Raises `ValueError` for a form that is not ours.
    """
    text = re.sub(r"--.*\n", "", migration.text).strip()
    if table := _TABLE.fullmatch(text):
        return _parse_table(migration, table[1], table[2].splitlines())
    if view := _VIEW.fullmatch(text):
        return _parse_view(view[1], view[2].split(", "), before[view[3]])
    raise ValueError(f"migration {migration.label}: cannot read {text!r}")


def _parse_table(migration: Migration, name: str, lines: Iterable[str]) -> Relation:
    columns: list[Column] = []
    key: tuple[str, ...] = ()
    for line in (line.strip().removesuffix(",") for line in lines):
        if found := _KEY.fullmatch(line):
            key = tuple(found[1].split(", "))
        elif found := _COLUMN.fullmatch(line):
            columns.append(_parse_column(found))
            key = (found[1],) if found[4] == " PRIMARY KEY" else key
        else:
            raise ValueError(f"migration {migration.label}: cannot read {line!r}")
    return Relation(name, view=False, columns=tuple(columns), key=key)


def _parse_column(found: re.Match[str]) -> Column:
    type_ = _FULL_NAMES.get(found[2], found[2]) + (found[3] or "")
    return Column(found[1], type_, required=found[4] is not None)


def _parse_view(name: str, columns: Iterable[str], table: Relation) -> Relation:
    types = {column.name: column.type for column in table.columns}
    found = tuple(Column(column, types[column], required=False) for column in columns)
    return Relation(name, view=True, columns=found, key=())


def read_shape(connection: Connection, schema: str) -> Shape | None:
    """What the database has in this schema; None: there is no such schema."""
    rows = execute(connection, statement("schema_shape", schema), {"schema": schema}).fetchall()
    if not rows:
        return None
    grouped = groupby((row for row in rows if row[0] is not None), key=lambda row: row[:2])
    return {name: _relation(name, view, list(columns)) for (name, view), columns in grouped}


def _relation(name: str, view: bool, rows: list[tuple[Any, ...]]) -> Relation:
    columns = tuple(Column(row[2], row[3], row[4]) for row in rows if row[2] is not None)
    key = sorted((row[5], row[2]) for row in rows if row[5] is not None)
    return Relation(name, view=view, columns=columns, key=tuple(column for _, column in key))
