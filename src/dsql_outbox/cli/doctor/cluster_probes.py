"""The probes that only a report has: what a cluster answers at a limit, and what work costs."""

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from secrets import token_bytes
from typing import Final

import psycopg

from dsql_outbox.outbox import FailureKind, kind_of

from .examined_database import ExaminedDatabase
from .finding import Finding, Value, refused
from .statement_probes import analyzed, cost_proofs, written

_ROWS_IN_MEMORY: Final = 200_000
"""Rows of about 1 kB. Aurora DSQL gives a query 128 MiB."""

_OVER_MEMORY: Final = frozenset({FailureKind.OUT_OF_MEMORY, FailureKind.OVER_LIMIT})

_SIZES: Final = (1, 10, 100)  # kB


def memory_limit(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The answer to a query that needs more memory than Aurora DSQL gives to one."""
    name = "query memory"
    try:
        visit.rows("doctor_memory", rows=_ROWS_IN_MEMORY)
    except psycopg.Error as error:
        if kind_of(error) not in _OVER_MEMORY:
            raise
        text = f"a query over its memory gets {error.sqlstate}: publishers wait and try again"
        yield refused(name, "ok", text, error)
        return
    yield Finding(name, "ok", f"a query sorts {_ROWS_IN_MEMORY} rows of 1 kB")


def statement_costs(visit: ExaminedDatabase) -> Iterator[Finding]:
    """What ten statements of writers and publishers cost, each on rows."""
    values: dict[str, Value] = {}
    with written(visit) as rows:
        for name, query, parameters in cost_proofs(visit.schema, rows):
            values[name] = dpu(analyzed(visit, query, parameters))
    yield judge_costs("statement costs", values, f"{len(values)} statements", visit)


def compression(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether a text that compresses well costs less than one that does not compress."""
    values: dict[str, Value] = {}
    for size in _SIZES:
        texts = {"alike": "x" * size * 1000, "random": b64encode(token_bytes(size * 750)).decode()}
        for kind, text in texts.items():
            position = visit.new_position()
            plan = visit.rows("doctor_cost_text", {"text": text}, position=position)
            values[f"{size} kB {kind}"] = dpu([str(line) for (line,) in plan], "Write")
    yield judge_costs("compression", values, "texts of 1, 10 and 100 kB", visit)


_DPU: Final = re.compile(r"\s*(\w+):?\s+([\d.]+)\s+DPU")


def dpu(plan: Sequence[str], part: str = "Total") -> float | None:
    """Return a part of the cost that EXPLAIN ANALYZE VERBOSE estimates on Aurora DSQL, or None."""
    found = [float(cost[2]) for line in plan if (cost := _DPU.match(line)) and cost[1] == part]
    return found[-1] if found else None


def judge_costs(name: str, values: dict[str, Value], what: str, visit: ExaminedDatabase) -> Finding:
    """Report costs as the server estimates them."""
    if None not in values.values():
        listed = ", ".join(f"{each} {cost}" for each, cost in values.items())
        return Finding(name, "ok", f"DPU of {what}: {listed}", values=values)
    if visit.is_dsql:
        return Finding(name, "unknown", "EXPLAIN reports no DPU", values=values)
    return Finding(name, "ok", "not asked: PostgreSQL does not bill by use")
