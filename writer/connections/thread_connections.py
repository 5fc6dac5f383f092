"""Connections for threads."""

import threading
from collections import deque
from time import monotonic
from typing import Final

from dsql_outbox.outbox import Connection

from .call_deadline import none_free, require_time, seconds_left
from .lender import Lender
from .shelf import Permit

_SLICE: Final = 0.5
"""Seconds after which a waiting thread looks again.

A lost connection wakes no thread, and neither does a thread that was interrupted while it
woke another.
"""


class _ThreadPermit(Permit):
    """The right of a thread. `turn` is locked until the thread may look for room."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.turn.acquire()


class Connections(Lender[Connection]):
    """Connections for threads."""

    def _begin(self) -> None:
        super()._begin()
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
