"""Events from inputs into the database, several at a time, in order per subject.

One reader hands each event to the worker that its subject picks; a worker
stores one event after the other. So events with the same subject are stored in
the order in which they were read. The queues are short: what is slow slows the
reader down.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Final, NamedTuple
from uuid import UUID
from zlib import crc32

import anyio
import psycopg
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from dsql_outbox.outbox import (
    InvalidEvent,
    OutboxError,
    OutcomeUnknown,
    Receipt,
    SchemaError,
    subject_key,
)

from ._events import Inputs, Place, Record, Unreadable
from ._reporting import Reporter

_QUEUE: Final = 8  # events of up to 1 MiB that wait for one worker
_GONE: Final = ("08", "53", "57P")  # SQLSTATEs: connection lost, server full, server shut down


class _Job(NamedTuple):
    place: Place
    event_id: UUID
    data: str


class Storing:
    """One run over all inputs; `stop` ends it in order, cancellation at once.

    `write` stores one event and raises what `AsyncWriter.write` raises.
    """

    def __init__(
        self,
        write: Callable[[str], Awaitable[Receipt]],
        inputs: Inputs,
        report: Reporter,
        workers: int,
    ) -> None:
        self._write = write
        self._inputs = inputs
        self._report = report
        self._workers = workers
        self._reading = anyio.CancelScope()
        self._stopped = False
        self._hopeless = False
        self._problem = ""
        self._last: Place | None = None
        self._unsettled: dict[Place, None] = {}  # in the order in which they were read
        self.schema_error: SchemaError | None = None

    async def run(self) -> None:
        """Store all events, or those read until `stop` is called."""
        async with anyio.create_task_group() as group, AsyncExitStack() as lanes:
            workers = [
                await lanes.enter_async_context(self._start_worker(group))
                for _ in range(self._workers)
            ]
            try:
                await self._read(workers)
            except Unreadable as error:
                self.stop()
                await self._tell(self._report.failed(error.place, None, error.cause))

    def stop(self) -> None:
        """Read no more; what was read is still stored."""
        self._stopped = True
        self._reading.cancel()

    def stop_line(self) -> str | None:
        """Where and why the run ended before the inputs did, or None if it did not."""
        why = f": {self._problem}" if self._problem else ""
        if self._unsettled:
            first = next(iter(self._unsettled))
            where = f"record {first.record:,} of {first.input}"
            return f"stopped{why}; write again from {where}, with --on-duplicate return"
        if not self._stopped:
            return None
        if self._last is None:
            return f"stopped before the first record{why}"
        return f"stopped after record {self._last.record:,} of {self._last.input}{why}"

    def _start_worker(self, group: TaskGroup) -> MemoryObjectSendStream[_Job]:
        lane, jobs = anyio.create_memory_object_stream[_Job](_QUEUE)
        group.start_soon(self._work, jobs)
        return lane

    async def _read(self, workers: Sequence[MemoryObjectSendStream[_Job]]) -> None:
        async with aclosing(self._inputs.records()) as records:
            while (record := await self._next(records)) is not None:
                self._last = record.place
                try:
                    event = record.parse()
                except InvalidEvent as error:
                    await self._tell(self._report.failed(record.place, record.id(), error))
                    continue
                subject = subject_key(event.touches[0].entity_type, event.touches[0].entity_id)
                self._unsettled[record.place] = None
                worker = workers[crc32(subject.encode()) % len(workers)]
                await worker.send(_Job(record.place, event.id, event.data))

    async def _next(self, records: AsyncIterator[Record]) -> Record | None:
        """The next record; None at the end, and when `stop` is called."""
        if not self._stopped:
            with anyio.CancelScope() as self._reading:
                return await anext(records, None)
        return None

    async def _work(self, jobs: MemoryObjectReceiveStream[_Job]) -> None:
        async with jobs:
            async for job in jobs:
                if not self._hopeless:
                    await self._store(job)

    async def _store(self, job: _Job) -> None:
        try:
            receipt = await self._write(job.data)
        except SchemaError as error:
            self.schema_error = error
            self._give_up("the tables are missing")
            return
        except (OutboxError, psycopg.Error) as error:
            await self._tell(self._report.failed(job.place, job.event_id, error))
            if _is_outage(error):
                self._give_up("the database cannot be reached")
                return
        else:
            await self._tell(self._report.stored(receipt))
        del self._unsettled[job.place]

    def _give_up(self, problem: str) -> None:
        """No other event would fare better: those in the queues stay unsettled."""
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


def _is_outage(error: Exception) -> bool:
    """Whether the database was gone for longer than an event may wait."""
    cause = error.__cause__ if isinstance(error, OutcomeUnknown) else error
    if not isinstance(cause, psycopg.OperationalError):
        return False
    return cause.sqlstate is None or cause.sqlstate.startswith(_GONE)
