"""Connections for threads."""

import threading
from collections import deque
from time import monotonic
from typing import Final

from dsql_outbox.outbox import Connection, Database, call_in_children

from .call_deadline import none_free, require_time, seconds_left
from .shelf import Permit, Shelf

_SLICE: Final = 0.5
"""Seconds after which a thread that waits looks again.

No wake-up says that a connection was lost, or that a thread was interrupted while it woke another.
"""


class _ThreadPermit(Permit):
    """The right of a thread. `turn` is locked until it may look whether there is room."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.turn.acquire()


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
        self._shelf: Shelf[Connection] = Shelf(
            self._limit, keep_failed=self._keep_failed, max_idle=self._max_idle
        )
        self._waiting: deque[_ThreadPermit] = deque()

    def take(self, *, fresh: bool, deadline: float | None, role_path: bool = False) -> Connection:
        """Return a kept connection or a new one, or only a new one if `fresh`.

        `deadline` is a time of the monotonic clock. With `role_path` the session has the
        search path of its role, for SQL of the caller. Raises the driver's
        `OperationalError` if no connection is available before the deadline.
        """
        require_time(deadline)
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
            left = seconds_left(deadline)
            permit.turn.acquire(timeout=_SLICE if left is None else min(left, _SLICE))
            if deadline is not None and monotonic() >= deadline:
                raise none_free(self._limit)

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
        return self._database.connect(timeout=seconds_left(deadline), role_path=role_path)
