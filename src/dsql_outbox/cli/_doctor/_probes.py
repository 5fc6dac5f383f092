"""The probes: each tries in the scratch table what the documentation leaves open."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from statistics import median
from time import monotonic
from typing import Final

import psycopg

from dsql_outbox.outbox import Connection

from ._finding import Finding, Verdict
from ._races import first_inserts, first_upserts, skip_locked, updates
from ._visit import Visit, run

Probe = Callable[[Visit], Iterator[Finding]]

_COMMITS: Final = 10
_LARGE: Final = 11 << 20
"""Bytes; Aurora DSQL's limit for a message is 10 MiB (AWS, Aurora DSQL quotas)."""

_EXACT: Final = r'{"b": "\u0000", "a": 1, "a" : 2, "lone": "\ud800", "big": 1e200000}'

_REFUSED: Final = (psycopg.errors.FeatureNotSupported, psycopg.errors.SyntaxError)

_position = count(1)


def commit(visit: Visit) -> Iterator[Finding]:
    """How long the smallest write takes."""
    taken: list[float] = []
    for _ in range(_COMMITS):
        position, start = next(_position), monotonic()
        visit.rows("doctor_insert", position=position)
        taken.append(monotonic() - start)
    seconds = median(taken)
    text = f"{seconds * 1000:.2f} ms for the smallest write, median of {_COMMITS}"
    yield Finding("commit", "ok", text, values={"seconds": seconds})


def modifying_cte(visit: Visit) -> Iterator[Finding]:
    """Whether a write is one statement, or several in a pipeline."""
    try:
        rows = visit.rows("doctor_modifying_cte", position=next(_position))
    except _REFUSED as error:
        text = f"refused with {error.sqlstate}: writers take the plain form, {_PLAIN}"
        yield Finding("modifying CTE", "warn", text, sqlstate=error.sqlstate)
        return
    yield _answered("modifying CTE", [(0, 1)], rows, "works: a write is one statement")


_PLAIN: Final = "several statements in one round trip"


def pipeline(visit: Visit) -> Iterator[Finding]:
    """Whether BEGIN, a write and COMMIT go in one round trip."""
    position, connection = next(_position), visit.connection
    with connection.pipeline():
        connection.execute("BEGIN")
        run(connection, visit.schema, "doctor_insert", position=position)
        ended = connection.execute("COMMIT")
    rows = [(ended.statusmessage, *visit.rows("doctor_count", position=position)[0])]
    works = "works, COMMIT included: one round trip"
    yield _answered("pipeline", [("COMMIT", 1)], rows, works, otherwise="fail")


def row_comparison(visit: Visit) -> Iterator[Finding]:
    """Whether the relay's cursor bounds the key range, or rows are read and thrown away."""
    plan = [str(line) for (line,) in visit.rows("doctor_row_comparison")]
    yield judge_plan(plan)


def judge_plan(plan: list[str]) -> Finding:
    """By what PostgreSQL prints; other servers print plans of their own."""
    bound = next((line.strip() for line in plan if "ROW(" in line), None)
    if bound is None:
        shown = "; ".join(line.strip() for line in plan)
        return Finding("row comparison", "unknown", f"not seen in the plan: {shown}")
    if "Index Cond" in bound:
        return Finding("row comparison", "ok", "bounds the range of keys that is read")
    remedy = "a relay reads a shard's head again and again: keep the backlog short"
    return Finding("row comparison", "warn", f"filters what was read: {bound}", remedy)


def lateral(visit: Visit) -> Iterator[Finding]:
    """Whether one statement reads several shards."""
    visit.rows("doctor_insert", position=next(_position))
    rows = visit.rows("doctor_lateral")
    yield _answered(
        "lateral read", [(1,)], [(min(1, rows[0][0]),)], "works: one read for all shards"
    )


def unnest(visit: Visit) -> Iterator[Finding]:
    """Whether arrays of all types can be parameters."""
    works = "works for uuid[] and jsonb[]"
    yield _answered("unnest", [(2,)], visit.rows("doctor_unnest"), works)


def column_grant(visit: Visit) -> Iterator[Finding]:
    """Whether a role may be let read single columns."""
    visit.rows("doctor_grant_column")
    rows = visit.rows("doctor_granted_columns", {"schema": visit.schema})
    yield _answered("column grant", [(True, False)], rows, "in force for that column alone")


def json_exact(visit: Visit) -> Iterator[Finding]:
    """Whether a json column gives back what it was given."""
    rows = visit.rows("doctor_json", {"doc": _EXACT}, position=next(_position))
    same = "exact: order, spaces, repeated keys, \\u0000, lone surrogates, 1e200000"
    yield _answered("json", [(_EXACT,)], rows, same, otherwise="fail")


def convert_to(visit: Visit) -> Iterator[Finding]:
    """Whether the server encodes text."""
    rows = [(bytes(found),) for (found,) in visit.rows("doctor_convert_to")]
    yield _answered(
        "convert_to", [("grün".encode(),)], rows, "works; no statement of ours needs it"
    )


def uuidv7(visit: Visit) -> Iterator[Finding]:
    """Whether the server makes ids that rise with time."""
    try:
        visit.rows("doctor_uuidv7")
    except psycopg.errors.UndefinedFunction as error:
        text = "the server has none; no statement of ours needs it"
        yield Finding("uuidv7", "ok", text, sqlstate=error.sqlstate, values={"works": False})
        return
    text = "works; no statement of ours needs it"
    yield Finding("uuidv7", "ok", text, values={"works": True})


def lock_range(visit: Visit) -> Iterator[Finding]:
    """Whether FOR UPDATE takes part of a key."""
    try:
        visit.rows("doctor_lock_range", position=next(_position))
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        text = "needs the whole key; no statement of ours locks rows"
        yield Finding("lock range", "ok", text, sqlstate=error.sqlstate, values={"works": False})
        return
    text = "FOR UPDATE takes part of a key; no statement of ours locks rows"
    yield Finding("lock range", "ok", text, values={"works": True})


def metering(visit: Visit) -> Iterator[Finding]:
    """What an insert of 4 KiB costs, and an update of one small column in it."""
    position = next(_position)
    costs = {
        what: [str(line).strip() for (line,) in visit.rows(name, position=position)]
        for what, name in (("insert", "doctor_cost_insert"), ("update", "doctor_cost_update"))
    }
    yield judge_metering(costs, is_dsql=visit.is_dsql)


def judge_metering(plans: Mapping[str, list[str]], *, is_dsql: bool) -> Finding:
    """`plans` are the lines of EXPLAIN for each statement."""
    told = {what: [line for line in lines if "DPU" in line] for what, lines in plans.items()}
    if not any(told.values()):
        if is_dsql:
            return Finding("metering", "unknown", "EXPLAIN tells no DPU")
        return Finding("metering", "ok", "not asked: PostgreSQL does not bill by use")
    parts = [f"{what} of 4 KiB: {', '.join(lines)}" for what, lines in told.items()]
    return Finding("metering", "ok", "; ".join(parts))


def async_index(visit: Visit) -> Iterator[Finding]:
    """Whether the end of an index build disturbs sessions that are open."""
    if not visit.is_dsql:
        yield Finding("async index", "ok", "not asked: PostgreSQL has none")
        return
    with visit.connect() as other:
        ((job,),) = visit.rows("doctor_index_async")
        _read_twice(visit, other)  # the beginning of the build may disturb as well
        visit.rows("doctor_index_wait", job=str(job))
        try:
            run(other, visit.schema, "doctor_count", position=0)
        except psycopg.errors.SerializationFailure as error:
            text = f"an open session gets {error.sqlstate} when the build ends: writers retry it"
            yield Finding("async index", "ok", text, sqlstate=error.sqlstate)
            return
    yield Finding("async index", "ok", "an open session does not notice that the build ended")


def _read_twice(visit: Visit, other: Connection) -> None:
    for _ in range(2):
        with suppress(psycopg.errors.SerializationFailure):
            run(other, visit.schema, "doctor_count", position=0)


def large_message(visit: Visit) -> Iterator[Finding]:
    """What becomes of a message that is too large; it may cost the connection that sends it."""
    with visit.connect() as other:
        try:
            run(other, visit.schema, "doctor_large", {"text": "x" * _LARGE})
        except psycopg.Error as error:
            lost = error.sqlstate is None
            how = "drops the connection" if lost else f"is refused with {error.sqlstate}"
            text = f"a message over 10 MiB {how}; writers refuse an event over 8 MiB themselves"
            yield Finding("large message", "ok", text, sqlstate=error.sqlstate)
            return
    yield Finding("large message", "ok", "a message over 10 MiB is taken")


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
    return Finding(name, otherwise, f"answered {rows!r} instead of {expected!r}")


PROBES: Final[Mapping[str, Probe]] = {
    "commit": commit,
    "modifying CTE": modifying_cte,
    "pipeline": pipeline,
    "row comparison": row_comparison,
    "lateral read": lateral,
    "unnest": unnest,
    "column grant": column_grant,
    "json": json_exact,
    "convert_to": convert_to,
    "uuidv7": uuidv7,
    "first inserts": first_inserts,
    "first upserts": first_upserts,
    "updates": updates,
    "skip locked": skip_locked,
    "lock range": lock_range,
    "metering": metering,
    "async index": async_index,
}
"""In the order in which they are made and shown."""

LARGE: Final[Mapping[str, Probe]] = {"large message": large_message}
"""Only on demand."""
