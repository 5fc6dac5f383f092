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
_ADVISORY: Final = re.compile(r' "?(pg_(try_)?advisory_\w+)"? \( ')


_MERGE: Final = re.compile(r" merge into ")
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
    for refused in _RULES:
        if message := refused(said):
            return Violation("0A000", message)
    return _lateral(said)


def _merge(said: str) -> str | None:
    """Recorded: q_merge."""
    return "unsupported statement type: MERGE" if _MERGE.search(said) else None


def _sample(said: str) -> str | None:
    """Recorded: q_tablesample."""
    is_sampled = re.search(r" tablesample \w+ \( ", said)
    return "TABLESAMPLE clause not supported" if is_sampled else None


def _cursor(said: str) -> str | None:
    """Not recorded; documented as not supported."""
    found = re.match(r" (declare|fetch|move|close) ", said)
    return f"unsupported statement: {_CURSORS[found[1]]}" if found else None


_CURSORS: Final = {
    "declare": "DeclareCursor",
    "fetch": "Fetch",
    "move": "Fetch",
    "close": "ClosePortal",
}


def _index_order(said: str) -> str | None:
    """Not recorded; documented as not supported."""
    is_index = re.match(r" create (unique )?index ", said)
    is_ordered = is_index and re.search(r" (asc|desc|nulls (first|last)) [,)n]", said)
    return "specifying sort order not supported for index keys" if is_ordered else None


def _index_options(said: str) -> str | None:
    """Not recorded; the documented syntax has none."""
    is_index = re.match(r" create (unique )?index ", said)
    return "WITH not supported for CREATE INDEX" if is_index and _WITH.search(said) else None


_WITH: Final = re.compile(r" with \( ")


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


def _table_from_query(said: str) -> str | None:
    """Recorded: create_table_as, materialized_view."""
    made = re.match(
        r' create (table|materialized view) (if not exists )?[\w".]+( \. [\w"]+)? as ', said
    )
    return "unsupported statement: CreateTableAs" if made else None


def _setting(said: str) -> str | None:
    """Recorded: set_transaction_repeatable_read and _serializable, set_default_isolation."""
    if " isolation level serializable " in said:
        return "Unsupported isolation level: SERIALIZABLE"
    found = _SET.match(said)
    if not found or found["name"] in _SETTINGS or said.startswith(" set time zone "):
        return None
    name = "TRANSACTION" if found["name"] == "transaction" else found["name"]
    return f'setting configuration parameter "{name}" not supported'


def _utility(said: str) -> str | None:
    """Not recorded: PREPARE, EXECUTE and DISCARD; TRUNCATE, LISTEN and others are."""
    found = re.match(r" (prepare|execute|discard) ", said)
    return f"unsupported statement: {found[1].capitalize()}" if found else None


def _advisory_lock(said: str) -> str | None:
    """Not recorded: neither the text nor the SQLSTATE."""
    found = _ADVISORY.search(said)
    return f"function {found[1]} not supported" if found else None


_RULES: Final[tuple[Callable[[str], str | None], ...]] = (
    _merge,
    _sample,
    _cursor,
    _index_order,
    _index_options,
    _length,
    _without_cache,
    _table_from_query,
    _setting,
    _utility,
    _advisory_lock,
)
