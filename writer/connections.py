"""The connections of a writer: kept after a success, closed after a failure.

psycopg_pool does not fit, for three reasons:

- It replaces a closed connection in the background. When many writes conflict, that
  doubles the openings, and a DSQL cluster accepts 100 per second.
- It hides the reason why a connection could not be opened. Here the caller gets the
  driver's error.
- It has threads or tasks, which are dead after a Lambda function was frozen.

See docs/decisions/2026-11-24-the-writer-keeps-its-own-connections.md.
"""

import select
import threading
from collections import deque
from queue import Empty, SimpleQueue
from time import monotonic, time
from typing import Final, Generic, TypeVar

import anyio
import psycopg
from psycopg.pq import TransactionStatus

from dsql_outbox.outbox import AsyncConnection, Connection, Database, call_in_children

_TOO_LATE: Final = "no connection before the deadline of the call"

C = TypeVar("C", Connection, AsyncConnection)


class _Shelf(Generic[C]):
    """Counts the open connections and holds those kept for reuse. It opens none itself."""

    def __init__(self, limit: int, *, keep_failed: bool, max_idle: float | None) -> None:
        self._limit = limit
        self._keep_failed = keep_failed
        self._max_idle = max_idle
        self._open = 0
        self._kept: deque[C] = deque()
        self._lock = threading.Lock()

    def reuse(self, *, role_path: bool) -> C | None:
        """Return the most recently kept usable connection with this search path, or None."""
        while True:
            with self._lock:
                found = (kept for kept in reversed(self._kept) if kept.role_path == role_path)
                connection = next(found, None)
                if connection is None:
                    return None
                self._kept.remove(connection)
            if self._was_idle_briefly(connection) and _usable(connection) and _silent(connection):
                return connection
            self.drop(connection)

    def reserve(self) -> None:
        """Count one more open connection. Over the limit, close the one kept longest."""
        with self._lock:
            self._open += 1
            surplus = self._kept.popleft() if self._open > self._limit and self._kept else None
        if surplus is not None:
            self.drop(surplus)

    def keep(self, connection: C) -> None:
        """Keep a connection for reuse, or close it if it is not usable."""
        connection.deadline = None
        connection.kept_at = time()
        if _usable(connection):
            with self._lock:
                self._kept.append(connection)
        else:
            self.drop(connection)

    def keep_or_drop(self, connection: C, error: BaseException) -> None:
        """Take back a connection whose attempt failed.

        Keep it if it is healthy and `keep_failed` is set. A unique violation says nothing
        about the connection, so after one a healthy connection is always kept.
        """
        healthy = connection.info.transaction_status is TransactionStatus.IDLE
        wished = self._keep_failed or isinstance(error, psycopg.errors.UniqueViolation)
        if wished and healthy:
            self.keep(connection)
        else:
            self.drop(connection)

    def drop(self, connection: C) -> None:
        """Close a connection at once."""
        connection.drop()
        self.unreserve()

    def unreserve(self) -> None:
        """Count one open connection less."""
        with self._lock:
            self._open -= 1

    def clear(self) -> None:
        """Close all connections that are kept."""
        while self._kept:
            self.drop(self._kept.pop())

    def _was_idle_briefly(self, connection: C) -> bool:
        # By the wall clock, since a monotonic clock may stop in a frozen Lambda. If the clock
        # was set back, the idle time is unknown, and the connection is not reused.
        return self._max_idle is None or 0 <= time() - connection.kept_at <= self._max_idle


class Connections:
    """Connections for threads, at most `limit` at once.

    After a failed attempt a connection is closed, unless it is healthy and
    `keep_failed` is set. A connection that was idle for more than `max_idle` seconds
    is not reused.
    """

    def __init__(
        self,
        database: Database,
        limit: int,
        *,
        keep_failed: bool,
        max_idle: float | None,
    ) -> None:
        self._database = database
        self._limit = limit
        self._keep_failed = keep_failed
        self._max_idle = max_idle
        self._begin()
        call_in_children(self._begin)

    def _begin(self) -> None:
        """Start without connections. In a forked child, leave the parent's connections alone."""
        self._shelf: _Shelf[Connection] = _Shelf(
            self._limit, keep_failed=self._keep_failed, max_idle=self._max_idle
        )
        self._free: SimpleQueue[None] = SimpleQueue()  # a semaphore, and faster than threading's
        for _ in range(self._limit):
            self._free.put(None)

    def take(self, *, fresh: bool, deadline: float | None, role_path: bool = False) -> Connection:
        """Return a kept connection or a new one, or only a new one if `fresh`.

        `deadline` is a time of the monotonic clock. With `role_path` the session has the
        search path of its role, for SQL of the caller. Raises the driver's
        `OperationalError` if no connection is available before the deadline.
        """
        _must_be_early(deadline)
        try:
            self._free.get(timeout=_left(deadline))
        except Empty:
            raise _none_free(self._limit) from None
        try:
            kept = None if fresh else self._shelf.reuse(role_path=role_path)
            connection = kept or self._opened(deadline, role_path=role_path)
        except BaseException:
            self._free.put(None)
            raise
        connection.deadline = deadline
        return connection

    def give_back(self, connection: Connection) -> None:
        """Take back a connection after a success."""
        if not connection.is_inherited:
            self._shelf.keep(connection)
            self._free.put(None)

    def give_up(self, connection: Connection, error: BaseException) -> None:
        """Take back a connection whose attempt failed."""
        if not connection.is_inherited:
            self._shelf.keep_or_drop(connection, error)
            self._free.put(None)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._shelf.clear()

    def _opened(self, deadline: float | None, *, role_path: bool) -> Connection:
        self._shelf.reserve()
        try:
            return self._database.connect(timeout=_left(deadline), role_path=role_path)
        except BaseException:
            self._shelf.unreserve()
            raise


class AsyncConnections:
    """Connections for tasks of asyncio; otherwise as `Connections`."""

    def __init__(
        self,
        database: Database,
        limit: int,
        *,
        keep_failed: bool,
        max_idle: float | None,
    ) -> None:
        self._database = database
        self._limit = limit
        self._keep_failed = keep_failed
        self._max_idle = max_idle
        self._begin()
        call_in_children(self._begin)

    def _begin(self) -> None:
        """Start without connections. In a forked child, leave the parent's connections alone."""
        self._shelf: _Shelf[AsyncConnection] = _Shelf(
            self._limit, keep_failed=self._keep_failed, max_idle=self._max_idle
        )
        self._free = anyio.Semaphore(self._limit, fast_acquire=True)

    async def take(
        self, *, fresh: bool, deadline: float | None, role_path: bool = False
    ) -> AsyncConnection:
        """Return a kept connection or a new one, or only a new one if `fresh`.

        `deadline` is a time of the monotonic clock. With `role_path` the session has the
        search path of its role, for SQL of the caller. Raises the driver's
        `OperationalError` if no connection is available before the deadline.
        """
        _must_be_early(deadline)
        try:
            self._free.acquire_nowait()
        except anyio.WouldBlock:
            await self._wait_for_free(deadline)
        try:
            kept = None if fresh else self._shelf.reuse(role_path=role_path)
            connection = kept or await self._opened(deadline, role_path=role_path)
        except BaseException:
            self._free.release()
            raise
        connection.deadline = deadline
        return connection

    async def _wait_for_free(self, deadline: float | None) -> None:
        with anyio.move_on_after(_left(deadline)) as waiting:
            await self._free.acquire()
        if waiting.cancelled_caught:
            raise _none_free(self._limit)

    def give_back(self, connection: AsyncConnection) -> None:
        """Take back a connection after a success."""
        if not connection.is_inherited:
            self._shelf.keep(connection)
            self._free.release()

    def give_up(self, connection: AsyncConnection, error: BaseException) -> None:
        """Take back a connection whose attempt failed."""
        if not connection.is_inherited:
            self._shelf.keep_or_drop(connection, error)
            self._free.release()

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._shelf.clear()

    async def _opened(self, deadline: float | None, *, role_path: bool) -> AsyncConnection:
        self._shelf.reserve()
        left = _left(deadline)
        try:
            with anyio.fail_after(left):
                return await self._database.connect_async(timeout=left, role_path=role_path)
        except TimeoutError:
            self._shelf.unreserve()
            raise psycopg.OperationalError(_TOO_LATE) from None
        except BaseException:
            self._shelf.unreserve()
            raise


def _usable(connection: Connection | AsyncConnection) -> bool:
    return monotonic() < connection.retires_at and not connection.closed


def _silent(connection: Connection | AsyncConnection) -> bool:
    """Return whether the server has sent nothing since the last answer.

    A restart or a time limit of the server ends all kept connections at once. Its final
    message or the end of the stream shows that, without a failed attempt per connection.
    """
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return not poll.poll(0)


def _must_be_early(deadline: float | None) -> None:
    """Raise `OperationalError` after the deadline: the outcome of a write would be in doubt."""
    if deadline is not None and monotonic() >= deadline:
        raise psycopg.OperationalError(_TOO_LATE)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.001, deadline - monotonic())


def _none_free(limit: int) -> psycopg.OperationalError:
    return psycopg.OperationalError(
        f"all {limit} connections of the writer are in use (max_connections)"
    )
