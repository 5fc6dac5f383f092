"""What Aurora DSQL refuses and PostgreSQL takes, and ministack's proxy too; without I/O.

A text that is not recorded from a cluster has the shape of those that are.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from tests.support.sql.tokens import outline, tokens

from .cluster_rules import Violation

_UNCACHED: Final = "define CACHE greater than or equal to 65536 or equal to 1"

UNCACHED_SEQUENCE: Final = (
    f"CREATE SEQUENCE is not supported without an explicit cache size. please {_UNCACHED}"
)
UNCACHED_IDENTITY: Final = (
    f"identity column is not supported without an explicit cache size. please {_UNCACHED}"
)

_SETTINGS: Final = {
    *("client_encoding", "datestyle", "extra_float_digits", "intervalstyle", "timezone"),
    *("search_path", "role"),
}
"""What SET may change; `SET TIME ZONE` is one of them."""

_CACHE: Final = re.compile(r" cache (\d+) ")
_SET: Final = re.compile(r'^ set ((session|local) )?"?(?P<name>[\w.]+)')
_SET_CONFIG: Final = re.compile(r' "?set_config"? \( ')
_ADVISORY: Final = re.compile(r' "?(pg_(try_)?advisory_\w+)"? \( ')
_NAME: Final = r'[\w".]+(?: \. [\w"]+)? '

_LATERAL: Final = re.compile(r" left (outer )?join lateral \( select (?P<rest>.*)$")
_FROM: Final = re.compile(
    r" (?:from|join|,) (?P<table>[\w\".]+(?: \. [\w\"]+)?)(?: as)?(?= (?P<name>[\w\"]+|,))"
)
_CLAUSES: Final = {
    "where",
    "group",
    "order",
    "limit",
    "join",
    "left",
    "cross",
    "inner",
    "on",
    "using",
    ",",
}
"""What may stand in the place of a table's other name, if it has none."""

_QUALIFIED: Final = re.compile(r" (?P<name>[\w\"]+) \. ")


@lru_cache(4096)
def refusal(sql: str) -> Violation | None:
    """The error that a statement gets, or None if it may run."""
    try:
        said = outline(tokens(sql))
    except ValueError:  # no SQL: the server says so
        return None
    for pattern, sqlstate, message in _TEXTS:
        if found := pattern.search(said):
            return Violation(sqlstate, found.expand(message))
    for refused in _RULES:
        if message := refused(said):
            return Violation("0A000", message)
    return _stored_type(said) or _lateral(said)


def is_setting(sql: str) -> bool:
    """Whether a statement is a SET, or the function that does the same."""
    said = outline(tokens(sql))
    return _SET.match(said) is not None or _SET_CONFIG.search(said) is not None


def refusal_of_mode(sql: str) -> Violation | None:
    """The error of a statement that is known with ASYNC only, a word that PostgreSQL lacks."""
    if not _VALIDATES.match(outline(tokens(sql))):
        return None
    return Violation("0A000", "unsupported ALTER TABLE VALIDATE CONSTRAINT statement")


_VALIDATES: Final = re.compile(r" alter table (?!async ).* validate constraint ")


def _length(said: str) -> str | None:
    """Not recorded; the documented limits of a declared length."""
    if not re.match(r" (create|alter) table ", said):
        return None
    for kind, length in _LENGTH.findall(said):
        most = 4_096 if kind in {"char", "character", "bpchar"} else 65_535
        if int(length) > most:
            return f"length for type {kind} cannot exceed {most}"
    return None


_LENGTH: Final = re.compile(r" (char|character|bpchar|varchar|varying) \( (\d+) \)")


def _stored_type(said: str) -> Violation | None:
    """Recorded: type_unsupported_*, serial_column, alter_add_column_*, identity_integer."""
    if not re.match(r" (create|alter) table ", said):
        return None
    is_new = said.startswith(" create ")
    for column in _COLUMN.finditer(said):
        name = _TYPE_NAMES.get(column["type"], column["type"])
        if name in _SERIAL:
            return Violation("42704", f'type "{name}" does not exist')
        told = f"datatype {name}{'[]' if column['array'] else ''} not supported"
        if column["array"] or name in _NOT_STORED:
            return Violation("0A000", told)
        if is_new and column["identity"] and name != "bigint":
            return Violation("0A000", f"{told}, identity column type must be bigint")
    return None


_COLUMN: Final = re.compile(
    r" (?:[(,]|add column if not exists|add column|add) [\w\"]+ (?P<type>\w+(?: varying)?)"
    r"(?: \( [\d ,]+ \))?(?P<array> \[| array)?"
    r"(?P<identity> generated (?:always|by default) as identity)?"
)
_TYPE_NAMES: Final = {
    "varbit": "bit varying",
    "int": "integer",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
}
_SERIAL: Final = {"smallserial", "serial", "bigserial"}
_NOT_STORED: Final = {
    *("bit", "bit varying", "box", "cidr", "circle", "inet", "int4range", "line", "lseg"),
    *("macaddr", "money", "path", "pg_lsn", "point", "polygon", "tsquery", "tsrange", "tsvector"),
    "xml",
}


def _lateral(said: str) -> Violation | None:
    """Recorded: q_lateral_left_outer_ref and its controls, with this text.

    The select list of a LEFT JOIN LATERAL names a column of an outer table.
    """
    found = _LATERAL.search(said)
    if found is None:
        return None
    listed, _, rest = _inside(found["rest"]).partition(" from ")
    inner = {
        bare if each["name"] in _CLAUSES else each["name"]: bare
        for each in _FROM.finditer(f" from {rest.strip()} where ")
        if (bare := each["table"].rpartition(" . ")[2])
    }
    if {each["name"] for each in _QUALIFIED.finditer(f" {listed} ")} <= inner.keys():
        return None
    table = next(iter(inner.values()), "record")
    return Violation("42804", f"attribute 1 of type {table} has wrong type")


def _inside(text: str) -> str:
    """The text up to the parenthesis that closes the one before it."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            return text[:place]
    return text


def _without_cache(said: str) -> str | None:
    """Recorded: create_sequence, identity_column, and both with CACHE 1 and 65536."""
    found = _CACHE.search(said)
    if found and (int(found[1]) == 1 or int(found[1]) >= 1 << 16):
        return None
    if said.startswith(" create sequence "):
        return UNCACHED_SEQUENCE
    is_identity = said.startswith(" create table ") and " as identity " in said
    return UNCACHED_IDENTITY if is_identity else None


def _setting(said: str) -> str | None:
    """Recorded: set_transaction_repeatable_read and _serializable, set_default_isolation."""
    if " isolation level serializable " in said:
        return "Unsupported isolation level: SERIALIZABLE"
    found = _SET.match(said)
    if not found or found["name"] in _SETTINGS or said.startswith(" set time zone "):
        return None
    name = "TRANSACTION" if found["name"] == "transaction" else found["name"]
    return f'setting configuration parameter "{name}" not supported'


def _set_config(said: str) -> str | None:
    """Not recorded: SET of a setting of one's own is refused, and this is the same."""
    return "function set_config not supported" if _SET_CONFIG.search(said) else None


def _advisory_lock(said: str) -> str | None:
    """Not recorded: neither the text nor the SQLSTATE."""
    found = _ADVISORY.search(said)
    return f"function {found[1]} not supported" if found else None


_RULES: Final[tuple[Callable[[str], str | None], ...]] = (
    _length,
    _without_cache,
    _setting,
    _set_config,
    _advisory_lock,
)

_RECORDED: Final = {
    r"^ truncate ": "unsupported statement: Truncate",
    r"^ create extension ": "unsupported statement: CreateExtension",
    r"^ create database ": "unsupported statement: Createdb",
    r"^ create tablespace ": "unsupported statement: CreateTableSpace",
    r"^ create foreign table ": "unsupported statement: CreateForeignTable",
    r"^ create (or replace )?(constraint )?trigger ": "CREATE TRIGGER not supported",
    r"^ create (global |local )?temp(orary)? table ": (
        "TEMPORARY or TEMP table not supported for CREATE TABLE"
    ),
    r"^ create unlogged table ": "UNLOGGED table not supported for CREATE TABLE",
    rf"^ create (table|materialized view) (if not exists )?{_NAME}as ": (
        "unsupported statement: CreateTableAs"
    ),
    rf"^ create type {_NAME}as range ": "unsupported statement: CreateRange",
    rf"^ create type {_NAME}as \( ": "unsupported statement: CompositeType",
    r"^ create type ": "CREATE TYPE not supported",
    rf"^ alter type {_NAME}rename ": "unsupported object in RENAME statement",
    r"^ alter type ": "ALTER TYPE not supported",
    r"^ drop type ": "unsupported object in DROP statement",
    r"^ create (or replace )?function .* language (?!sql )(\w+) ": (
        r"CREATE FUNCTION with language \2 not supported"
    ),
    r"^ alter table .* alter (column )?\S+ (set data )?type ": (
        "unsupported ALTER TABLE ALTER COLUMN ... SET DATA TYPE statement"
    ),
    r"^ alter system ": "unsupported statement: AlterSystem",
    r"^ vacuum ": "unsupported VACUUM statement",
    r"^ listen ": "unsupported statement: Listen",
    r"^ notify ": "unsupported statement: Notify",
    r"^ unlisten ": "unsupported statement: Unlisten",
    r"^ savepoint ": "unsupported transaction statement: SAVEPOINT",
    r"^ rollback (work |transaction )?to ": "unsupported transaction statement: ROLLBACK TO",
    r" for (no key update|share) ": (
        "locking clauses other than FOR UPDATE/FOR KEY SHARE are not supported"
    ),
    r" merge into ": "unsupported statement type: MERGE",
    r" tablesample \w+ \( ": "TABLESAMPLE clause not supported",
    r" select (line|circle) \( ": r"datatype \1 not supported",
}

_UNRECORDED: Final = {
    r"^ release ": "unsupported transaction statement: RELEASE",
    r"^ prepare ": "unsupported statement: Prepare",
    r"^ execute ": "unsupported statement: Execute",
    r"^ discard ": "unsupported statement: Discard",
    r"^ declare ": "unsupported statement: DeclareCursor",
    r"^ (fetch|move) ": "unsupported statement: Fetch",
    r"^ close ": "unsupported statement: ClosePortal",
    r"^ select (?:(?! from ).)* into ": "unsupported statement: CreateTableAs",
    r"^ create (unique )?index .* (asc|desc|nulls (first|last)) [,)n]": (
        "specifying sort order not supported for index keys"
    ),
    r"^ create (unique )?index .* with \( ": "WITH not supported for CREATE INDEX",
    r"^ create (unique )?index .* tablespace ": "TABLESPACE not supported for CREATE INDEX",
    r"^ create (unique )?index .* \w+_ops ": "operator class not supported for CREATE INDEX",
}
"""Documented. The texts are ours."""

_OTHER: Final = {
    r" (to_tsvector|to_tsquery|websearch_to_tsquery) \( '' , ": (
        "42704",
        'text search configuration "english" does not exist',
    ),
}
"""Recorded, with other codes."""

_TEXTS: Final = [
    *((re.compile(pattern), *told) for pattern, told in _OTHER.items()),
    *(
        (re.compile(pattern), "0A000", message)
        for pattern, message in (_RECORDED | _UNRECORDED).items()
    ),
]
