"""The tables and views of this version, and those of a database.

``schema/migrations/`` is the only source of what must exist: one file per table or view, in the
order in which `apply` creates them. The parser knows two forms and refuses any other, so a file
that it would misread fails the tests. CONTRIBUTING.md has the rules.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import groupby
from typing import Final, Literal, LiteralString, NamedTuple

import msgspec

from dsql_outbox.outbox.database.connection import Connection

from .named_statements import names, read, read_sql, render, statement


class Column(msgspec.Struct, frozen=True):
    """A column.

    `type` is PostgreSQL's full name of the type, such as ``character varying(64)``;
    a `required` column refuses NULL.
    """

    name: str
    type: str
    required: bool

    def __str__(self) -> str:
        """The type and the rule."""
        return f"{self.type} NOT NULL" if self.required else self.type


class Relation(msgspec.Struct, frozen=True):
    """A table or a view; `key` are the columns of the primary key, in order."""

    name: str
    view: bool
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def kind(self) -> Literal["table", "view"]:
        """The word for it in messages."""
        return "view" if self.view else "table"


Shape = Mapping[str, Relation]
"""Tables and views by name."""

TableSet = Literal["all", "inbox"]
"""Which tables are wanted: all, or those of the inbox alone, for a service that only consumes."""

RECORDS: Final = "schema_migrations"
"""The table of the applied migrations, which the first one makes."""

_OF_INBOX: Final = (RECORDS, "inbox", "inbox_subjects")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `text` is its SQL, with ``{schema}`` in place of the schema's name."""

    version: int
    name: str
    text: LiteralString

    @property
    def label(self) -> str:
        """The name in messages and output, such as ``0004 outbox``."""
        return f"{self.version:04} {self.name}"

    @property
    def checksum(self) -> str:
        """SHA-256 of the text in hex; it does not depend on the schema's name."""
        return sha256(self.text.encode()).hexdigest()

    def ddl(self, schema: str) -> bytes:
        """The statement of the file, for a schema."""
        return render(self.text, schema)

    def record(self, schema: str) -> bytes:
        """The statement that records the migration as applied."""
        return statement(
            "migration_record", schema, version=self.version, name=self.name, checksum=self.checksum
        )


@cache
def migrations(tables: TableSet = "all") -> tuple[Migration, ...]:
    """The migrations of this version, first to last; each makes the relation of its name."""
    loaded = (_load(stem) for stem in names("migrations"))
    return tuple(each for each in loaded if tables == "all" or each.name in _OF_INBOX)


@cache
def expected_shape(tables: TableSet = "all") -> Shape:
    """What the migrations make, in their order. Raises `ValueError` for an unknown form."""
    made: dict[str, Relation] = {}
    for migration in migrations(tables):
        relation = parse(migration, made)
        made[relation.name] = relation
    return made


def has_inbox_alone(present: Collection[str], recorded: Collection[str]) -> bool:
    """Whether a schema has the inbox's tables and never had another; `recorded` were once made."""
    inbox = expected_shape("inbox").keys()
    others = expected_shape().keys() - inbox
    return inbox <= set(present) and others.isdisjoint({*present, *recorded})


def read_shape(connection: Connection, schema: str) -> Shape | None:
    """The tables and views of a schema in a database; None if the schema does not exist."""
    rows = read(connection, statement("schema_shape", schema), _ColumnRow, {"schema": schema})
    if not rows:
        return None
    by_relation = groupby(rows, key=lambda row: (row.relation, row.view))
    return {
        name: _relation(name, view, list(columns))
        for (name, view), columns in by_relation
        if name is not None
    }


class _ColumnRow(NamedTuple):
    """A row of ``schema_shape``: NULL but for the relation if this has no column."""

    relation: str | None
    view: bool
    name: str | None
    type: str
    required: bool
    key_place: int | None


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


def _load(stem: str) -> Migration:
    version, _, name = stem.partition("_")
    return Migration(int(version), name, read_sql("migrations", stem))


_TABLE: Final = re.compile(r"CREATE TABLE IF NOT EXISTS \{schema\}\.(\w+) \(\n(.*)\n\)", re.DOTALL)
_COLUMN: Final = re.compile(
    r"(?P<name>\w+) (?P<type>\w+)(?P<length>\(\d+\))?(?P<rule> NOT NULL| PRIMARY KEY)?"
)
_CHECK: Final = re.compile(r"CHECK \(.+\)")
_KEY: Final = re.compile(r"PRIMARY KEY \((.*)\)")
_SECOND_KEY: Final = re.compile(r"UNIQUE \([\w, ]+\)")
_VIEW: Final = re.compile(
    r"CREATE OR REPLACE VIEW \{schema\}\.(\w+) AS\s+SELECT (.+)\s+FROM \{schema\}\.(\w+)(?: (\w))?",
    re.DOTALL,
)
_VIEW_COLUMN: Final = re.compile(r"(?:(?P<alias>\w)\.)?(?P<name>\w+)")
_LOOKED_UP: Final = re.compile(
    r"\(SELECT (?P<alias>\w)\.(?P<name>\w+) FROM \{schema\}\.(?P<table>\w+) (?P=alias) "
    r"WHERE (?P=alias)\.\w+ = \w\.\w+\) AS (?P=name)"
)
_FULL_NAMES: Final = {
    "float8": "double precision",
    "int": "integer",
    "timestamptz": "timestamp with time zone",
    "varchar": "character varying",
}


def parse(migration: Migration, before: Shape) -> Relation:
    """The relation that a migration makes; `before` are those of the migrations before it.

    Raises `ValueError` for a text of an unknown form, or for another relation than that of the
    migration's name.
    """
    text = re.sub(r"--.*\n", "", migration.text).strip()
    if (found := _TABLE.fullmatch(text)) and found[1] == migration.name:
        return _parse_table(migration, found[2].splitlines())
    if (found := _VIEW.fullmatch(text)) and found[1] == migration.name:
        columns = re.split(r",\s+", found[2].strip())
        return _parse_view(migration, columns, before, found[3], found[4])
    raise ValueError(f"migration {migration.label}: cannot read {text!r}")


def _parse_table(migration: Migration, lines: Iterable[str]) -> Relation:
    columns: list[Column] = []
    key: tuple[str, ...] = ()
    for line in (line.strip().removesuffix(",") for line in lines):
        if found := _KEY.fullmatch(line):
            key = tuple(found[1].split(", "))
        elif _SECOND_KEY.fullmatch(line) or _CHECK.fullmatch(line):
            continue  # no statement is wrong without it
        elif found := _COLUMN.fullmatch(line):
            columns.append(_column(found))
            key = (found["name"],) if found["rule"] == " PRIMARY KEY" else key
        else:
            raise ValueError(f"migration {migration.label}: cannot read {line!r}")
    return Relation(migration.name, view=False, columns=tuple(columns), key=key)


def _parse_view(
    migration: Migration, texts: Iterable[str], before: Shape, table: str, alias: str | None
) -> Relation:
    """A view of one table, by its alias if it has one, with columns looked up in others."""
    columns: list[Column] = []
    for text in texts:
        named = _VIEW_COLUMN.fullmatch(text)
        looked_up = _LOOKED_UP.fullmatch(text)
        if found := looked_up or (named if named and named["alias"] == alias else None):
            source = before.get(looked_up["table"] if looked_up else table)
            types = {column.name: column.type for column in (source.columns if source else ())}
            if found["name"] in types:
                columns.append(Column(found["name"], types[found["name"]], required=False))
                continue
        raise ValueError(f"migration {migration.label}: cannot read {text!r}")
    return Relation(migration.name, view=True, columns=tuple(columns), key=())


def _column(found: re.Match[str]) -> Column:
    full = _FULL_NAMES.get(found["type"], found["type"]) + (found["length"] or "")
    return Column(found["name"], full, required=found["rule"] is not None)
