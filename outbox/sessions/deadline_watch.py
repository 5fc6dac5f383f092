"""The deadline of a call, for a connection of a driver that knows no deadline."""

import _thread
import asyncio
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from dsql_outbox.outbox.sessions.driver_sessions import end_now

if TYPE_CHECKING:
    from collections.abc import Callable


class DeadlineWatch:
    """Ends the connection at the deadline of the call: no driver but ours knows that deadline.

    It must not end a connection that the pool has got back, and may have lent again.
    """

    def __init__(self, deadline: float | None) -> None:
        self.has_ended_it = False
        self._deadline = deadline
        self._lock = threading.Lock()
        self._is_over = True
        self._is_gone: Callable[[], bool] = bool
        self._driver: Any = None
        self._stop: Callable[[], object] = _nothing

    def begin(self, driver: Any, is_gone: "Callable[[], bool]", *, is_async: bool) -> None:
        """Watch a connection of a driver, until `is_gone` says that its owner has closed it."""
        self.end()
        self._driver, self._is_gone, self._is_over = driver, is_gone, False
        if self._deadline is None:
            return
        seconds = max(0.0, self._deadline - monotonic())
        if is_async:
            self._stop = asyncio.get_running_loop().call_later(seconds, self._end_it).cancel
            return
        stopped = threading.Lock()
        stopped.acquire()
        self._stop = stopped.release
        with suppress(RuntimeError):  # as Python ends
            # Not by `Thread.start`, which waits for the thread: see `Connections`.
            _thread.start_new_thread(self._wait, (stopped, seconds))

    def end(self, *_: object) -> None:
        """Leave the connection alone from now on."""
        with self._lock:
            is_over, self._is_over = self._is_over, True
        if not is_over:
            self._stop()

    def _wait(self, stopped: threading.Lock, seconds: float) -> None:
        if not stopped.acquire(timeout=seconds):
            self._end_it()

    def _end_it(self) -> None:
        with self._lock:
            if self._is_over or self._is_gone():
                return
            self.has_ended_it = True
            with suppress(Exception):  # such as of a connection that was lost meanwhile
                end_now(self._driver)


def _nothing() -> None:
    """Stop no watch."""
