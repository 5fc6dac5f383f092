"""The attempts, look-ups and reads of a writer, each on one connection. No I/O."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from time import time_ns
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus

from dsql_outbox.observability.facts import TransactionEnded, TransactionStarted
from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.database.connection import AsyncConnection, Connection
from dsql_outbox.outbox.database.exchange import (
    NumberedQuery,
    Rows,
    Values,
    commands,
    exchange,
    pipeline,
    rows_of,
    tag_of,
)
from dsql_outbox.outbox.event.event_parser import ParsedEvent
from dsql_outbox.outbox.failure import NO_SUCH_FORM, DatabaseFailure, refuses_form
from dsql_outbox.outbox.interrupt import is_interrupt
from dsql_outbox.outbox.unit_of_work.budget import retried
from dsql_outbox.outbox.unit_of_work.commit import begin, require_committed, roll_back
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.primitives import Exchange, Program, Query, TakeTurn
from dsql_outbox.outbox.unit_of_work.turns import Turn, Turns
from dsql_outbox.outbox.unit_of_work.work import on_connection
from dsql_outbox.writer.attempt.acts import Acts
from dsql_outbox.writer.attempt.event_write import still_open
from dsql_outbox.writer.attempt.pending import Pending
from dsql_outbox.writer.conflicts.conflict_log import StoredReport
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.answers import Found, Row, Stored, found_events
from dsql_outbox.writer.transact.call import Run

from .conflicted import conflict_of

T = TypeVar("T")

_Own = Connection | AsyncConnection

_NS: Final = 1e-9


class Attempts:
    """Performs attempts, look-ups and reads, each on a connection that it gives back.

    `shards` is the number of shards, or None before the first statement.
    """

    def __init__(self, core: Core, connections: Lender[Any]) -> None:
        self.core = core
        self.shards: int | None = None
        self._connections = connections

    def run_once(self, gate: Gate, run: Run[Any], fresh: bool) -> Program[DatabaseFailure | None]:
        """Run the function of a call in a transaction: an open attempt."""
        work = partial(self._run, run, gate)
        failure = yield from self.attempt(work, gate, fresh=fresh, role_path=True)
        if failure is not None and run.is_refused:
            run.needs_plain = yield from self.proves_plain(gate.deadline)
        return failure

    def aside(self, gate: Gate) -> Program[None]:
        """Do after a settled call what concerns the process, if it is due and the call wrote."""
        alarm, conflicts = self.core.alarm, self.core.conflicts
        if gate.wrote and alarm.is_due():
            yield from self._aside(self._backlog, gate, alarm.saw, alarm.failed)
        if gate.wrote and conflicts.counts.has_news:
            yield from self._store_conflicts(conflicts.due(), gate)

    def attempt(
        self,
        act: Callable[[Any], Program[T]],
        gate: Gate,
        *,
        fresh: bool = False,
        role_path: bool = False,
    ) -> Program[T | DatabaseFailure]:
        """Do an act on a connection. Return its result, or the meaning of its error."""
        return on_connection(
            self._connections,
            act,
            gate,
            fresh=fresh and self.core.fresh_retries,
            role_path=role_path,
            named=self.core.named,
        )

    def write_in_one(
        self, batch: Sequence[Pending], gate: Gate, connection: _Own
    ) -> Program[Sequence[Stored]]:
        """Write the events of a batch that are still open, in one round trip."""
        shards = yield from self.require_shards(connection)
        waiting = still_open(batch)
        if waiting and not waiting[0].scopes.is_quiet:
            self.core.tell(TransactionStarted(len(waiting)))
        was_plain = self.core.plain
        try:
            return (yield from self._sent(batch, gate, connection, shards))
        except NO_SUCH_FORM as error:
            if was_plain or not self.core.must_probe or not refuses_form(error):
                raise
            self.core.plain = True  # some servers plan a statement that they cannot run
        # The server has refused the statement, so nothing is stored, and the other form may go.
        gate.sent = False
        for pending in waiting:
            pending.is_sent = False
        try:
            return (yield from self._sent(batch, gate, connection, shards))
        except BaseException:
            self.core.plain = False  # the refusal was no matter of the form, or nobody knows
            raise

    def proves_plain(self, deadline: float | None) -> Program[bool]:
        """Return whether appends have the plain form from now on, after one was refused.

        The refusal decides nothing: it may be due to the session or the server of the caller.
        So a connection of the writer writes in the single form, and rolls back.
        """
        if self.core.must_probe and not self.core.plain:
            try:
                yield from self._connections.lend(self._prove_single, deadline=deadline)
            except NO_SUCH_FORM:
                self.core.plain = True
            except psycopg.Error:
                return False  # nobody knows, and the next refusal asks again
        return self.core.plain

    def _prove_single(self, connection: _Own) -> Program[None]:
        proof = self.core.proof(connection.begin)
        sent = [(query, query.encode(values)) for query, values in proof]
        try:
            yield Exchange(connection, pipeline(connection, sent))
        except psycopg.Error:
            yield from roll_back(connection)
            raise

    def _sent(
        self, batch: Sequence[Pending], gate: Gate, connection: _Own, shards: int
    ) -> Program[Sequence[Stored]]:
        """Send the events that are still open in the current form."""
        in_parts = self.core.plain or connection.isolation_level is not None
        while sent := still_open(batch):
            if in_parts:
                statements = self.core.transaction(sent, shards, connection.begin)
            else:
                statements = [self.core.write(sent, shards)]
            encoded = [(query, query.encode(values)) for query, values in statements]
            if gate.admit("the write", connection, TransactionStatus.IDLE, sent):
                break
        else:  # every call ended while the connection was waited for
            return ()
        if in_parts:
            rows = yield from self._commit(connection, encoded)
        else:
            rows = yield Exchange(connection, exchange(connection, *encoded[0]))
        stored = self.core.stored(sent, rows)
        gate.wrote = True
        return stored

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

    def _run(self, run: Run[Any], gate: Gate, connection: _Own) -> Program[DatabaseFailure | None]:
        yield from self.require_shards(connection)
        send = partial(commands, connection)
        yield from begin(connection, self.core.guards, run.id, send)
        function = partial(run.call.function, run)
        failure = yield from run.complete(connection, function, gate, self.core.guards)
        gate.wrote = failure is None
        return failure

    def read(self, query: bytes, parameters: Mapping[str, object]) -> Program[Sequence[Row]]:
        """Return the rows of a query, which is retried as a write is. It is never in doubt."""
        is_fresh = chain([False], repeat(self.core.fresh_retries))  # of each attempt
        deadline = Gate(self.core.settings.timeout).deadline

        def ask(connection: _Own) -> Program[Sequence[Row]]:
            rows: Sequence[Row] = yield Query(connection, query, parameters)
            return rows

        def attempt() -> Program[Sequence[Row]]:
            return self._connections.lend(ask, fresh=next(is_fresh), deadline=deadline)

        try:
            return (yield from retried(attempt, self.core.backoff(deadline)))
        except Exception as error:
            named = self.core.named(error)
            if named is error:
                raise
            raise named from error

    def find(self, ids: Iterable[UUID], connection: _Own) -> Program[Mapping[UUID, Found]]:
        """Read which of these events are stored."""
        rows = yield Query(connection, self.core.find, {"ids": array_literal(ids)})
        return found_events(rows)

    def require_shards(self, connection: _Own) -> Program[int]:
        """Read the number of shards, and choose the form of a write if it is ``auto``.

        This is the first statement of a writer.
        """
        if self.shards is None:  # several first calls may ask at once, and get the same answer
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
        rows: Sequence[Row] = yield Query(connection, self.core.layout)
        return rows

    def tell_ended(self, failure: DatabaseFailure | None, started_ns: int) -> None:
        """Report the end of a transaction to the hooks."""
        self.core.tell(
            TransactionEnded(
                started_ns=started_ns,
                ended_ns=time_ns(),
                server=self.core.server,
                pool=self._connections,
                error=type(failure.error).__name__ if failure else None,
                sqlstate=failure.sqlstate if failure else None,
            )
        )

    def close(self) -> Program[None]:
        """Store the conflicts that no report has yet."""
        return self._store_conflicts(self.core.conflicts.last(), Gate(None))

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
        rows: Sequence[Row] = yield Query(connection, self.core.alarm.query, {"target": None})
        return rows

    def _store(self, report: StoredReport, connection: _Own) -> Program[None]:
        """Store a report. A process's first report also deletes old rows of other processes."""
        conflicts = self.core.conflicts
        row = {"owner": report.owner, "report": report.report}
        yield Query(connection, conflicts.store, row, has_rows=False)
        if report.is_first:
            yield Query(connection, conflicts.prune, has_rows=False)


class WriteActs(Acts):
    """The acts of one call of a writer, whose gate they pass."""

    def __init__(self, attempts: Attempts, gate: Gate) -> None:
        self._attempts = attempts
        self._gate = gate

    def write(
        self, batch: Sequence[Pending], *, fresh: bool
    ) -> Program[Sequence[Stored] | DatabaseFailure]:
        """Write events in one transaction, in one round trip: a sealed attempt."""
        write = partial(self._attempts.write_in_one, batch, self._gate)
        return self._attempts.attempt(write, self._gate, fresh=fresh)

    def look_up(self, ids: Iterable[UUID]) -> Program[Mapping[UUID, Found] | DatabaseFailure]:
        """Read what is stored under these ids."""
        return self._attempts.attempt(partial(self._attempts.find, ids), self._gate)

    def attempted(
        self, batch: Sequence[Pending], failure: DatabaseFailure | None, started_ns: int
    ) -> None:
        """Report the end of a transaction, once for all its events."""
        if not (batch and batch[0].scopes.is_quiet):
            self._attempts.tell_ended(failure, started_ns)

    def goes_on(self) -> None:
        """Do nothing: only a lane has other calls to serve meanwhile."""

    def conflicted(  # noqa: PLR0913 - see `Acts`
        self,
        failure: DatabaseFailure,
        events: Sequence[ParsedEvent],
        *,
        given_up: Sequence[ParsedEvent],
        started_ns: int,
        wait: float | None,
        in_transact: bool = False,
    ) -> None:
        """Count a conflict for the report of the process."""
        log = self._attempts.core.conflicts
        if not log.is_on:
            return
        seconds = (time_ns() - started_ns) * _NS + (wait or 0.0)
        found = conflict_of(failure, events, given_up, seconds=seconds, in_transact=in_transact)
        if found is not None:
            log.add(found)


class TurnActs(WriteActs):
    """The acts of a `write`. After a conflict, it takes the turn of its entities until it ends.

    The next calls then stand behind it from the start, or each would meet it once, and might win.
    A call that stands behind one counts as another that lost: it would have met it. Without
    conflicts no `write` waits, not for a `transact` either. With a counted budget the schedule
    is the user's: no turns.
    """

    def __init__(self, attempts: Attempts, gate: Gate, turns: Turns) -> None:
        super().__init__(attempts, gate)
        self._takes_turns = attempts.core.settings.max_retries is None
        self._turns = turns
        self._turn: Turn | None = None

    def take_turn(self, batch: Sequence[Pending]) -> Program[bool]:
        """Wait for the turn, which comes before the deadline or never."""
        if self._turn is not None or not self._takes_turns:
            return True
        entities = [entity for pending in batch for entity in pending.entities]
        self._turn = Turn(entities, has_lost=lambda: True)
        return bool((yield TakeTurn(self._turns, self._turn, self._gate.deadline)))

    def follow(self, pending: Pending) -> Program[bool]:
        """Wait behind the calls of the event's entities, if one of them has lost a conflict."""
        if not self._takes_turns or not self._turns.has_loser(pending.entities):
            return True
        try:
            return (yield from self.take_turn([pending]))
        except BaseException as error:  # no attempt has begun that would report it
            pending.abandon(error)
            raise

    def leave(self) -> None:
        """Let the next call have its turn."""
        if self._turn is not None:
            self._turns.leave(self._turn)


def no_turn() -> psycopg.OperationalError:
    """The error of a call whose turn did not come in time."""
    return psycopg.OperationalError(
        "nothing was sent: other calls of this writer that name the same entities "
        "took until the deadline of the call (timeout)"
    )
