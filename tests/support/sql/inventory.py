"""Every statement that the library can send to a database, and which one a text at the wire is."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from string import Formatter
from typing import Final, Literal, LiteralString, NamedTuple, cast

from psycopg import sql

from dsql_outbox.outbox.database.exchange import numbered
from dsql_outbox.schema.named_statements import compose, names, read_sql, render
from dsql_outbox.schema.roles import DUTIES, grants
from dsql_outbox.schema.tables import migrations

from .rules import kind_of
from .senders import senders
from .tokens import canonical, tokens

Kind = Literal["DDL", "DML", "query", "transaction", "grant"]

SCHEMA: Final = "outbox"


class Entry(NamedTuple):
    """`example` is a text as it goes over the wire, on the tables of schema ``outbox``.

    `excused` names the rules that it may break, its own and `dsql-lint`'s, and `reason` says why.
    """

    name: str
    kind: Kind
    example: str
    sent_by: tuple[str, ...]
    excused: frozenset[str]
    reason: str | None
    pattern: re.Pattern[str]


_POSTGRES: Final = "PostgreSQL only"

_READ_COMMITTED: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"

EXCUSES: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    _READ_COMMITTED: (_POSTGRES, frozenset({"isolation", "dsql-lint transaction_isolation"})),
    "event_lock": (
        "what names an event locks it, so that it is not forgotten meanwhile",
        frozenset({"row lock"}),
    ),
    "doorbell_listen": (_POSTGRES, frozenset({"notify", "dsql-lint unsupported_listen"})),
    "doorbell_ring": (_POSTGRES, frozenset({"notify"})),
    "plan_by_index": (_POSTGRES, frozenset({"set"})),
    "run_mark": (_POSTGRES, frozenset({"set"})),
    "status_counters": (
        "PostgreSQL's statistics: `status` goes without them elsewhere",
        frozenset({"type"}),
    ),
}
"""What breaks a rule on purpose. An excuse that is not needed any more fails `lint_sql`."""

_WORDS: Final = {
    "BEGIN": "BEGIN",
    _READ_COMMITTED: "BEGIN",
    "BEGIN READ ONLY": "BEGIN",
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY": "BEGIN",
    "COMMIT": "COMMIT",
    "SELECT 1": "SELECT 1",
    "ROLLBACK": "ROLLBACK",
}
"""Words without a file, each with the one that tells who sends it."""


_OWN_GUARDS: Final = ("event_guard", "inbox_guard")
"""The guards of bodies that run in sessions of a caller, where they are parts of one statement."""

_EXPLAINED: Final[Mapping[str, tuple[str, ...]]] = {
    "EXPLAIN": ("event_write_one",),
    "EXPLAIN (ANALYZE)": ("event_write_batch",),
    "EXPLAIN (ANALYZE, VERBOSE)": ("outbox_read", "outbox_read_range"),
}
"""The statements that a writer explains for the form of a write, and those of doctor."""


@lru_cache(maxsize=1 << 16)
def known(text: str) -> str | None:
    """The name of the entry that a statement at the wire is, or None.

    Comments, white space and the case of words do not matter. `text` is as a driver sends it, with
    ``$1`` or a literal for each parameter, on the tables of any schema.
    """
    try:
        said = canonical(text)
    except ValueError:
        return None
    return next((each.name for each in inventory() if each.pattern.fullmatch(said)), None)


@cache
def inventory() -> tuple[Entry, ...]:
    """All entries, sorted by name."""
    return tuple(sorted(_entries()))


def _entries() -> Iterator[Entry]:
    for name in names("statements"):
        if name not in _COMPOSED:
            text = read_sql("statements", name)
            yield _entry(name, lambda schema, fill, text=text: _filled(text, schema, fill))
    for explain, explained in _EXPLAINED.items():
        for name in explained:
            text = read_sql("statements", name)
            yield _entry(
                f"{explain} {name}",
                lambda schema, fill, text=text, explain=explain: (
                    b"%s %s"
                    % (
                        explain.encode(),
                        _filled(text, schema, fill)
                        if "VERBOSE" in explain
                        else _filled(text, schema, fill).lower(),
                    )
                ),
                ("doctor",) if "VERBOSE" in explain else senders(name),
            )
    for migration in migrations():
        name = f"{migration.version:04}_{migration.name}"
        yield _entry(name, lambda schema, _, made=migration: made.ddl(schema), ("schema",))
    yield from _grants()
    for word, sign in _WORDS.items():
        yield _entry(word, lambda *_, word=word: word.encode(), senders(sign))
    proofs = (["run_guard"], *([*run, own] for run in ([], ["run_guard"]) for own in _OWN_GUARDS))
    for guards in proofs:
        texts = [read_sql("statements", guard) for guard in guards]
        yield _entry(
            f"proof: {', '.join(guards)}",
            lambda schema, fill, texts=texts: b", ".join(
                [b"SELECT 1", *(b"(%s)" % _filled(text, schema, fill) for text in texts)]
            ),
            senders("run_proof"),
        )
    for name, (example, template) in _COMPOSED.items():
        yield _entry(
            name,
            lambda _, fill, made=(example, template): made[0 if fill is _example else 1],
            ("schema",),
        )


def _grants() -> Iterator[Entry]:
    lines = {grant.text: grant for duty in DUTIES for grant in grants(duty)}  # some are of two
    for grant in lines.values():
        yield _entry(
            f"GRANT {', '.join(grant.rights)} ON {grant.name or 'schema'}",
            lambda schema, fill, grant=grant: grant.statement(schema, _role(fill)),
            ("schema",),
        )


_Fill = Callable[[str], int | str]


def _entry(
    name: str, make: Callable[[str, _Fill], bytes], sent_by: tuple[str, ...] | None = None
) -> Entry:
    example = _wire(make(SCHEMA, _example))
    reason, excused = EXCUSES.get(name, (None, frozenset[str]()))
    return Entry(
        name,
        cast("Kind", kind_of(tokens(example))),
        example,
        senders(name) if sent_by is None else sent_by,
        excused,
        reason,
        _pattern(canonical(_wire(make("mark_schema", _mark)))),
    )


def _wire(query: bytes) -> str:
    return numbered("", query).text.decode() if b"%(" in query else query.decode()


def _filled(text: LiteralString, schema: str, fill: _Fill) -> bytes:
    fields = {field for _, field, _, _ in Formatter().parse(text) if field} - {"schema"}
    return render(text, schema, **{field: fill(field) for field in fields})


def _example(field: str) -> int | str:
    return {"job": "a job's id", "name": "outbox", "checksum": "0" * 64}.get(field, 1)


def _mark(field: str) -> str:
    return f"mark_literal_{field}"


def _role(fill: _Fill) -> str:
    return "outbox_role" if fill is _example else "mark_name_role"


# Patterns: what stands in a template for a name, a literal or a piece of SQL.

_NAME: Final = r'"(?:[^"]|"")+"'
_LITERAL: Final = (
    r"(?:(?:- )?\d\S*|E'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|null|true|false|\$\d+)(?: :: \w+)?"
)
"""In a session of a caller its driver may send a parameter instead."""

_FORMS: Final = {
    "schema": _NAME,
    "name": _NAME,
    "literal": _LITERAL,
}
_PARAMETER: Final = re.compile(r"\\\$(\d+)(?=\\ ::)")
_PARAMETER_OR_LITERAL: Final = r"""(?:\\$\1|[eE]?'(?:[^'\\\\]|\\\\.|'')*'|null)"""
"""psycopg2 sends a literal in place of a parameter."""

_MARK: Final = re.compile(r"""(["']?)mark_([a-z]+)(\w*)\1""")


def _pattern(template: str) -> re.Pattern[str]:
    """A name or literal that stands at several places must be the same at each."""
    seen: set[str] = set()
    parts: list[str] = []
    at = 0
    for mark in _MARK.finditer(template):
        parts.append(re.escape(template[at : mark.start()]))
        at, group = mark.end(), f"{mark[2]}{mark[3]}"
        parts.append(f"(?P={group})" if group in seen else f"(?P<{group}>{_FORMS[mark[2]]})")
        seen.add(group)
    text = "".join((*parts, re.escape(template[at:])))
    return re.compile(_PARAMETER.sub(_PARAMETER_OR_LITERAL, text), re.DOTALL)


# Statements that code puts together: an example as the code makes it, and a template.


def _dropped(kind: str) -> tuple[bytes, bytes]:
    return (
        compose(f"{kind}_drop", SCHEMA, relation=sql.Identifier("thing")),
        compose(f"{kind}_drop", "mark_schema", relation=sql.Identifier("mark_name_relation")),
    )


_COMPOSED: Final[Mapping[str, tuple[bytes, bytes]]] = {
    "table_drop": _dropped("table"),
    "view_drop": _dropped("view"),
}
