"""Support for processes that fork.

A forked child shares the sockets of its parent's connections. It has a copy of every lock,
possibly held, but not the thread that would release it. So objects replace their locks and
forget their connections in the child.

Locks of OpenSSL cannot be replaced, so a fork waits for the threads of the library that hold one.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Final
from weakref import WeakMethod

from dsql_outbox.outbox.errors import OutboxError

_PATIENCE: Final = 1.0
"""Seconds that a fork waits at most."""

_renewals: Final[set[WeakMethod[Callable[[], None]]]] = set()


def call_in_children(renew: Callable[[], None]) -> None:
    """Call the bound method `renew` in each forked child, as long as its object exists.

    At that time the child has one thread, so `renew` can replace locks and other
    state that it shares with the parent.
    """
    _renewals.add(WeakMethod(renew, _renewals.discard))


def _renew_all() -> None:
    for reference in list(_renewals):
        renew = reference()
        if renew is not None:
            renew()


class ConnectingThread(threading.Thread):
    """A thread that connects to a database. On Linux a fork waits while it ends, for a second.

    libpq's OpenSSL takes a lock as a thread ends, when Python has let go of that thread
    (``init_thread_stop`` in OpenSSL's crypto/initthread.c). A child that is forked at that moment
    has the lock for ever, and its first connection waits for it with Python's own lock held.
    """

    def run(self) -> None:
        """Call the target of the thread, then note that it ends."""
        try:
            super().run()
        finally:
            _ending.append(threading.get_native_id())


_ending: Final[deque[int]] = deque(maxlen=64)


def _wait_for_ends() -> None:
    until = monotonic() + _PATIENCE
    for thread in list(_ending):
        while Path(f"/proc/self/task/{thread}").exists() and monotonic() < until:
            sleep(0.001)


os.register_at_fork(before=_wait_for_ends, after_in_child=_renew_all)


class OneProcess:
    """Restricts the object that `what` describes to the process that created it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether the current process is the one that created the object."""
        return os.getpid() == self._pid

    def require(self) -> None:
        """Raise `OutboxError` in a forked child."""
        if not self.is_here:
            raise OutboxError(
                f"{self._what} belongs to process {self._pid}: a forked child must make its own"
            )
