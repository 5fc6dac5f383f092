"""The queue of one worker, limited in events and bytes so that memory does not grow."""

from collections import deque
from typing import Final, NamedTuple

import anyio

from dsql_outbox.outbox import ParsedEvent

from .inputs import InputLocation

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
