"""Group commit: calls made while a transaction is in flight share the next one.

A lane is a queue with a task, which exists while the queue has entries. The task
sends one transaction after another and never waits for more calls. A transaction
that needs a second attempt leaves its lane and continues in a task of its own.
"""

import asyncio
from asyncio import CancelledError, Future, Task
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from contextvars import Context
from itertools import islice
from time import monotonic, time_ns

import anyio
import psycopg

from dsql_outbox.observability import BatchEnded
from dsql_outbox.outbox import OutcomeUnknown, Receipt
from dsql_outbox.writer.attempt.pending import Pending, WriteOutcome, attempt_outcome
from dsql_outbox.writer.attempt.steps import (
    Attempt,
    Committed,
    Result,
    Step,
    Steps,
    classified,
    interrupt,
    write_steps,
)
from dsql_outbox.writer.core import Job
from dsql_outbox.writer.settings import WriterSettings
from dsql_outbox.writer.statement.chunks import chunks

from .lanes import Lanes, Ticket

Pend = Callable[[Callable[[WriteOutcome], None]], Pending]
"""Creates the `Pending` of a call. The argument is called with the outcome."""


class _CoalescedCall(Ticket):
    """One call of `write`: its event, its deadline, and the future that its caller awaits."""

    def __init__(self, pending: Pending, job: Job, future: "Future[WriteOutcome]") -> None:
        touches = pending.prepared.event.touches
        super().__init__(pending.id, [(t.entity_type, t.entity_id) for t in touches])
        self.pending = pending
        self.deadline = job.deadline
        self.future = future

    def answer(self, outcome: WriteOutcome) -> None:
        """Pass the outcome to the caller, unless it was answered or cancelled before."""
        if not self.future.done():
            self.future.set_result(outcome)


class Coalescer:
    """Writes the events of many callers in few transactions.

    `run` performs one step of an attempt. `tell` receives a fact per transaction.
    """

    def __init__(
        self,
        settings: WriterSettings,
        run: Callable[[Step, Job], Awaitable[Result]],
        tell: Callable[[BatchEnded], None],
    ) -> None:
        self._settings = settings
        self._run = run
        self._tell = tell
        self._lanes: Lanes[_CoalescedCall] = Lanes(settings.coalesce, self._start)
        # asyncio's semaphore is fair: a new caller cannot overtake a waiting one.
        self._room = asyncio.Semaphore(settings.max_queued)
        self._draining: set[int] = set()
        self._beside = 0
        self._tasks: set[Task[None]] = set()

    async def write(self, job: Job, pend: Pend) -> Receipt:
        """Store one event as `AsyncWriter.write` does, in a transaction shared with other calls.

        If the caller is cancelled or its deadline passes, an event that was not sent is
        withdrawn. An event that was sent stays in its transaction. Other callers are
        not affected.
        """
        await self._enter(job)
        future: Future[WriteOutcome] = asyncio.get_running_loop().create_future()
        try:
            pending = pend(lambda outcome: self._settled(call, outcome))
        except BaseException:
            self._room.release()
            raise
        call = _CoalescedCall(pending, job, future)
        with pending.scopes:
            self._lanes.add(call)
            outcome = await self._outcome_of(call)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

    async def close(self) -> None:
        """Wait until every queued or sent event is settled. Cancellation ends the tasks."""
        try:
            while self._tasks:
                await asyncio.wait(self._tasks)
        except CancelledError:
            for task in self._tasks:
                task.cancel()
            raise

    async def _enter(self, job: Job) -> None:
        if not self._room.locked():
            await self._room.acquire()
            return
        left = None if job.deadline is None else job.deadline - monotonic()
        with anyio.move_on_after(left) as waiting:
            await self._room.acquire()
        if waiting.cancelled_caught:
            raise psycopg.OperationalError(
                f"nothing was sent: {self._settings.max_queued} events were queued "
                "until the deadline of the call (max_queued)"
            )

    async def _outcome_of(self, call: _CoalescedCall) -> WriteOutcome:
        timer = None
        if call.deadline is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(call.deadline - monotonic(), self._expire, call)
        try:
            return await call.future
        except CancelledError as error:
            if self._withdraw(call):
                call.pending.abandon(error)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, call: _CoalescedCall) -> None:
        if self._withdraw(call):
            call.pending.settle(
                psycopg.OperationalError(
                    f"event {call.pending.id} is not stored: "
                    "its turn did not come before the deadline of the call"
                )
            )
        else:
            call.answer(OutcomeUnknown(call.pending.id))

    def _withdraw(self, call: _CoalescedCall) -> bool:
        withdrawn = self._lanes.withdraw(call)
        if withdrawn:
            self._room.release()
        return withdrawn

    def _settled(self, call: _CoalescedCall, outcome: WriteOutcome) -> None:
        call.answer(outcome)
        self._lanes.settled(call)

    def _start(self, lane: int) -> None:
        if lane not in self._draining:
            self._draining.add(lane)
            self._spawn(self._drain(lane))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        # An empty context, so that the spans of one caller are not parents of shared work.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, lane: int) -> None:
        try:
            while calls := self._next(lane):
                await self._send(lane, calls)
        except BaseException as error:
            self._fail_queued(lane, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._draining.discard(lane)

    def _next(self, lane: int) -> list[_CoalescedCall]:
        """Take from the queue the calls that fit the next transaction of the lane."""
        queued = islice(self._lanes.queued(lane), self._settings.max_batch)
        fitting = next(chunks(call.pending for call in queued), None)
        calls = self._lanes.take(lane, len(fitting)) if fitting else []
        for _ in calls:
            self._room.release()
        return calls

    async def _send(self, lane: int, calls: Sequence[_CoalescedCall]) -> None:
        """Make the first attempt. Further attempts run in a task of their own.

        If `max_connections` such tasks run already, the lane makes the attempts itself.
        """
        job = _shared_job(calls)
        steps = write_steps([call.pending for call in calls], monotonic)
        step = await self._drive(calls, steps, next(steps), job, once=True)
        if step is None:
            return
        if self._beside < self._settings.max_connections:
            self._beside += 1
            self._lanes.hold(lane, [call for call in calls if call.pending.outcome is None])
            self._spawn(self._go_on(calls, steps, step, job))
        else:
            await self._drive(calls, steps, step, job)

    async def _go_on(
        self, calls: Sequence[_CoalescedCall], steps: Steps, step: Step, job: Job
    ) -> None:
        try:
            await self._drive(calls, steps, step, job)
        finally:
            self._beside -= 1

    async def _drive(
        self,
        calls: Sequence[_CoalescedCall],
        steps: Steps,
        first: Step,
        job: Job,
        *,
        once: bool = False,
    ) -> Step | None:
        """Perform steps until all calls are settled, or one step with `once`.

        Return the step that is next, or None at the end.
        """
        step: Step | None = first
        try:
            while step is not None:
                step = _advance(steps, await self._watched(step, job))
                if once:
                    break
        except BaseException as error:
            with suppress(type(error), StopIteration):
                interrupt(steps, job.known, error)
            self._fail(calls, error)
            if not isinstance(error, Exception):
                raise
            return None
        return step

    async def _watched(self, step: Step, job: Job) -> Result:
        started = time_ns()
        result = await self._run(step, job)
        if isinstance(step, Attempt) and len(step.batch) > 1:
            self._tell(_ended(step.batch, result, started))
        return result

    def _fail(self, calls: Iterable[_CoalescedCall], error: BaseException) -> None:
        """Answer `OutcomeUnknown` after a defect, or the end of the event loop, ended a drive.

        The transaction may have been sent.
        """
        for call in calls:
            if call.pending.outcome is None:
                unknown = OutcomeUnknown(call.pending.id)
                unknown.__cause__ = error
                self._settled(call, unknown)

    def _fail_queued(self, lane: int, error: BaseException) -> None:
        """Answer the queued calls of a lane with the defect that ended its task.

        Nothing of them was sent, so their callers may call again.
        """
        while queued := list(self._lanes.queued(lane)):
            for call in queued:
                self._withdraw(call)
                call.pending.abandon(error)
                if isinstance(error, Exception):
                    call.answer(error)
                else:
                    call.future.cancel()


def _advance(steps: Steps, result: Result) -> Step | None:
    try:
        return steps.send(result)
    except StopIteration:
        return None


def _shared_job(calls: Sequence[_CoalescedCall]) -> Job:
    """Return a job whose deadline is the latest of the calls, or None if one has none."""
    deadlines = [call.deadline for call in calls]
    job = Job(None)
    known = [deadline for deadline in deadlines if deadline is not None]
    if len(known) == len(deadlines):
        job.deadline = max(known)
    return job


def _ended(batch: Sequence[Pending], result: Result, started_ns: int) -> BatchEnded:
    failure = None if isinstance(result, Committed) else classified(result)
    return BatchEnded(
        events=len(batch),
        started_ns=started_ns,
        ended_ns=time_ns(),
        outcome=attempt_outcome(failure),
        writes=[pending.scopes.carrier for pending in batch],
        error=type(failure.error).__name__ if failure else None,
        sqlstate=failure.sqlstate if failure else None,
    )
