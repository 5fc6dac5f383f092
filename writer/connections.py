"""The connections of a writer: kept after a success, closed after a failure.

psycopg_pool does not fit, for three reasons:

- It replaces a closed connection in the background. When many writes conflict, that
  doubles the openings, and a DSQL cluster accepts 100 per second.
- It hides the reason why a connection could not be opened. Here the caller gets the
  driver's error.
- It has threads or tasks, which are dead after a Lambda function was frozen.

See docs/decisions/2026-11-24-the-writer-keeps-its-own-connections.md.
"""

import asyncio
import select
import threading
from collections import deque
from time import monotonic, time
from typing import Final, Generic, TypeVar
from weakref import WeakSet

import anyio
import psycopg
from psycopg.pq import TransactionStatus

from dsql_outbox.outbox import (
    AsyncConnection,
    Connection,
    Database,
    FailureKind,
    OutboxError,
    call_in_children,
    kind_of,
)

_TOO_LATE: Final = "no connection before the deadline of the call"

_OTHER_LOOP: Final = (
    "this AsyncWriter is in use in another event loop, which is running: "
    "make an AsyncWriter for each event loop"
)

C = TypeVar("C", Connection, AsyncConnection)


_SLICE: Final = 0.5
"""Seconds after which a thread that waits looks again.

No wake-up says that a connection was lost, or that a thread was interrupted while it woke another.
"""


class _Permit:
    """The right to have one connection. The connection in use refers to it."""


class _ThreadPermit(_Permit):
    """The right of a thread. `turn` is locked until it may look whether there is room."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.turn.acquire()


class _TaskPermit(_Permit):
    """The right of a task, granted by the room of its event loop."""

    def __init__(self, room: "_Room") -> None:
        self.room = room


class _Shelf(Generic[C]):
    """Counts the open connections and holds those kept for reuse. It opens none itself.

    Open are the connections in use, one per permit, and the kept ones. The permits in use
    are a weak set and not a number, so that an interrupt at any point can neither lose nor
    double one: freeing a permit twice is harmless, and a lost connection frees its permit.
    """

    def __init__(self, limit: int, *, keep_failed: bool, max_idle: float | None) -> None:
        self.lock = threading.Lock()
        self._limit = limit
        self._keep_failed = keep_failed
        self._max_idle = max_idle
        self._in_use: WeakSet[_Permit] = WeakSet()
        self._kept: deque[C] = deque()
        self._is_closed = False

    def has_room(self) -> bool:
        """Return whether another connection may be in use."""
        return len(self._in_use) < self._limit

    def enter(self, permit: _Permit) -> None:
        """Count a permit as in use."""
        self._in_use.add(permit)

    def leave(self, permit: _Permit) -> None:
        """Count a permit as free. It may be free already."""
        self._in_use.discard(permit)

    def forget_permits(self) -> None:
        """Count every permit as free."""
        self._in_use.clear()

    def reuse(self, *, role_path: bool) -> C | None:
        """Return the most recently kept usable connection with this search path, or None."""
        while True:
            with self.lock:
                found = (kept for kept in reversed(self._kept) if kept.role_path == role_path)
                connection = next(found, None)
                if connection is None:
                    return None
                self._kept.remove(connection)
            if self._was_idle_briefly(connection) and _usable(connection) and _silent(connection):
                return connection
            connection.drop()

    def make_room(self) -> None:
        """Close the connection kept longest if another open one would exceed the limit."""
        with self.lock:
            is_full = len(self._in_use) + len(self._kept) > self._limit
            surplus = self._kept.popleft() if is_full and self._kept else None
        if surplus is not None:
            surplus.drop()

    def keep(self, connection: C, permit: _Permit) -> None:
        """Keep a connection for reuse, or close it if it is not usable. Free its permit."""
        connection.deadline = connection.permit = None
        connection.kept_at = time()
        with self.lock:
            is_kept = not self._is_closed and _usable(connection)
            if is_kept:
                self._kept.append(connection)
            self.leave(permit)
        if not is_kept:
            connection.drop()

    def keep_or_drop(self, connection: C, permit: _Permit, error: BaseException) -> None:
        """Take back a connection whose attempt failed.

        Keep it if it is healthy and `keep_failed` is set. A unique violation says nothing
        about the connection, so after one a healthy connection is always kept. If the server
        has become read-only, the kept connections are useless, too: they lead to the same one.
        """
        if _is_read_only(error):
            connection.drop()
            self._clear()
        healthy = connection.info.transaction_status is TransactionStatus.IDLE
        wished = self._keep_failed or isinstance(error, psycopg.errors.UniqueViolation)
        if not (wished and healthy):
            connection.drop()
        self.keep(connection, permit)

    def close(self) -> None:
        """Close all connections that are kept, and keep none from now on."""
        self._is_closed = True
        self._clear()

    def _clear(self) -> None:
        with self.lock:
            kept, self._kept = self._kept, deque()
        for connection in kept:
            connection.drop()

    def _was_idle_briefly(self, connection: C) -> bool:
        # By the wall clock, since a monotonic clock may stop in a frozen Lambda. If the clock
        # was set back, the idle time is unknown, and the connection is not reused.
        return self._max_idle is None or 0 <= time() - connection.kept_at <= self._max_idle


class Connections:
    """Connections for threads, at most `limit` in use at once.

    After a failed attempt a connection is closed, unless it is healthy and
    `keep_failed` is set. A connection that was idle for more than `max_idle` seconds
    is not reused. No connection to a read-only server is.
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
        self._waiting: deque[_ThreadPermit] = deque()

    def take(self, *, fresh: bool, deadline: float | None, role_path: bool = False) -> Connection:
        """Return a kept connection or a new one, or only a new one if `fresh`.

        `deadline` is a time of the monotonic clock. With `role_path` the session has the
        search path of its role, for SQL of the caller. Raises the driver's
        `OperationalError` if no connection is available before the deadline.
        """
        _must_be_early(deadline)
        permit = _ThreadPermit()
        try:
            self._enter(permit, deadline)
            kept = None if fresh else self._shelf.reuse(role_path=role_path)
            connection = kept or self._opened(deadline, role_path=role_path)
        except BaseException:
            self._leave(permit)
            raise
        connection.deadline = deadline
        connection.permit = permit
        return connection

    def give_back(self, connection: Connection) -> None:
        """Take back a connection after a success."""
        if not connection.is_inherited:
            permit = connection.permit
            try:
                self._shelf.keep(connection, permit)
            finally:
                self._leave(permit)

    def give_up(self, connection: Connection, error: BaseException) -> None:
        """Take back a connection whose attempt failed."""
        if not connection.is_inherited:
            permit = connection.permit
            try:
                self._shelf.keep_or_drop(connection, permit, error)
            finally:
                self._leave(permit)

    def close(self) -> None:
        """Close the connections that are not in use now, and the others when they come back."""
        self._shelf.close()

    def _enter(self, permit: _ThreadPermit, deadline: float | None) -> None:
        while not self._entered(permit):
            left = _left(deadline)
            permit.turn.acquire(timeout=_SLICE if left is None else min(left, _SLICE))
            if deadline is not None and monotonic() >= deadline:
                raise _none_free(self._limit)

    def _entered(self, permit: _ThreadPermit) -> bool:
        """Count a permit as in use if there is room, and let it wait for its turn if not."""
        with self._shelf.lock:
            if self._shelf.has_room():
                self._shelf.enter(permit)
                return True
            if permit not in self._waiting:
                self._waiting.append(permit)
            return False

    def _leave(self, permit: _ThreadPermit) -> None:
        """Free a permit, or end its wait. If there is room, it is the turn of the next one."""
        with self._shelf.lock:
            self._shelf.leave(permit)
            if permit in self._waiting:
                self._waiting.remove(permit)
            if self._waiting and self._shelf.has_room():
                self._waiting.popleft().turn.release()

    def _opened(self, deadline: float | None, *, role_path: bool) -> Connection:
        self._shelf.make_room()
        return self._database.connect(timeout=_left(deadline), role_path=role_path)


class _Room:
    """Where the tasks of one event loop wait for a permit."""

    def __init__(self, limit: int) -> None:
        self.loop = asyncio.get_running_loop()
        self._free = anyio.Semaphore(limit, fast_acquire=True)

    def enter_now(self) -> bool:
        """Take a permit if one is free."""
        try:
            self._free.acquire_nowait()
        except anyio.WouldBlock:
            return False
        return True

    async def enter(self) -> None:
        """Wait for a permit."""
        await self._free.acquire()

    def leave(self) -> None:
        """Give a permit to the next task. No task of a closed loop waits."""
        if not self.loop.is_closed():
            self._free.release()


class AsyncConnections:
    """Connections for tasks of asyncio; otherwise as `Connections`.

    They serve one event loop at a time. After it has stopped they may serve another.
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
        self._room: _Room | None = None
        self._shelf: _Shelf[AsyncConnection] = _Shelf(
            self._limit, keep_failed=self._keep_failed, max_idle=self._max_idle
        )

    def enter_loop(self) -> None:
        """Serve the running event loop in place of the one before, whose calls may never end.

        Their permits no longer count, and their connections are closed when they come
        back. Raises `OutboxError` if the former loop still runs, in another thread.
        """
        self._room_here()

    async def take(
        self, *, fresh: bool, deadline: float | None, role_path: bool = False
    ) -> AsyncConnection:
        """Return a kept connection or a new one, or only a new one if `fresh`.

        `deadline` is a time of the monotonic clock. With `role_path` the session has the
        search path of its role, for SQL of the caller. Raises the driver's
        `OperationalError` if no connection is available before the deadline.
        """
        _must_be_early(deadline)
        permit = _TaskPermit(self._room_here())
        await self._enter(permit, deadline)
        try:
            kept = None if fresh else self._shelf.reuse(role_path=role_path)
            connection = kept or await self._opened(deadline, role_path=role_path)
        except BaseException:
            self._leave(permit)
            raise
        connection.deadline = deadline
        connection.permit = permit
        return connection

    def give_back(self, connection: AsyncConnection) -> None:
        """Take back a connection after a success."""
        if not connection.is_inherited:
            permit = self._permit_of(connection)
            try:
                self._shelf.keep(connection, permit)
            finally:
                self._leave(permit)

    def give_up(self, connection: AsyncConnection, error: BaseException) -> None:
        """Take back a connection whose attempt failed."""
        if not connection.is_inherited:
            permit = self._permit_of(connection)
            try:
                self._shelf.keep_or_drop(connection, permit, error)
            finally:
                self._leave(permit)

    def close(self) -> None:
        """Close the connections that are not in use now, and the others when they come back."""
        self._shelf.close()

    def _room_here(self) -> _Room:
        room = self._room
        if room is not None and room.loop is asyncio.get_running_loop():
            return room
        if room is not None and room.loop.is_running():
            raise OutboxError(_OTHER_LOOP)
        self._shelf.forget_permits()
        self._room = room = _Room(self._limit)
        return room

    async def _enter(self, permit: _TaskPermit, deadline: float | None) -> None:
        if not permit.room.enter_now():
            with anyio.move_on_after(_left(deadline)) as waiting:
                await permit.room.enter()
            if waiting.cancelled_caught:
                raise _none_free(self._limit)
        self._shelf.enter(permit)

    def _leave(self, permit: _TaskPermit) -> None:
        self._shelf.leave(permit)
        permit.room.leave()

    def _permit_of(self, connection: AsyncConnection) -> _TaskPermit:
        """Return the permit of a connection, and close the connection of a former loop."""
        permit: _TaskPermit = connection.permit
        if permit.room is not self._room:
            connection.drop()
        return permit

    async def _opened(self, deadline: float | None, *, role_path: bool) -> AsyncConnection:
        self._shelf.make_room()
        left = _left(deadline)
        try:
            with anyio.fail_after(left):
                return await self._database.connect_async(timeout=left, role_path=role_path)
        except TimeoutError:
            raise psycopg.OperationalError(_TOO_LATE) from None


def _is_read_only(error: BaseException) -> bool:
    return isinstance(error, Exception) and kind_of(error) is FailureKind.READ_ONLY


def _usable(connection: Connection | AsyncConnection) -> bool:
    """Return whether the next call may have this connection."""
    is_whole = not connection.closed and connection.has_our_encoding
    return is_whole and monotonic() < connection.retires_at


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
