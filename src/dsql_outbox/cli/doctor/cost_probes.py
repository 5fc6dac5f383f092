"""The probes of costs and of side effects."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from statistics import median
from time import monotonic
from typing import Final

import psycopg

from dsql_outbox.outbox.database.connection import Connection

from .examined_database import ExaminedDatabase, run
from .finding import Finding, refused

_COMMITS: Final = 10
_LARGE: Final = 11 << 20
"""Bytes; Aurora DSQL's limit for a message is 10 MiB (AWS, Aurora DSQL quotas)."""


def commit(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The time of the smallest write."""
    taken: list[float] = []
    for _ in range(_COMMITS):
        position, start = visit.new_position(), monotonic()
        visit.rows("doctor_insert", position=position)
        taken.append(monotonic() - start)
    seconds = median(taken)
    text = f"{seconds * 1000:.2f} ms for the smallest write, median of {_COMMITS}"
    yield Finding("commit", "ok", text, values={"seconds": seconds})


def metering(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The cost of an insert of 4 KiB, and of an update of one small column in it."""
    position = visit.new_position()
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
            return Finding("metering", "unknown", "EXPLAIN reports no DPU")
        return Finding("metering", "ok", "not asked: PostgreSQL does not bill by use")
    parts = [f"{what} of 4 KiB: {', '.join(lines)}" for what, lines in told.items()]
    return Finding("metering", "ok", "; ".join(parts))


def async_index(visit: ExaminedDatabase) -> Iterator[Finding]:
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
            yield refused("async index", "ok", text, error)
            return
    yield Finding("async index", "ok", "an open session does not notice that the build ended")


def _read_twice(visit: ExaminedDatabase, other: Connection) -> None:
    for _ in range(2):
        with suppress(psycopg.errors.SerializationFailure):
            run(other, visit.schema, "doctor_count", position=0)


def large_message(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The answer to a message that is too large. The connection that sends it may break."""
    with visit.connect() as other:
        try:
            run(other, visit.schema, "doctor_large", {"text": "x" * _LARGE})
        except psycopg.Error as error:
            lost = error.sqlstate is None
            how = "drops the connection" if lost else f"is refused with {error.sqlstate}"
            text = f"a message over 10 MiB {how}; writers refuse an event over 8 MiB themselves"
            yield refused("large message", "ok", text, error)
            return
    yield Finding("large message", "ok", "a message over 10 MiB is taken")
