"""Support for processes that fork.

A forked child shares the sockets of its parent's connections. It has a copy of every lock,
possibly held, but not the thread that would release it. So objects replace their locks and
forget their connections in the child.
"""

import os
from collections.abc import Callable
from typing import Final
from weakref import WeakMethod

from dsql_outbox.outbox.errors import OutboxError

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


os.register_at_fork(after_in_child=_renew_all)


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
