"""What no statement of ours may say: what Aurora DSQL refuses, or takes by some accounts only.

`dsql-lint` finds a part of it. These rules read tokens (see `sql_tokens.outline`), so a comment,
a literal or a quoted name never breaks one.
"""

import re
from collections.abc import Callable
from itertools import count
from typing import Final, NamedTuple

from .tokens import Token, outline, statements


class Rule(NamedTuple):
    """`breaks` is asked about the outline of one statement."""

    name: str
    why: str
    breaks: Callable[[str], bool]


def broken(sql: str) -> list[Rule]:
    """The rules that a text breaks; raises `ValueError` for what is no SQL."""
    parts = [_EXPLAIN.sub(" ", outline(each)) for each in statements(sql)]
    found = [rule for rule in RULES if any(map(rule.breaks, parts))]
    return [*found, MIXED] if _is_mixed(parts) else found


def kind_of(statement: list[Token]) -> str:
    """DDL, grant, DML, query or transaction."""
    text = _EXPLAIN.sub(" ", outline(statement))
    if _TRANSACTION.match(text):
        return "transaction"
    if _GRANT.match(text):
        return "grant"
    if _DDL.match(text):
        return "DDL"
    return "DML" if _CHANGE.search(text) else "query"


_EXPLAIN: Final = re.compile(r"^ explain (\( .*? \) )?((analyze|verbose) )*")
_TRANSACTION: Final = re.compile(r" (begin|start|commit|end|rollback|abort|deallocate) ")
_GRANT: Final = re.compile(r" (grant|revoke) ")
_DDL: Final = re.compile(r" (create|alter|drop|comment) ")
_CHANGE: Final = re.compile(r" (insert into|delete from|update (?!set )\S+ .*?set) ")
_LOCK: Final = r" for (no key update|update|key share|share) "
_TABLE: Final = r"^ create (table|foreign table) "

_STORED: Final = (
    "bigint|bool|boolean|bpchar|bytea|char|character|date|decimal|double|float4|float8|int|int2"
    "|int4|int8|integer|interval|json|jsonb|numeric|real|smallint|text|time|timestamp|timestamptz"
    "|timetz|uuid|varchar"
)
_TYPES: Final = frozenset(_STORED.split("|"))
"""What DSQL stores; all that our statements may cast to as well."""

_NEWER: Final = (
    "any_value|array_reverse|array_sample|array_shuffle|array_sort|casefold|crc32|crc32c|date_add"
    "|date_subtract|erf|erfc|gamma|has_largeobject_privilege|json_agg_strict|json_array"
    "|json_arrayagg|json_exists|json_object_agg_(strict|unique|unique_strict)|json_objectagg"
    "|json_query|json_scalar|json_serialize|json_table|json_value|jsonb_agg_strict"
    "|jsonb_object_agg_(strict|unique|unique_strict)|jsonb_populate_record_valid|lgamma"
    "|merge_action|pg_basetype|pg_get_acl|pg_input_error_info|pg_input_is_valid|random_normal"
    "|system_user|to_bin|to_oct|to_regtypemod|unicode_assigned|unicode_version"
    "|uuid_extract_(timestamp|version)|uuidv4|uuidv7|xmltext"
)
"""What PostgreSQL 15 has not, the oldest that is supported; Aurora DSQL is a 16."""

_STARTS: Final = (
    "abort|alter|begin|call|close|comment|commit|copy|create|deallocate|declare|delete|discard|drop"
    "|end|execute|explain|fetch|grant|insert|listen|lock|merge|move|notify|prepare|release|reset"
    "|revoke|rollback|savepoint|select|set|show|start|truncate|unlisten|update|values|with|\\("
)

_OBJECTS: Final = r"(or replace )?(schema|table|view|(unique )?index|role|domain|function)"


def _says(pattern: str) -> Callable[[str], bool]:
    found = re.compile(pattern)
    return lambda text: found.search(text) is not None


def _calls(names: str) -> Callable[[str], bool]:
    return _says(rf' "?({names})"? \( ')


def _wrong_type(text: str) -> bool:
    return any(name.strip('"') not in _TYPES for name in _types(text))


def _types(text: str) -> list[str]:
    """Every type that a statement casts to, or gives to a column."""
    inner = r"(?:[^()]|\((?:[^()]|\([^()]*\))*\))*"
    found = re.findall(r" ::(?: pg_catalog \.)? (\S+)", text)
    found += re.findall(rf" cast \( {inner} as (\S+)", text)
    if text.startswith(" alter table "):
        found += re.findall(r" add (?:column )?(?:if not exists )?(?!constraint )\S+ (\S+)", text)
        found += re.findall(r" alter (?:column )?\S+ (?:set data )?type (\S+)", text)
    if re.match(_TABLE, text):
        columns = [each for each in map(str.split, _items(text)) if each[0] not in _CONSTRAINTS]
        found += [each[1] for each in columns if len(each) > 1]
    return found


_CONSTRAINTS: Final = {"primary", "unique", "check", "foreign", "constraint", "exclude", "like"}


def _items(text: str) -> list[str]:
    """What stands between the commas of the first pair of parentheses."""
    items, depth = [""], 0
    for word in text.split():
        depth -= word == ")"
        if depth == 1 and word == ",":
            items.append("")
        elif depth:
            items[-1] += f" {word}"
        elif word == ")":
            break
        depth += word == "("
    return [item for item in items if item.strip()]


def _outer_in_lateral(text: str) -> bool:
    """Whether the select list of a LEFT JOIN LATERAL names a table that its FROM does not."""
    for found in re.finditer(r" left (?:outer )?join lateral \( select ", text):
        inside = _inside(text, found.end())
        chosen, _, tables = inside.partition(" from ")
        named = re.findall(r"(\S+) \. ", f" {chosen}")
        if any(f" {name} " not in _unqualifying(tables) for name in named):
            return True
    return False


def _unqualifying(text: str) -> str:
    """The text without the names that stand before a dot: they need not be of this FROM."""
    return re.sub(r" \S+(?= \. )", "", f" {text} ")


def _inside(text: str, start: int) -> str:
    """The text up to the parenthesis that closes what is open at `start`."""
    depth = 1
    for at in count(start):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at]
    raise AssertionError("unreachable")


def _is_mixed(parts: list[str]) -> bool:
    changes = [part for part in parts if _DDL.match(part) or _GRANT.match(part)]
    others = [part for part in parts if part not in changes and not _TRANSACTION.match(part)]
    return len(changes) > 1 or bool(changes and others)


MIXED: Final = Rule("mixed", "one DDL in a transaction, alone", lambda _: False)

RULES: Final = (
    Rule("notify", "no LISTEN/NOTIFY", _says(r'^ (un)?listen |^ notify | "?pg_notify"? \( ')),
    Rule("copy", "COPY is not known to run everywhere", _says(r"^ copy ")),
    Rule("advisory lock", "no advisory locks", _calls(r"pg_(try_)?advisory_\w+")),
    Rule("row lock", "reads lock no row", _says(_LOCK)),
    Rule("skip locked", "no locks to skip", _says(rf"{_LOCK}(of .*)?(skip locked|nowait) ")),
    Rule("merge", "no MERGE", _says(r" merge into ")),
    Rule("tablesample", "no TABLESAMPLE", _says(r" tablesample ")),
    Rule("group by all", "answers 42601", _says(r" group by all ")),
    Rule(
        "set",
        "few settings can be set",
        _says(
            r'^ (re)?set (?!(session )?"?(client_encoding|datestyle|extra_float_digits'
            r'|intervalstyle|timezone|search_path|role)"? )| "?set_config"? \( '
        ),
    ),
    Rule(
        "isolation",
        "one isolation level, named at BEGIN or not at all",
        _says(r"^ (begin|start transaction) (?!(isolation level repeatable read )?(read only )?$)"),
    ),
    Rule(
        "savepoint",
        "no SAVEPOINT",
        _says(r"^ (savepoint|release|(rollback|abort)( work| transaction)? to) "),
    ),
    Rule("discard", "no DISCARD", _says(r"^ discard ")),
    Rule("deallocate", "only ALL", _says(r"^ deallocate (?!all $)")),
    Rule("prepare", "by the protocol only", _says(r"^ (prepare|execute) |^ \w+ prepared ")),
    Rule("cursor", "no DECLARE", _says(r"^ (declare|fetch|move|close) ")),
    Rule("lock table", "no LOCK", _says(r"^ lock ")),
    Rule("truncate", "no TRUNCATE", _says(r"^ truncate ")),
    Rule(
        "temporary",
        "no temporary or unlogged tables",
        _says(r"^ create (or replace )?((global|local) )?(temp|temporary|unlogged) "),
    ),
    Rule(
        "select into",
        "no table from a query",
        _says(r"^ (select|with) .*(?<!insert )into |^ create [^(]*table \S+ (\. \S+ )?as "),
    ),
    Rule(
        "sequence",
        "no sequence and no identity",
        _says(
            r' "?(nextval|setval|currval|lastval)"? \( |^ (create|alter) sequence '
            r"|^ (create|alter) table .* ((small|big)?serial|serial[248]|as identity) "
        ),
    ),
    Rule("array column", "no array is stored", _says(r"^ (create|alter) table .* (\[|array) ")),
    Rule("type", "not a type of DSQL's", _wrong_type),
    Rule("sync index", "CREATE INDEX needs ASYNC", _says(r"^ create (unique )?index (?!async )")),
    Rule(
        "index key",
        "no WHERE, order, method or operator class, and no schema before its name",
        _says(
            r"^ create (unique )?index (.* (where|asc|desc|using|nulls first|nulls last) "
            r"|(async |concurrently )?(if not exists )?\S+ \. |[^(]*\((.* ,)? [\w\"]+ [\w\"]+ )"
        ),
    ),
    Rule("lateral", "42804: LEFT JOIN LATERAL that selects what is outside", _outer_in_lateral),
    Rule("newer function", "not in PostgreSQL 15 and 16", _calls(_NEWER)),
    Rule(
        "object",
        "no such object to make or change",
        _says(rf"^ (create|alter|drop) (?!{_OBJECTS} |(temp|temporary|unlogged|sequence) )"),
    ),
    Rule("language", "functions are in SQL", _says(r"^ create .* language (?!sql )")),
    Rule("command", "not known to run", _says(rf"^ (?!({_STARTS}) )")),
)
