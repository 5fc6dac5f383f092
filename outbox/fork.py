"""A process that forks: what the child gets new, and what it must leave to its parent.

Parent and child share the sockets of the parent's connections, and the child has a
copy of every lock as it was, held or not, without the threads that would release it.
"""

import os
from collections.abc import Callable
from typing import Final
from weakref import WeakMethod

from .errors import OutboxError

_renewals: Final[set[WeakMethod[Callable[[], None]]]] = set()


def call_in_children(renew: Callable[[], None]) -> None:
    """Call this bound method in each forked child, for as long as its object lives.

    The child has one thread then, so `renew` may replace locks and all that is
    shared with the parent.
    """
    _renewals.add(WeakMethod(renew, _renewals.discard))


def _renew_all() -> None:
    for reference in list(_renewals):
        renew = reference()
        if renew is not None:
            renew()


os.register_at_fork(after_in_child=_renew_all)


class OneProcess:
    """The process that made `what`, which no other may use."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is that process, not a child that was forked from it."""
        return os.getpid() == self._pid

    def require(self) -> None:
        """Raise `OutboxError` in a forked child."""
        if not self.is_here:
            raise OutboxError(
                f"{self._what} belongs to process {self._pid}: a forked child must make its own"
            )
