"""The steps of a call as primitives: attempts, look-ups, runs and waits. No I/O."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, repeat
from time import time_ns
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from dsql_outbox.observability import TransactionStarted
from dsql_outbox.outbox import (
    NO_SUCH_FORM,
    AsyncConnection,
    Connection,
    Exchange,
    Lender,
    NumberedQuery,
    Open,
    Program,
    Query,
    Rows,
    Sleep,
    Values,
    array_literal,
    command,
    commit,
    exchange,
    is_interrupt,
    pipeline,
    require_committed,
    retried,
    roll_back,
    rows_of,
    tag_of,
)
from dsql_outbox.writer.attempt.steps import (
    Attempt,
    Committed,
    Failed,
    LookUp,
    Present,
    Result,
    Step,
    Wait,
    still_open,
)
from dsql_outbox.writer.conflicts.conflict_log import StoredReport
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.gate import Gate
from dsql_outbox.writer.statement.answers import (
    Row,
    found_events,
    stored_events,
)
from dsql_outbox.writer.transact.run import Run
from dsql_outbox.writer.transact.runs import Execute

from .conflicted import conflict_of

T = TypeVar("T")

_Step = Step | Execute
_Steps = Generator[_Step, Result, None]
_Own = Connection | AsyncConnection
_Work = Callable[[Any], Program[Committed | Present | Failed]]


class Watch(Protocol):
    """Follows the steps of a batch."""

    def performed(self, step: Any, result: Result, started_ns: int, *, goes_on: bool) -> None:
        """A step was performed. With `goes_on`, another one follows."""
        ...


class StepPrograms:
    """Performs the steps of calls. Each step opens a connection and gives it back.

    Its errors become its result, which the steps judge. `shards` is the number of shards,
    or None before the first step.
    """

    def __init__(self, core: Core, connections: Lender[Any]) -> None:
        self.core = core
        self.shards: int | None = None
        self._connections = connections

    def perform(self, steps: _Steps, gate: Gate, watch: Watch | None = None) -> Program[None]:
        """Perform the steps of a call, until every event is settled.

        An exception that is no result of a step, as of a cancelled caller, goes to the
        steps, which abandon the events that are not settled.
        """
        step = _advance(steps, None)
        while step is not None:
            started = time_ns()
            try:
                result = yield from self._step(step, gate)
            except BaseException as error:
                with suppress(StopIteration):
                    steps.throw(error)
                raise
            last, step = step, _advance(steps, result)
            if type(result) is Failed:  # twice as fast as isinstance
                self._note_conflict(last, result, started, step)
            if watch is not None:
                watch.performed(last, result, started, goes_on=step is not None)
        if gate.wrote and self.core.alarm.is_due():
            yield from self._look_at_backlog(gate)
        if self.core.conflicts.counts.has_news and gate.wrote:
            yield from self._store_conflicts(self.core.conflicts.due(), gate)

    def _step(self, step: _Step, gate: Gate) -> Program[Result]:
        if isinstance(step, Wait):
            yield Sleep(step.seconds)
            return None
        if isinstance(step, Attempt):
            work: _Work = partial(self._attempt, step, gate)
            return (yield from self._on_connection(work, gate, fresh=step.fresh))
        if isinstance(step, LookUp):
            return (yield from self._on_connection(partial(self.find, step.ids), gate))
        work = partial(self._execute, step.run, gate)
        return (yield from self._on_connection(work, gate, fresh=step.fresh, role_path=True))

    def _on_connection(
        self, work: _Work, gate: Gate, *, fresh: bool = False, role_path: bool = False
    ) -> Program[Committed | Present | Failed]:
        """Do work on a connection. Its error is the result, with whether a write was sent."""
        gate.sent = False
        try:
            connection = yield Open(fresh and self.core.fresh_retries, role_path, gate.deadline)
        except Exception as error:
            if is_interrupt(error):
                raise
            return Failed(error)
        try:
            result = yield from work(connection)
        except BaseException as error:
            self._connections.give_up(connection, error)
            if is_interrupt(error) or not isinstance(error, Exception):
                raise
            return Failed(self.core.named(error), gate.sent)
        self._connections.give_back(connection)
        return result

    def _attempt(self, step: Attempt, gate: Gate, connection: _Own) -> Program[Committed]:
        """Write the events of an attempt in one transaction, in one round trip."""
        shards = yield from self.require_shards(connection)
        in_parts = self.core.plain or connection.isolation_level is not None
        waiting = still_open(step.batch)
        if waiting and not waiting[0].scopes.is_quiet:
            self.core.tell(TransactionStarted(len(waiting)))
        while batch := still_open(step.batch):
            if in_parts:
                statements = self.core.transaction(batch, shards, connection.begin)
            else:
                statements = [self.core.write(batch, shards)]
            encoded = [(query, query.encode(values)) for query, values in statements]
            if gate.admit("the write", connection, TransactionStatus.IDLE, batch):
                break
        else:  # every call ended while the connection was waited for
            return Committed(())
        if in_parts:
            rows = yield from self._commit(connection, encoded)
        else:
            rows = yield Exchange(connection, exchange(connection, *encoded[0]))
        stored = stored_events([pending.prepared for pending in batch], rows)
        gate.wrote = True
        return Committed(stored)

    def _commit(
        self, connection: _Own, encoded: Sequence[tuple[NumberedQuery, Values]]
    ) -> Program[Rows]:
        """Run the write as a transaction of statements, sent together with its COMMIT."""
        try:
            results = yield Exchange(connection, pipeline(connection, encoded))
        except psycopg.Error:
            yield from roll_back(connection)
            raise
        require_committed(tag_of(results[-1]))
        return rows_of(results[-2])

    def _execute(self, run: Run[Any], gate: Gate, connection: _Own) -> Program[Committed | Failed]:
        """Execute one run. Raise an error of the database; return an error of the caller."""
        yield from self.require_shards(connection)
        yield Exchange(connection, command(connection, connection.begin))
        raised = yield from run.watch.call(connection, partial(run.call.function, run))
        failure = run.end(raised)
        if failure is not None:
            yield from _end_failed(connection, run)
            if run.is_callers_error:
                return Failed(failure)
            raise failure
        gate.admit("COMMIT", connection, TransactionStatus.INTRANS)
        yield from commit(connection)
        gate.wrote = True
        return Committed(())

    def read(self, query: bytes, parameters: Mapping[str, object]) -> Program[Sequence[Row]]:
        """Return the rows of a query, which is retried as a write is. It is never in doubt."""
        is_fresh = chain([False], repeat(self.core.fresh_retries))  # of each attempt

        def ask(connection: _Own) -> Program[Sequence[Row]]:
            rows: Sequence[Row] = yield Query(connection, query, parameters)
            return rows

        def attempt() -> Program[Sequence[Row]]:
            return self._connections.lend(ask, fresh=next(is_fresh))

        try:
            return (yield from retried(attempt, self.core.backoff(None).wait_after))
        except Exception as error:
            named = self.core.named(error)
            if named is error:
                raise
            raise named from error

    def find(self, ids: Iterable[Any], connection: _Own) -> Program[Present]:
        """Look up which of these events are stored."""
        rows = yield Query(connection, self.core.find, {"ids": array_literal(ids)})
        return Present(found_events(rows))

    def require_shards(self, connection: _Own) -> Program[int]:
        """Read the number of shards, and choose the form of a write if it is ``auto``.

        This is the first statement of a writer.
        """
        if self.shards is None:
            self.shards = self.core.shards((yield from self._first_rows(connection)))
        return self.shards

    def _first_rows(self, connection: _Own) -> Program[Sequence[Row]]:
        if self.core.must_probe:
            probe = [(query, query.encode(values)) for query, values in self.core.probe]
            try:
                results = yield Exchange(connection, pipeline(connection, probe))
            except NO_SUCH_FORM:
                self.core.plain = True
            else:
                return rows_of(results[0])
        rows: Sequence[Row] = yield Query(connection, self.core.shard_count)
        return rows

    def _note_conflict(
        self, step: _Step, result: Failed, started_ns: int, following: _Step | None
    ) -> None:
        if self.core.conflicts.is_on:
            conflict = conflict_of(step, result, started_ns, following)
            if conflict is not None:
                self.core.conflicts.add(conflict)

    def close(self) -> Program[None]:
        """Store the conflicts that no report has yet."""
        return self._store_conflicts(self.core.conflicts.last(), Gate(None))

    def _look_at_backlog(self, gate: Gate) -> Program[None]:
        alarm = self.core.alarm
        return self._aside(self._backlog, gate, alarm.saw, alarm.failed)

    def _store_conflicts(self, report: StoredReport | None, gate: Gate) -> Program[None]:
        if report is not None:
            store = partial(self._store, report)
            yield from self._aside(store, gate, lambda _: None, self.core.conflicts.failed)

    def _aside(
        self,
        ask: Callable[[_Own], Program[T]],
        gate: Gate,
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> Program[None]:
        """Do short work after a settled call. Its error does not reach the caller."""
        try:
            done((yield from self._connections.lend(ask, deadline=gate.deadline_aside)))
        except Exception as error:
            if is_interrupt(error):
                raise
            failed(error)

    def _backlog(self, connection: _Own) -> Program[Sequence[Row]]:
        rows: Sequence[Row] = yield Query(connection, self.core.alarm.query)
        return rows

    def _store(self, report: StoredReport, connection: _Own) -> Program[None]:
        """Store a report. A process's first report also deletes old rows of other processes."""
        conflicts = self.core.conflicts
        row = {"owner": report.owner, "report": report.report}
        yield Query(connection, conflicts.store, row, has_rows=False)
        if report.is_first:
            yield Query(connection, conflicts.prune, has_rows=False)


def _advance(steps: _Steps, result: Result) -> _Step | None:
    try:
        return steps.send(result)
    except StopIteration:
        return None


def _end_failed(connection: _Own, run: Run[Any]) -> Program[None]:
    """Roll back after a failed run. Close a connection that still runs a statement."""
    if connection.info.transaction_status is TransactionStatus.ACTIVE or run.unfinished:
        connection.drop()
    else:
        yield from roll_back(connection)
