"""The probes with two sessions that want the same row."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Final, Literal, NamedTuple, TypeVar

import psycopg

from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.redaction import error_line

from .examined_database import ExaminedDatabase, run
from .finding import Finding

T = TypeVar("T")

_WAIT: Final = 0.5
"""Seconds without an answer after which a statement is said to wait for the other session."""


class SessionResult(NamedTuple):
    """The end of a transaction: `sqlstate` is None if it committed, else `where` it failed."""

    sqlstate: str | None
    where: Literal["statement", "COMMIT"]
    message: str | None = None


class Race(NamedTuple):
    """Two transactions at one row; `waited` is whether the second waited for the first."""

    first: SessionResult
    second: SessionResult
    waited: bool


def first_inserts(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The result of two sessions that insert the same new key."""
    race = _run(visit, "doctor_insert", visit.new_position())
    yield judge("first inserts", race, {"23505", "40001"})


def first_upserts(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The result of two sessions that insert or update the same new key, as for a new entity."""
    race = _run(visit, "doctor_upsert", visit.new_position())
    yield judge("first upserts", race, {"23505", "40001"})


def updates(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The result of two sessions that change the same row."""
    position = visit.new_position()
    visit.rows("doctor_insert", position=position)
    yield judge("updates", _run(visit, "doctor_update", position), {"40001"})


def judge(name: str, race: Race, conflicts: set[str]) -> Finding:
    """`conflicts` are the SQLSTATEs that a writer takes for a conflict here."""
    lost = [outcome for outcome in (race.first, race.second) if outcome.sqlstate]
    told = f"the first {_told(race.first)}, the second {'waits and ' * race.waited}"
    told += _told(race.second)
    values = {
        "first": race.first.sqlstate,
        "second": race.second.sqlstate,
        "where": lost[0].where if lost else None,
        "waited": race.waited,
        "message": lost[0].message if lost else None,
    }
    states = {outcome.sqlstate for outcome in lost}
    if not lost:
        remedy = "do not write here: two sessions changed one row, and neither got an error"
        return Finding(name, "fail", told, remedy, values=values)
    if states <= conflicts:
        return Finding(name, "ok", f"{told}: writers retry it", values=values)
    return Finding(
        name, "fail", told, "do not write here: writers do not expect this", values=values
    )


def _told(outcome: SessionResult) -> str:
    return f"gets {outcome.sqlstate} at {outcome.where}" if outcome.sqlstate else "commits"


def _run(visit: ExaminedDatabase, name: str, position: int) -> Race:
    def change(connection: Connection) -> Callable[[], object]:
        return lambda: run(connection, visit.schema, name, position=position)

    with _two(visit, position) as (first, second), ThreadPoolExecutor(1) as thread:
        began = _try("statement", change(first))
        future = thread.submit(_try, "statement", change(second))
        waited = waits(future)
        ended = began if began.sqlstate else _commit(first)
        other = future.result()
        return Race(ended, other if other.sqlstate else _commit(second), waited)


@contextmanager
def _two(visit: ExaminedDatabase, position: int) -> Generator[tuple[Connection, Connection]]:
    """Two sessions in transactions whose snapshots are taken; rolled back at the end."""
    with ExitStack() as stack:
        sessions = [stack.enter_context(closing(visit.connect())) for _ in range(2)]
        for session in sessions:
            run(session, visit.schema, "doctor_count", position=position)  # any OC001 comes now
            run(session, visit.schema, "doctor_begin")
            run(session, visit.schema, "doctor_count", position=position)
        first, second = sessions
        yield first, second


def _try(where: Literal["statement", "COMMIT"], work: Callable[[], object]) -> SessionResult:
    try:
        work()
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        return SessionResult(error.sqlstate, where, error_line(error))
    return SessionResult(None, where)


def _commit(connection: Connection) -> SessionResult:
    return _try("COMMIT", connection.commit)


def waits(future: Future[T]) -> bool:
    """Whether a statement in another thread has no answer soon. Raises the statement's error."""
    try:
        future.result(_WAIT)
    except TimeoutError:
        return True
    return False
