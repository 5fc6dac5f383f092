"""The probes: each tries a feature that the documentation leaves open, in the scratch table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Final

import msgspec
import psycopg

from dsql_outbox.outbox import NO_SUCH_FORM
from dsql_outbox.publisher import NO_SHARD
from dsql_outbox.writer import Statements, proofs

from .conflict_probes import first_inserts, first_upserts, updates
from .cost_probes import async_index, commit, large_message, metering
from .examined_database import ExaminedDatabase, run
from .finding import Finding, Verdict

Probe = Callable[[ExaminedDatabase], Iterator[Finding]]

_EXACT: Final = r'{"b": "\u0000", "a": 1, "a" : 2, "lone": "\ud800", "big": 1e200000}'

_REFUSED: Final = (psycopg.errors.FeatureNotSupported, psycopg.errors.SyntaxError)

_position = count(1)


def modifying_cte(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether a write is one statement, or several in one round trip: both forms, on rows."""
    refusals = {form: _refusal(visit, each) for form, each in proofs(visit.schema).items()}
    yield judge_forms(refusals["single"], refusals["plain"])


def _refusal(visit: ExaminedDatabase, statements: Statements) -> str | None:
    """Return the SQLSTATE by which the database refuses these statements, or None."""
    visit.connection.execute("BEGIN")
    try:
        for query, parameters in statements:
            visit.connection.execute(query.query, parameters)
    except NO_SUCH_FORM as error:
        return error.sqlstate
    finally:
        if not visit.connection.closed:
            visit.connection.rollback()
    return None


def judge_forms(single: str | None, plain: str | None) -> Finding:
    """Judge the forms of a write by the SQLSTATE with which each is refused, or None."""
    name, another = "modifying CTE", "use another database"
    if single and plain:
        text = f"refused with {single}, and the plain form with {plain}: no event can be stored"
        return Finding(name, "fail", text, another, sqlstate=plain)
    if single:
        text = (
            f"refused with {single}, and the plain form works: writers take it, several "
            "statements in one round trip"
        )
        remedy = 'WriterSettings(form="plain") saves their question'
        return Finding(name, "fail", text, remedy, sqlstate=single)
    if plain:
        text = f"works: a write is one statement; the plain form is refused with {plain}"
        return Finding(name, "fail", text, 'leave WriterSettings(form="plain")', sqlstate=plain)
    return Finding(name, "ok", "works: a write is one statement")


def pipeline(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether BEGIN, a write and COMMIT go in one round trip."""
    position, connection = next(_position), visit.connection
    with connection.pipeline():
        connection.execute("BEGIN")
        run(connection, visit.schema, "doctor_insert", position=position)
        ended = connection.execute("COMMIT")
    rows = [(ended.statusmessage, *visit.rows("doctor_count", position=position)[0])]
    works = "works, COMMIT included: one round trip"
    yield _answered("pipeline", [("COMMIT", 1)], rows, works, otherwise="fail")


def row_comparison(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether the relay's cursor bounds the key range, or rows are read and thrown away."""
    plan = [str(line) for (line,) in visit.rows("doctor_row_comparison")]
    yield judge_plan(plan)


def judge_plan(plan: list[str]) -> Finding:
    """Judge the plan as PostgreSQL prints it. Other servers print other plans."""
    bound = next((line.strip() for line in plan if "ROW(" in line), None)
    if bound is None:
        shown = "; ".join(line.strip() for line in plan)
        return Finding("row comparison", "unknown", f"not seen in the plan: {shown}")
    if "Index Cond" in bound:
        return Finding("row comparison", "ok", "bounds the range of keys that is read")
    remedy = "a relay reads a shard's head again and again: keep the backlog short"
    return Finding("row comparison", "warn", f"filters the rows that were read: {bound}", remedy)


def lateral(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether one statement reads several shards."""
    visit.rows("doctor_insert", position=next(_position))
    try:
        rows = visit.rows("doctor_lateral")
        visit.rows("outbox_read", NO_SHARD)
    except NO_SUCH_FORM as error:
        yield _refused("lateral read", error, "a relay cannot work here")
        return
    yield _answered(
        "lateral read", [(1,)], [(min(1, rows[0][0]),)], "works: one read for all shards"
    )


def unnest(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether arrays of all types can be parameters."""
    works = "works for uuid[] and jsonb[]"
    yield _answered("unnest", [(2,)], visit.rows("doctor_unnest"), works)


def json_exact(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether a json column returns a text unchanged."""
    try:
        rows = visit.rows("doctor_json", {"doc": _EXACT}, position=next(_position))
    except (*_REFUSED, psycopg.DataError) as error:
        yield _refused("json", error, "events with such texts cannot be stored")
        return
    same = "exact: order, spaces, repeated keys, \\u0000, lone surrogates, 1e200000"
    yield _answered("json", [(_EXACT,)], rows, same, otherwise="fail")


def _refused(name: str, error: psycopg.Error, consequence: str) -> Finding:
    text = f"refused with {error.sqlstate}: {consequence}"
    return Finding(name, "fail", text, "use another database", sqlstate=error.sqlstate)


def _answered(
    name: str,
    expected: Sequence[object],
    rows: Sequence[object],
    works: str,
    *,
    otherwise: Verdict = "warn",
) -> Finding:
    if list(rows) == expected:
        return Finding(name, "ok", works)
    return Finding(name, otherwise, f"answered {_text(rows)} instead of {_text(expected)}")


def _text(rows: Sequence[object]) -> str:
    return msgspec.json.encode(rows, enc_hook=str).decode()


PROBES: Final[Mapping[str, Probe]] = {
    "commit": commit,
    "modifying CTE": modifying_cte,
    "pipeline": pipeline,
    "row comparison": row_comparison,
    "lateral read": lateral,
    "unnest": unnest,
    "json": json_exact,
    "first inserts": first_inserts,
    "first upserts": first_upserts,
    "updates": updates,
    "metering": metering,
    "async index": async_index,
}
"""In the order in which they are made and shown."""

LARGE: Final[Mapping[str, Probe]] = {"large message": large_message}
"""Only on demand."""
