"""Group commit: calls made while a transaction is in flight share the next one.

A lane is a queue with a task, which exists while the queue has entries. The task
sends one transaction after another and never waits for more calls. A transaction
that needs a second attempt, or that waits for the lock of another session, leaves its
lane: its task continues with it, and another task takes the lane.
"""

import asyncio
from asyncio import CancelledError, Future, Task
from collections.abc import Coroutine, Iterable, Sequence
from contextvars import Context
from itertools import islice
from time import monotonic, time_ns
from typing import Final

import anyio
import psycopg

from dsql_outbox.observability.facts import BatchedWrite, BatchEnded, DatabaseServer
from dsql_outbox.outbox.errors import OutcomeUnknown
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.failure import DatabaseFailure
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.unit_of_work.connections.task_connections import AsyncConnections
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.writer.attempt.acts import Acts
from dsql_outbox.writer.attempt.journal import attempt_outcome
from dsql_outbox.writer.attempt.pending import OnDuplicate, Pending, WriteOutcome, pend
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.program.call_arguments import require_on_duplicate, require_version
from dsql_outbox.writer.program.programs import Programs
from dsql_outbox.writer.statement.chunks import chunks

from .lanes import Lanes, Ticket

MOST_TOGETHER: Final = 128
"""The most calls of one transaction. After a conflict all of it is sent again, in halves."""

MOST_QUEUED: Final = 10_000
"""The most calls that wait for their transaction: a bound for the memory of their events."""

_PATIENCE: Final = 0.1
"""Seconds after which a transaction leaves its lane: it probably waits for a lock."""


class _CoalescedCall(Ticket):
    """One call of `write`: its event, its deadline, and the future that its caller awaits."""

    def __init__(self, pending: Pending, gate: Gate, future: "Future[WriteOutcome]") -> None:
        touches = pending.prepared.event.touches
        super().__init__(pending.id, [(t.entity_type, t.entity_id) for t in touches])
        self.pending = pending
        self.deadline = gate.deadline
        self.future = future

    def answer(self, outcome: WriteOutcome) -> None:
        """Pass the outcome to the caller, unless it was answered or cancelled before."""
        if not self.future.done():
            self.future.set_result(outcome)


class _Flight(Acts):
    """One transaction of a lane, with the calls whose events it writes."""

    def __init__(
        self,
        coalescer: "Coalescer",
        core: Core,
        connections: AsyncConnections,
        lane: int,
        calls: Sequence[_CoalescedCall],
    ) -> None:
        super().__init__(core, connections, _shared_gate(calls))
        self.lane = lane
        self.calls = calls
        self.has_left = False
        self._coalescer = coalescer

    def tell_transaction_end(
        self, batch: Sequence[Pending], failure: DatabaseFailure | None, started_ns: int
    ) -> None:
        """Report the end of a transaction, and to which callers it belongs if to several."""
        super().tell_transaction_end(batch, failure, started_ns)
        if len(batch) > 1:
            self._coalescer.tell_batch(batch, failure, started_ns)

    def leave_lane(self) -> None:
        """Leave the lane to other calls."""
        self._coalescer.leave_lane(self)


class Coalescer:
    """Writes the events of many callers in few transactions."""

    def __init__(self, core: Core, programs: Programs, connections: AsyncConnections) -> None:
        self._core = core
        self._programs = programs
        self._connections = connections
        self._settings = core.settings
        self._lanes: Lanes[_CoalescedCall] = Lanes(self._settings.coalesce, self._start)
        # asyncio's semaphore is fair: a new caller cannot overtake a waiting one.
        self._room = asyncio.Semaphore(MOST_QUEUED)
        self._draining: dict[int, Task[None]] = {}
        self._beside = 0
        self._tasks: set[Task[None]] = set()

    async def write(
        self,
        event: EventSource,
        on_duplicate: OnDuplicate,
        expected_version: int | None,
        timeout: float | None,
    ) -> Receipt:
        """Store one event as `AsyncWriter.write` does, in a transaction shared with other calls.

        If the caller is cancelled or its deadline passes, an event that was not sent leaves
        its transaction. An event that was sent stays. Other callers are not affected.
        """
        gate = self._programs.open_gate("write", timeout)
        require_on_duplicate(on_duplicate)
        require_version(expected_version)
        await self._enter(gate)
        future: Future[WriteOutcome] = asyncio.get_running_loop().create_future()
        try:
            pending = pend(
                self._core,
                event,
                gate,
                on_duplicate=on_duplicate,
                expected_version=expected_version,
                # `call` is bound below: nothing settles an event before it is in a lane.
                on_settled=lambda outcome: self._answer(call, outcome),
            )
        except BaseException:
            self._room.release()
            raise
        call = _CoalescedCall(pending, gate, future)
        with pending.scopes:
            self._lanes.add(call)
            outcome = await self._outcome_of(call)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

    def tell_batch(
        self, batch: Sequence[Pending], failure: DatabaseFailure | None, started_ns: int
    ) -> None:
        """Report the end of a transaction for several callers."""
        self._core.tell(_batch_ended(batch, failure, started_ns, self._core.server))

    def leave_lane(self, flight: _Flight) -> None:
        """Let the lane continue without this transaction.

        The entities of its events stay blocked. If `max_connections` transactions have
        left their lanes already, this one keeps its lane.
        """
        if flight.has_left or self._beside >= self._settings.max_connections:
            return
        flight.has_left = True
        self._beside += 1
        self._lanes.hold(flight.lane, [call for call in flight.calls if call.pending.is_open])
        self._draining.pop(flight.lane, None)
        if self._lanes.queued(flight.lane):
            self._start(flight.lane)

    async def close(self) -> None:
        """Wait until every queued or sent event is settled. Cancellation ends the tasks."""
        try:
            while self._tasks:
                await asyncio.wait(self._tasks)
        except CancelledError:
            for task in self._tasks:
                task.cancel()
            raise

    async def _enter(self, gate: Gate) -> None:
        if not self._room.locked():
            await self._room.acquire()
            return
        left = None if gate.deadline is None else gate.deadline - monotonic()
        with anyio.move_on_after(left) as waiting:
            await self._room.acquire()
        if waiting.cancelled_caught:
            raise psycopg.OperationalError(
                f"nothing was sent: {MOST_QUEUED} events were queued until the deadline of the call"
            )

    async def _outcome_of(self, call: _CoalescedCall) -> WriteOutcome:
        timer = None
        if call.deadline is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(call.deadline - monotonic(), self._expire, call)
        try:
            return await call.future
        except CancelledError as error:
            self._withdraw(call)
            if not call.pending.may_be_stored:
                call.pending.abandon(error)
                self._lanes.release(call)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, call: _CoalescedCall) -> None:
        self._withdraw(call)
        if not call.pending.expire():
            call.answer(OutcomeUnknown(call.pending.id))

    def _withdraw(self, call: _CoalescedCall) -> None:
        """Take a call out of its queue, unless it is in a transaction."""
        if self._lanes.withdraw(call):
            self._room.release()

    def _answer(self, call: _CoalescedCall, outcome: WriteOutcome) -> None:
        call.answer(outcome)
        self._lanes.release(call)

    def _start(self, lane: int) -> None:
        """Let a task drain the lane, unless one does. A cancelled task does no more."""
        task = self._draining.get(lane)
        if task is None or task.done():
            self._draining[lane] = self._spawn(self._drain(lane))

    def _spawn(self, work: Coroutine[None, None, None]) -> Task[None]:
        # An empty context, so that the spans of one caller are not parents of shared work.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _drain(self, lane: int) -> None:
        """Send one transaction after another, until one leaves the lane or the queue is empty."""
        flight: _Flight | None = None
        try:
            while calls := self._next(lane):
                flight = _Flight(self, self._core, self._connections, lane, calls)
                await self._send(flight)
                if flight.has_left:
                    return
        except BaseException as error:
            # A flight that has left has another task behind it, which serves the queue.
            if flight is None or not flight.has_left:
                self._fail_queued(lane, error)
            if not isinstance(error, Exception):
                raise

    def _next(self, lane: int) -> list[_CoalescedCall]:
        """Take from the queue the calls that fit the next transaction of the lane."""
        queued = islice(self._lanes.queued(lane), MOST_TOGETHER)
        pending = (call.pending for call in queued)
        fitting = next(chunks(pending, lambda: self._core.statements.target_counts), None)
        calls = self._lanes.take(lane, len(fitting)) if fitting else []
        for _ in calls:
            self._room.release()
        return calls

    async def _send(self, flight: _Flight) -> None:
        """Perform the attempts of a transaction until all its calls are settled."""
        batch = [call.pending for call in flight.calls]
        timer = asyncio.get_running_loop().call_later(_PATIENCE, self.leave_lane, flight)
        try:
            await self._connections.perform(self._programs.write_batch(batch, flight))
        except BaseException as error:
            self._fail(flight.calls, error)
            if not isinstance(error, Exception):
                raise
        finally:
            timer.cancel()
            self._beside -= flight.has_left  # one that kept its lane was not counted

    def _fail(self, calls: Iterable[_CoalescedCall], error: BaseException) -> None:
        """Answer calls after a defect, or the end of the event loop, ended a drive.

        If the event was sent, the answer is `OutcomeUnknown`.
        """
        for call in calls:
            if call.pending.outcome is not None:
                continue
            if call.pending.may_be_stored:
                unknown = OutcomeUnknown(call.pending.id)
                unknown.__cause__ = error
                call.answer(unknown)
            else:
                self._answer_unsent(call, error)
            self._lanes.release(call)

    def _fail_queued(self, lane: int, error: BaseException) -> None:
        """Answer the queued calls of a lane with the defect that ended its task.

        Nothing of them was sent, so their callers may call again.
        """
        while queued := list(self._lanes.queued(lane)):
            for call in queued:
                self._withdraw(call)
                self._answer_unsent(call, error)

    def _answer_unsent(self, call: _CoalescedCall, error: BaseException) -> None:
        call.pending.abandon(error)
        if isinstance(error, Exception):
            call.answer(error)
        else:
            call.future.cancel()


def _shared_gate(calls: Sequence[_CoalescedCall]) -> Gate:
    """Return a gate with the latest deadline of the calls, or with none if a call has none."""
    deadlines = [call.deadline for call in calls]
    gate = Gate(None)
    known = [deadline for deadline in deadlines if deadline is not None]
    if len(known) == len(deadlines):
        gate.deadline = max(known)
    return gate


def _batch_ended(
    batch: Sequence[Pending],
    failure: DatabaseFailure | None,
    started_ns: int,
    server: DatabaseServer,
) -> BatchEnded:
    return BatchEnded(
        events=len(batch),
        started_ns=started_ns,
        ended_ns=time_ns(),
        outcome=attempt_outcome(failure),
        writes=[BatchedWrite(pending.id, pending.scopes.carrier) for pending in batch],
        error=type(failure.error).__name__ if failure else None,
        sqlstate=failure.sqlstate if failure else None,
        server=server,
    )
