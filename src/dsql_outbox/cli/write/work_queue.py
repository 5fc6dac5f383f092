"""What waits for a worker: few events and few bytes, so that memory does not grow."""

from collections import deque
from typing import Final, NamedTuple
from uuid import UUID

import anyio

from .inputs import InputLocation

_BYTES: Final = 1 << 20  # that a lane holds, and so what is taken from it at once


class QueuedEvent(NamedTuple):
    """One event to store; `number` counts all events that were read, `size` is its bytes."""

    number: int
    place: InputLocation
    event_id: UUID
    data: str
    size: int


class WorkQueue:
    """The jobs of one worker, in order: `limit` of them and 1 MiB at most, or one bigger one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: deque[QueuedEvent] = deque()
        self._bytes = 0
        self._closed = False
        # One at most waits: the reader for room, or the worker for a job.
        self._waiting: anyio.Event | None = None

    async def put(self, job: QueuedEvent) -> None:
        """Add a job; waits while there is no room for it."""
        while self._is_full(job):
            await self._wait()
        self._jobs.append(job)
        self._bytes += job.size
        self._wake()

    async def take(self, count: int) -> list[QueuedEvent]:
        """The jobs at hand, `count` at most; waits for the first, empty at the end."""
        while not self._jobs and not self._closed:
            await self._wait()
        taken = [self._jobs.popleft() for _ in range(min(count, len(self._jobs)))]
        self._bytes -= sum(job.size for job in taken)
        self._wake()
        return taken

    def close(self) -> None:
        """No more jobs come."""
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
