"""Support for processes that fork.

A forked child shares the sockets of its parent's connections. It has a copy of every lock,
possibly held, but not the thread that would release it. So objects replace their locks and
forget their connections in the child.

Locks of OpenSSL and libpq cannot be replaced. So a fork waits while one may be held.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, sleep
from typing import Final
from weakref import WeakMethod

from dsql_outbox.outbox.errors import OutboxError

_PATIENCE: Final = 1.0
"""Seconds that a fork waits at most: a step of libpq may look up the name of a host."""

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


class _HeldForks:
    """A context manager: no process of this one is forked during the block, for a second at most.

    It is for a step of libpq that opens a connection. It runs without Python's lock, and has locks
    of OpenSSL meanwhile. If another thread forked then, the child's first connection would wait
    for them for ever. A thread that ran such a step takes one more of these locks as it ends,
    when Python has let go of it (``init_thread_stop`` in OpenSSL's crypto/initthread.c).
    """

    def __init__(self) -> None:
        self._begin()
        call_in_children(self._begin)

    def _begin(self) -> None:
        self._steps = 0
        self._changed = threading.Condition()
        self._ending: deque[int] = deque(maxlen=64)

    def __enter__(self) -> None:
        with self._changed:
            self._steps += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._steps -= 1
            self._changed.notify_all()

    def thread_ends(self) -> None:
        """Record that this thread ends now. On Linux, forks wait until it is gone."""
        if sys.platform == "linux":  # elsewhere the id of a thread is not one that `kill` knows
            self._ending.append(threading.get_native_id())

    def before_fork(self) -> None:
        """Wait for steps and ends of threads, and let no step begin until `after_fork`."""
        until = monotonic() + _PATIENCE
        self._changed.acquire()
        self._changed.wait_for(lambda: not self._steps, _PATIENCE)
        while self._is_one_ending() and monotonic() < until:
            sleep(0.001)

    def after_fork(self) -> None:
        """Let the steps of the parent go on."""
        self._changed.release()

    def _is_one_ending(self) -> bool:
        for thread in list(self._ending):
            try:
                os.kill(thread, 0)  # only asks, and keeps Python's lock, so no other ends now
            except OSError:
                self._ending.remove(thread)
        return bool(self._ending)


held_forks: Final = _HeldForks()

os.register_at_fork(
    before=held_forks.before_fork,
    after_in_parent=held_forks.after_fork,
    after_in_child=_renew_all,
)


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
