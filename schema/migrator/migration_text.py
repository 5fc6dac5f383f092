"""Parse each migration into the object that it makes.

The migrations are the only source of the expected tables. The parser knows the
forms in use and refuses any other, so a migration that it would misread fails the
tests. Every form only adds something. That is why code of the version before
works on the new tables.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

import msgspec

from .migration import Migration, migrations


class Column(msgspec.Struct, frozen=True):
    """A column.

    `type` is PostgreSQL's full name of the type, such as ``character varying(64)``;
    a `required` column refuses NULL.
    """

    name: str
    type: str
    required: bool


class Relation(msgspec.Struct, frozen=True):
    """A table or a view; `key` are the columns of the primary key, in order."""

    name: str
    view: bool
    columns: tuple[Column, ...]
    key: tuple[str, ...]


class AddedColumn(msgspec.Struct, frozen=True):
    """A column that a migration adds to a table; it accepts NULL and has no default."""

    table: str
    column: Column


class Index(msgspec.Struct, frozen=True):
    """A secondary index, which is not unique."""

    name: str
    table: str
    columns: tuple[str, ...]


class Backfill(msgspec.Struct, frozen=True):
    """New values for existing rows: ``UPDATE table SET assignments WHERE condition``."""

    table: Relation
    assignments: str
    condition: str


Form = Relation | AddedColumn | Index | Backfill

_TABLE: Final = re.compile(r"CREATE TABLE IF NOT EXISTS \{schema\}\.(\w+) \(\n(.*)\n\)", re.DOTALL)
_COLUMN: Final = re.compile(
    r"(?P<name>\w+) (?P<type>\w+)(?P<length>\(\d+\))?(?P<rule> NOT NULL| PRIMARY KEY)?"
)
_KEY: Final = re.compile(r"PRIMARY KEY \((.*)\)")
_VIEW: Final = re.compile(
    r"CREATE OR REPLACE VIEW \{schema\}\.(\w+) AS\s+SELECT ([\w, ]+) FROM \{schema\}\.(\w+)"
)
_ADDED: Final = re.compile(
    r"ALTER TABLE \{schema\}\.(?P<table>\w+) ADD COLUMN IF NOT EXISTS"
    r" (?P<name>\w+) (?P<type>\w+)(?P<length>\(\d+\))?"
)
_INDEX: Final = re.compile(
    r"CREATE INDEX ASYNC IF NOT EXISTS (\w+) ON \{schema\}\.(\w+) \((\w+(?:, \w+)*)\)"
)
_BACKFILL: Final = re.compile(r"UPDATE \{schema\}\.(\w+)\s+SET (.+?)\s+WHERE (.+)", re.DOTALL)
_FULL_NAMES: Final = {
    "float8": "double precision",
    "int": "integer",
    "timestamptz": "timestamp with time zone",
    "varchar": "character varying",
}


@cache
def forms() -> tuple[tuple[Migration, Form], ...]:
    """Every migration with the object that it makes. Raises `ValueError` as `parse` does."""
    made: list[tuple[Migration, Form]] = []
    relations: dict[str, Relation] = {}
    for migration in migrations():
        form = parse(migration, relations)
        made.append((migration, form))
        match form:
            case Relation():
                relations[form.name] = form
            case AddedColumn():
                relations[form.table] = with_column(relations[form.table], form.column)
            case _:
                pass
    return tuple(made)


def with_column(table: Relation, column: Column) -> Relation:
    """The table with one more column."""
    return msgspec.structs.replace(table, columns=(*table.columns, column))


def parse(migration: Migration, before: Mapping[str, Relation]) -> Form:
    """The object that a migration makes; `before` are the tables of the migrations before it.

    Raises `ValueError` for a text of an unknown form.
    """
    text = re.sub(r"--.*\n", "", migration.text).strip()
    if found := _TABLE.fullmatch(text):
        return _parse_table(migration, found[1], found[2].splitlines())
    if found := _VIEW.fullmatch(text):
        return _parse_view(found[1], found[2].split(", "), before[found[3]])
    if (found := _ADDED.fullmatch(text)) and found["table"] in before:
        return AddedColumn(found["table"], _column(found, required=False))
    if (found := _INDEX.fullmatch(text)) and found[2] in before:
        return Index(found[1], found[2], tuple(found[3].split(", ")))
    if (found := _BACKFILL.fullmatch(text)) and found[1] in before:
        return Backfill(before[found[1]], found[2], found[3])
    raise ValueError(f"migration {migration.label}: cannot read {text!r}")


def _parse_table(migration: Migration, name: str, lines: Iterable[str]) -> Relation:
    columns: list[Column] = []
    key: tuple[str, ...] = ()
    for line in (line.strip().removesuffix(",") for line in lines):
        if found := _KEY.fullmatch(line):
            key = tuple(found[1].split(", "))
        elif found := _COLUMN.fullmatch(line):
            columns.append(_column(found, required=found["rule"] is not None))
            key = (found["name"],) if found["rule"] == " PRIMARY KEY" else key
        else:
            raise ValueError(f"migration {migration.label}: cannot read {line!r}")
    return Relation(name, view=False, columns=tuple(columns), key=key)


def _parse_view(name: str, columns: Iterable[str], table: Relation) -> Relation:
    types = {column.name: column.type for column in table.columns}
    found = tuple(Column(column, types[column], required=False) for column in columns)
    return Relation(name, view=True, columns=found, key=())


def _column(found: re.Match[str], *, required: bool) -> Column:
    full = _FULL_NAMES.get(found["type"], found["type"]) + (found["length"] or "")
    return Column(found["name"], full, required=required)
