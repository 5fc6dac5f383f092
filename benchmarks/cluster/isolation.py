"""Runs the isolation cases in the scratch table."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from time import monotonic
from typing import Final, NamedTuple

import psycopg

from dsql_outbox.cli.doctor.conflict_probes import waits
from dsql_outbox.cli.doctor.examined_database import PATIENCE, ExaminedDatabase, run
from dsql_outbox.cli.doctor.finding import Finding, Value
from dsql_outbox.outbox.database.connection import Connection

from .isolation_cases import CASES, FIRST_ROWS, Case, Ran, Result, Rows, Step, judge
from .statements import ask

NAME: Final = "isolation cases"
"""The name of the finding with the result of each case."""

_SESSIONS: Final = 3
_FIRST_SHARD: Final = 1_000
"""The rows of case n have this shard + n; other probes use lower shards."""


def isolation_cases(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether transactions are isolated as snapshot isolation says: Hermitage's cases."""
    with _sessions(visit) as sessions:
        results: dict[str, Result] = {
            case.name: judge(case, _CaseRun(visit, sessions, _FIRST_SHARD + n).run(case))
            for n, case in enumerate(CASES)
        }
    yield judge_cases(results)


def judge_cases(results: Mapping[str, Result]) -> Finding:
    """One finding for all cases; its values are the result of each."""
    values: dict[str, Value] = {**results}
    of = {kind: [name for name, result in results.items() if result == kind] for kind in _KINDS}
    if of["broken"]:
        text = f"anomalies that snapshot isolation prevents: {', '.join(of['broken'])}"
        remedy = "do not write here: REPEATABLE READ is weaker than snapshot isolation"
        return Finding(NAME, "fail", text, remedy, values=values)
    text = f"{len(of['prevented'])} of {len(results)} anomalies are prevented"
    if of["possible"]:
        text += f"; snapshot isolation allows the others: {', '.join(of['possible'])}"
    return Finding(NAME, "ok", text, values=values)


_KINDS: Final[tuple[Result, ...]] = ("prevented", "possible", "broken")


class _Session(NamedTuple):
    """A connection, and the thread in which its statements run and may wait."""

    connection: Connection
    thread: ThreadPoolExecutor


@contextmanager
def _sessions(visit: ExaminedDatabase) -> Generator[Sequence[_Session]]:
    """Open the sessions; the first one is closed first, since the second may wait for it."""
    with ExitStack() as stack:
        opened = [
            _Session(
                stack.enter_context(closing(visit.connect())),
                stack.enter_context(ThreadPoolExecutor(1)),
            )
            for _ in range(_SESSIONS)
        ]
        yield opened[::-1]


class _CaseRun:
    """One run of a schedule. A step that waits does not stop the steps of other sessions."""

    def __init__(self, visit: ExaminedDatabase, sessions: Sequence[_Session], shard: int) -> None:
        self._visit = visit
        self._sessions = sessions
        self._shard = shard
        self._failed: set[int] = set()
        self._committed: list[int] = []
        self._begun: set[int] = set()
        self._waiting: set[int] = set()

    def run(self, case: Case) -> Ran:
        """Run all steps and return the outcome. Raises the driver's errors."""
        for session in self._sessions:
            session.connection.deadline = monotonic() + PATIENCE
        visit = self._visit
        visit.connection.deadline = monotonic() + PATIENCE
        for key, value in FIRST_ROWS.items():
            ask(
                visit.connection,
                visit.schema,
                "row_add",
                shard=self._shard,
                position=key,
                flag=value,
            )
        reads = [self._submit(step) for step in case.steps()]
        done = [read.result() for read in reads]
        left = ask(visit.connection, visit.schema, "rows", shard=self._shard)
        return Ran(done, self._committed, _by_key(left))

    def _submit(self, step: Step) -> Future[Rows | None]:
        """Return once the step is done, or waits; queue it if its session waits already."""
        thread = self._sessions[step.session - 1].thread
        if step.session not in self._begun:
            thread.submit(self._begin, step.session).result()
        submitted = thread.submit(self._answer, step)
        if step.session in self._waiting:
            return submitted
        if not step.may_wait:
            submitted.result()
        elif waits(submitted):
            self._waiting.add(step.session)
        return submitted

    def _begin(self, session: int) -> None:
        """Begin and take the snapshot now, however slow the first step is."""
        self._begun.add(session)
        connection = self._sessions[session - 1].connection
        run(connection, self._visit.schema, "doctor_begin")
        ask(connection, self._visit.schema, "rows", shard=self._shard)

    def _answer(self, step: Step) -> Rows | None:
        """The rows that a step reads; None if it reads none, or its transaction has failed."""
        if step.session in self._failed:
            return None
        connection = self._sessions[step.session - 1].connection
        try:
            return self._do(connection, step)
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
            self._failed.add(step.session)
            connection.rollback()
            return None

    def _do(self, connection: Connection, step: Step) -> Rows | None:
        if step.name == "COMMIT":
            connection.commit()
            self._committed.append(step.session)
            return None
        if step.name == "ROLLBACK":
            connection.rollback()
            return None
        rows = ask(connection, self._visit.schema, step.name, shard=self._shard, **step.literals)
        return None if step.expected is None else _by_key(rows)


def _by_key(rows: Sequence[Sequence[int]]) -> Rows:
    return {row[0]: row[1] for row in rows}
