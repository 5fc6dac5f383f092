"""Stores events from inputs, several at a time, in order per subject.

One reader picks the worker of each event by a hash of its subject. A worker
stores one batch after the other; a batch is the content of its queue at that moment.
So events with the same subject are stored in the order in which they were read.
The queues are short, so a slow worker slows the reader down and memory does not
grow.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import aclosing, contextmanager
from itertools import count
from typing import Final, NamedTuple
from zlib import crc32

import anyio
import psycopg
from anyio.abc import TaskGroup

from dsql_outbox.outbox import (
    FailureKind,
    InvalidEvent,
    OutboxError,
    ParsedEvent,
    Receipt,
    SchemaError,
    is_unreachable,
    kind_of,
    subject_key,
)

from .inputs import InputLocation, Inputs, Record, Unreadable
from .report import Reporter

_BYTES: Final = 1 << 20  # that a queue holds; this also limits a batch


class QueuedEvent(NamedTuple):
    """One event to store; `number` counts the events read, `size` is its length in bytes."""

    number: int
    place: InputLocation
    event: ParsedEvent
    size: int


class WorkQueue:
    """The events of one worker, in order.

    It holds at most `limit` events and 1 MiB, or a single larger event.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: deque[QueuedEvent] = deque()
        self._bytes = 0
        self._closed = False
        # Only one task can wait: the reader while it is full, or the worker while it is empty.
        self._waiting: anyio.Event | None = None

    async def put(self, job: QueuedEvent) -> None:
        """Append an event; waits while the queue is full."""
        while self._is_full(job):
            await self._wait()
        self._jobs.append(job)
        self._bytes += job.size
        self._wake()

    async def take(self, count: int) -> list[QueuedEvent]:
        """Take at most `count` events; waits for the first one.

        Returns an empty list when the queue is closed and empty.
        """
        while not self._jobs and not self._closed:
            await self._wait()
        taken = [self._jobs.popleft() for _ in range(min(count, len(self._jobs)))]
        self._bytes -= sum(job.size for job in taken)
        self._wake()
        return taken

    def close(self) -> None:
        """Declare that no more events will be put."""
        self._closed = True
        self._wake()

    def _is_full(self, job: QueuedEvent) -> bool:
        crowded = len(self._jobs) >= self._limit or self._bytes + job.size > _BYTES
        return bool(self._jobs) and crowded

    async def _wait(self) -> None:
        self._waiting = anyio.Event()
        await self._waiting.wait()

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.set()
            self._waiting = None


_QUEUE: Final = 8  # events that may wait for one worker, or a whole batch if that is more


WriteOutcome = Receipt | Exception


class Loader:
    """One run over all inputs; `stop` ends it in order, cancellation immediately.

    `write` must behave as `AsyncWriter.write_many`; each call gets at most `batch`
    events. `schema_error` is set if the run ended because the tables are missing, and
    `is_unreachable` if it ended because the database stayed out of reach.
    """

    def __init__(
        self,
        write: Callable[[Sequence[ParsedEvent]], Awaitable[Sequence[WriteOutcome]]],
        inputs: Inputs,
        report: Reporter,
        workers: int,
        *,
        batch: int = 1,
    ) -> None:
        self._write = write
        self._batch = batch
        self._inputs = inputs
        self._report = report
        self._workers = workers
        self._reading = anyio.CancelScope()
        self._stopped = False
        self._hopeless = False
        self._problem = ""
        self._last: InputLocation | None = None
        self._numbers = count()
        # Keyed by number, in the order of reading. A location is no key: an input that is
        # named twice has the same locations twice.
        self._unsettled: dict[int, InputLocation] = {}
        self.schema_error: SchemaError | None = None
        self.is_unreachable = False

    async def run(self) -> None:
        """Store all events, or the ones that were read before `stop` was called."""
        async with anyio.create_task_group() as group:
            try:
                with self._started(group) as lanes:
                    await self._read(lanes)
            except Unreadable as error:
                self.stop()
                await self._tell(self._report.failed(error.place, None, error.cause))

    def stop(self) -> None:
        """Stop reading; events that were read are still stored."""
        self._stopped = True
        self._reading.cancel()

    def stop_line(self) -> str | None:
        """Where and why the run ended early; None if it read all inputs."""
        why = f": {self._problem}" if self._problem else ""
        if self._unsettled:
            first = next(iter(self._unsettled.values()))
            where = f"record {first.record:,} of {first.input}"
            return f"stopped{why}; write again from {where}, with --on-duplicate return"
        if not self._stopped:
            return None
        if self._last is None:
            return f"stopped before the first record{why}"
        return f"stopped after record {self._last.record:,} of {self._last.input}{why}"

    @contextmanager
    def _started(self, group: TaskGroup) -> Generator[Sequence[WorkQueue]]:
        """Start the workers, with one queue each; they end when their queue is closed and empty."""
        lanes = [WorkQueue(max(_QUEUE, self._batch)) for _ in range(self._workers)]
        for lane in lanes:
            group.start_soon(self._work, lane)
        try:
            yield lanes
        finally:
            for lane in lanes:
                lane.close()

    async def _read(self, lanes: Sequence[WorkQueue]) -> None:
        async with aclosing(self._inputs.records()) as records:
            while (record := await self._next(records)) is not None:
                self._last = record.place
                try:
                    event = record.parse()
                except InvalidEvent as error:
                    await self._tell(self._report.failed(record.place, record.id(), error))
                    continue
                subject = subject_key(event.touches[0].entity_type, event.touches[0].entity_id)
                job = QueuedEvent(next(self._numbers), record.place, event, len(record.data))
                self._unsettled[job.number] = job.place
                await lanes[crc32(subject.encode()) % len(lanes)].put(job)

    async def _next(self, records: AsyncIterator[Record]) -> Record | None:
        """The next record; None at the end, and when `stop` is called."""
        if not self._stopped:
            with anyio.CancelScope() as self._reading:
                return await anext(records, None)
        return None

    async def _work(self, lane: WorkQueue) -> None:
        while jobs := await lane.take(self._batch):
            if not self._hopeless:
                await self._store(jobs)

    async def _store(self, jobs: Sequence[QueuedEvent]) -> None:
        outcomes = await self._write([job.event for job in jobs])
        receipts = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
        if receipts:
            await self._tell(self._report.stored(receipts))
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Receipt) or await self._is_settled(job, outcome):
                del self._unsettled[job.number]

    async def _is_settled(self, job: QueuedEvent, error: Exception) -> bool:
        """Report an event that is not stored; False if it is worth writing again."""
        if isinstance(error, SchemaError):
            self.schema_error = error
            self._give_up("the tables are missing")
            return False
        if not isinstance(error, (OutboxError, psycopg.Error)):
            raise error
        await self._tell(self._report.failed(job.place, job.event.id, error))
        if is_unreachable(error):
            self.is_unreachable = True
            is_read_only = kind_of(error) is FailureKind.READ_ONLY
            fault = "accepts no writes" if is_read_only else "cannot be reached"
            self._give_up(f"the database {fault}")
            return False
        return True

    def _give_up(self, problem: str) -> None:
        """Stop storing: other events would fail for the same reason, so they stay unsettled."""
        self._hopeless = True
        self._stop_for(problem)

    async def _tell(self, told: Awaitable[None]) -> None:
        try:
            await told
        except OSError as error:
            self._stop_for(f"cannot write the result: {error.strerror}")

    def _stop_for(self, problem: str) -> None:
        self._problem = self._problem or problem
        self.stop()
