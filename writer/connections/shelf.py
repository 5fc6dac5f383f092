"""The open connections of a writer: those in use, and those kept for reuse. It opens none."""

import select
import threading
from collections import deque
from time import monotonic, time
from typing import Generic, TypeVar
from weakref import WeakSet, ref

from psycopg.pq import TransactionStatus

from dsql_outbox.outbox import AsyncConnection, Connection, FailureKind, kind_of

C = TypeVar("C", Connection, AsyncConnection)


class Permit:
    """The right to have one connection. The connection refers to it; it refers back weakly."""

    connection: "ref[AsyncConnection] | None" = None


class Shelf(Generic[C]):
    """Counts the open connections and holds those kept for reuse. It opens none itself.

    Open are the connections in use, one per permit, and the kept ones. The permits in use are
    a weak set and not a number, so an interrupt at any point can neither lose nor double one.
    To free a permit twice is harmless, and a lost connection frees its permit.
    """

    def __init__(self, limit: int, *, keep_failed: bool, max_idle: float | None) -> None:
        self.lock = threading.Lock()
        self._limit = limit
        self._keep_failed = keep_failed
        self._max_idle = max_idle
        self._in_use: WeakSet[Permit] = WeakSet()
        self._kept: deque[C] = deque()
        self._is_closed = False

    def has_room(self) -> bool:
        """Return whether another connection may be in use."""
        return len(self._in_use) < self._limit

    def enter(self, permit: Permit) -> None:
        """Count a permit as in use."""
        self._in_use.add(permit)

    def leave(self, permit: Permit) -> None:
        """Count a permit as free. It may be free already."""
        self._in_use.discard(permit)

    def forget_permits(self) -> None:
        """Count every permit as free, and close the connections in use: no call gives them back."""
        for permit in list(self._in_use):
            if permit.connection is not None and (abandoned := permit.connection()) is not None:
                abandoned.drop()
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
            if self._was_idle_briefly(connection) and _lasts(connection) and _silent(connection):
                return connection
            connection.drop()

    def make_room(self) -> None:
        """Close the connection kept longest if another open one would exceed the limit."""
        with self.lock:
            is_full = len(self._in_use) + len(self._kept) > self._limit
            surplus = self._kept.popleft() if is_full and self._kept else None
        if surplus is not None:
            surplus.drop()

    def keep(self, connection: C, permit: Permit) -> None:
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

    def keep_or_drop(self, connection: C, permit: Permit, error: BaseException) -> None:
        """Take back a connection whose attempt failed.

        Keep it if it is healthy and `keep_failed` is set. A unique violation says nothing
        about the connection, so after one a healthy connection is always kept. If the server
        has become read-only, the kept connections are useless too, since they lead to it.
        """
        if _is(FailureKind.READ_ONLY, error):
            connection.drop()
            self._clear()
        healthy = connection.info.transaction_status is TransactionStatus.IDLE
        key_exists = _is(FailureKind.COLLISION, error) or _is(FailureKind.KEY_TAKEN, error)
        wished = self._keep_failed or key_exists
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


def _is(kind: FailureKind, error: BaseException) -> bool:
    return isinstance(error, Exception) and kind_of(error) is kind


def _usable(connection: Connection | AsyncConnection) -> bool:
    """Return whether the next call may have this connection, which a call has used."""
    return _lasts(connection) and connection.has_our_encoding


def _lasts(connection: Connection | AsyncConnection) -> bool:
    return not connection.closed and monotonic() < connection.retires_at


def _silent(connection: Connection | AsyncConnection) -> bool:
    """Return whether the server has sent nothing since the last answer.

    A restart or a time limit of the server ends all kept connections together. Its final
    message or the end of the stream shows that, without a failed attempt per connection.
    """
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return not poll.poll(0)
