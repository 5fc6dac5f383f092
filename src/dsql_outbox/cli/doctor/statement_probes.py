"""The probes that run statements of writers and publishers, on rows, and roll them back."""

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final
from uuid import uuid4

import psycopg

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.event.event import Entity
from dsql_outbox.outbox.failure import NO_SUCH_FORM
from dsql_outbox.publisher.form_proofs import burial_proofs, read_proofs
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.schema.outbox_rows import RowId, row_keys
from dsql_outbox.writer.statement.form_probe import proof_event, proofs

from .examined_database import ExaminedDatabase, bare
from .finding import Finding, refused

_WRITTEN: Final = 40
READ: Final = 5
"""The rows of a shard that the probes write, and how many of them they read."""

_Steps = Sequence[tuple[bytes, Mapping[str, Any]]]

Forms = Mapping[str, psycopg.Error | None]
"""Per form the error with which the database refuses it, or None."""


def write_forms(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether a write is one statement, or several in one round trip: both forms, on rows."""
    first, second = (Entity("OutboxProof", str(uuid4()), {}) for _ in range(2))
    refusals: dict[str, psycopg.Error | None] = {}
    for form, statements in proofs(
        visit.schema, [proof_event(first), proof_event(first, second)]
    ).items():
        with _rolled_back(visit):
            refusals[form] = _refusal(visit, statements)
    lost = "no event can be stored"
    yield judge_forms("modifying CTE", refusals, "a write is one statement", "writers", lost)


def read_forms(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether one statement reads several shards, or each is read by its own."""
    refusals = _proved(visit, lambda rows: read_proofs(visit.schema, rows[-READ - 1], READ))
    lost = "no publisher can work here"
    yield judge_forms("lateral read", refusals, "one read for all shards", "publishers", lost)


def burial_forms(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether a dead letter is made by one statement, or by several."""
    refusals = _proved(visit, lambda rows: burial_proofs(visit.schema, rows[-READ:]))
    lost = "no message can become a dead letter"
    yield judge_forms("burial", refusals, "a dead letter is one statement", "publishers", lost)


def arrays(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether arrays name the rows to change, and how many of them one statement may have."""
    visit.rows("doctor_arrays")
    with written(visit) as rows:
        cursor = visit.connection.execute(
            bare(statement("outbox_delete", visit.schema)), row_keys(rows)
        )
        if cursor.rowcount == _WRITTEN:
            yield Finding(
                "unnest", "ok", "works: 20 arrays side by side name the rows of a statement"
            )
            return
        text = f"arrays named {_WRITTEN} rows, and {cursor.rowcount} were changed"
        yield Finding("unnest", "fail", text, "use another database")


def judge_forms(name: str, refusals: Forms, works: str, user: str, lost: str) -> Finding:
    """Judge the forms of a statement: `works` is true of the single one, `user` chooses."""
    single, plain = refusals["single"], refusals["plain"]
    if single and plain:
        text = f"refused with {single.sqlstate}, and the plain form with {plain.sqlstate}: {lost}"
        return refused(name, "fail", text, plain, "use another database")
    if single:
        text = f"refused with {single.sqlstate}, and the plain form works: {user} take it"
        return refused(name, "fail", text, single)
    if plain:
        text = f"works: {works}; the plain form is refused with {plain.sqlstate}"
        return refused(name, "fail", text, plain)
    return Finding(name, "ok", f"works: {works}")


def rows_read(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether a read looks at the rows after its place only, or at others and throws them away."""
    found: list[int | None] = []
    for form in ("single", "plain"):
        with written(visit) as rows:
            ((query, parameters),) = read_proofs(visit.schema, rows[-READ - 1], READ)[form]
            with suppress(*NO_SUCH_FORM):  # `lateral read` reports it
                found.append(most_rows(analyzed(visit, query, parameters)))
    yield judge_rows_read(found)


def analyzed(visit: ExaminedDatabase, query: bytes, parameters: Mapping[str, Any]) -> Sequence[str]:
    """Run a statement, and return its plan with what the server counted."""
    plan = visit.connection.execute(b"EXPLAIN (ANALYZE, VERBOSE) " + bare(query), parameters)
    return [str(line) for (line,) in plan.fetchall()]


_ROWS: Final = re.compile(r"\bactual .*?\brows=([\d.]+)(?: loops=(\d+))?")
_REMOVED: Final = re.compile(r"Rows Removed by [^:]+: (\d+)")


def most_rows(plan: Sequence[str]) -> int | None:
    """Return the most rows that one node of an analyzed plan looked at; None without a number."""
    most, rows, loops = 0.0, 0.0, 0
    for line in plan:
        if node := _ROWS.search(line):
            rows, loops = float(node[1]), int(node[2] or 1)
        elif removed := _REMOVED.search(line):
            rows += float(removed[1])
        most = max(most, rows * loops)
    return round(most) if loops or most else None


def judge_rows_read(found: Sequence[int | None]) -> Finding:
    """Judge reads of `READ` of `_WRITTEN` rows by the most rows that each of them looked at."""
    name, counts = "row comparison", [count for count in found if count is not None]
    if not counts:
        return Finding(name, "unknown", "EXPLAIN ANALYZE reports no rows")
    most = max(counts)
    values = {"asked": READ, "read": most, "present": _WRITTEN}
    if most <= 2 * READ:
        text = f"bounds what is read: {most} rows looked at for {READ} of {_WRITTEN}"
        return Finding(name, "ok", text, values=values)
    text = f"{most} rows are looked at for {READ}: those before its place are read and thrown away"
    remedy = "a relay reads a shard's head again and again: keep the backlog short"
    return Finding(name, "warn", text, remedy, values=values)


def _proved(
    visit: ExaminedDatabase, proofs_of: Callable[[Sequence[RowId]], Mapping[str, _Steps]]
) -> Forms:
    refusals: dict[str, psycopg.Error | None] = {}
    for form in ("single", "plain"):
        with written(visit) as rows:
            refusals[form] = _refusal(visit, proofs_of(rows)[form])
    return refusals


def _refusal(visit: ExaminedDatabase, steps: _Steps) -> psycopg.Error | None:
    """Return the error by which the database refuses one of these statements, or None."""
    try:
        _send(visit, steps)
    except NO_SUCH_FORM as error:
        return error
    return None


def _send(visit: ExaminedDatabase, steps: _Steps) -> None:
    for query, parameters in steps:
        visit.connection.execute(query, parameters)


@contextmanager
def _rolled_back(visit: ExaminedDatabase) -> Generator[None]:
    visit.connection.execute("BEGIN")
    try:
        yield
    finally:
        if not visit.connection.closed:
            visit.connection.rollback()


@contextmanager
def written(visit: ExaminedDatabase) -> Generator[Sequence[RowId]]:
    """Messages of one new entity, in a transaction that is rolled back: their keys in order."""
    entity = Entity("OutboxProof", str(uuid4()), {})
    events = [proof_event(entity) for _ in range(_WRITTEN)]
    forms = proofs(visit.schema, events)
    with _rolled_back(visit):
        if _refusal(visit, forms["plain"]):
            visit.connection.rollback()
            visit.connection.execute("BEGIN")
            _send(visit, forms["single"])
        ids = array_literal(event.id for event in events)
        found = visit.rows("event_find", {"ids": ids})
        ((_, _, _, shard, *_),) = visit.rows(
            "record_entity", {"entity_type": entity.type, "entity_id": entity.id}
        )
        yield sorted(RowId(shard, position, str(each)) for each, *_, position, _ in found)
