"""What a cluster answers at a limit, and what work costs: probes that take seconds."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from secrets import token_bytes
from typing import Any, Final
from uuid import uuid4

import psycopg

from dsql_outbox.cli.doctor.examined_database import ExaminedDatabase
from dsql_outbox.cli.doctor.finding import Finding, Value, refused
from dsql_outbox.cli.doctor.statement_probes import READ, analyzed, written
from dsql_outbox.outbox import Entity
from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.failure import FailureKind, kind_of
from dsql_outbox.publisher.form_proofs import burial_proofs, read_proofs
from dsql_outbox.publisher.relay.sql_store import failure_parameters
from dsql_outbox.publisher.relay.store import Failure
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.schema.outbox_rows import RowId, row_keys
from dsql_outbox.writer.statement.form_probe import proof_event, proofs

from .statements import ask

_ROWS_IN_MEMORY: Final = 200_000
"""Rows of about 1 kB. Aurora DSQL gives a query 128 MiB."""

_OVER_MEMORY: Final = frozenset({FailureKind.OUT_OF_MEMORY, FailureKind.OVER_LIMIT})

_SIZES: Final = (1, 10, 100)  # kB


def memory_limit(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The answer to a query that needs more memory than Aurora DSQL gives to one."""
    name = "query memory"
    try:
        ask(visit.connection, visit.schema, "memory", rows=_ROWS_IN_MEMORY)
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
            plan = ask(
                visit.connection, visit.schema, "cost_text", {"text": text}, position=position
            )
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


def infinity(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether a message that waits for an operator, without end, is stored and found as such."""
    with written(visit) as rows:
        (store, find) = failure_proofs(visit.schema, rows[-READ:])
        visit.connection.execute(*store)
        waits = [row[-1] for row in visit.connection.execute(*find).fetchall()]
    if waits == [inf] * READ:
        yield Finding("infinity", "ok", "works: a blocked message is stored and found")
        return
    text = f"a blocked message waits for {waits} s instead of infinity"
    yield Finding("infinity", "fail", text, "use another database")


def failure_proofs(schema: str, rows: Sequence[RowId]) -> Sequence[tuple[bytes, dict[str, Any]]]:
    """The statement that blocks the messages of these rows, and the one that finds them."""
    failures = failure_parameters([Failure(row, "", 1, None) for row in rows])
    find = statement("failure_find", schema)
    return [(statement("failure_record", schema), failures), (find, row_keys(rows))]


def cost_proofs(
    schema: str, rows: Sequence[RowId]
) -> Iterator[tuple[str, bytes, Mapping[str, Any]]]:
    """Ten statements of writers and publishers, by their names, on `rows` and new ones."""
    entity, buried, deleted = Entity("OutboxProof", str(uuid4()), {}), rows[:READ], rows[-READ:]
    one, batch = proofs(schema, [proof_event(entity) for _ in range(1 + READ)])["single"]
    read = read_proofs(schema, rows[READ], READ)
    record, find = failure_proofs(schema, deleted)
    ids = {"ids": array_literal(row.event_id for row in deleted)}
    key = {"entity_type": entity.type, "entity_id": entity.id}
    yield "write", *one
    yield "batch of 5", *batch
    yield "read", *read["single"][0]
    yield "plain read", *read["plain"][0]
    yield "record failures", *record
    yield "find failures", *find
    yield "find events", statement("event_find", schema), ids
    yield "entity", statement("entity_state", schema), key
    yield "delete 5", statement("outbox_delete", schema), row_keys(deleted)
    yield "bury 5", *burial_proofs(schema, buried)["single"][0]


REPORTED: Final[Mapping[str, Callable[[ExaminedDatabase], Iterator[Finding]]]] = {
    "infinity": infinity,
    "query memory": memory_limit,
    "statement costs": statement_costs,
    "compression": compression,
}
"""In the order in which they are made and shown."""
