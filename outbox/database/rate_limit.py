"""The limit on new connections per second."""

import math
import threading
from heapq import heappop, heappush
from typing import Final

from .fork import call_in_children

OPENS_PER_SECOND: Final = 100.0
"""New connections per second that a DSQL cluster accepts (AWS, Aurora DSQL quotas)."""


class OpenRate:
    """A token bucket without a clock: the caller passes the time.

    `rate` is the number of connections per second. `burst` is the number of connections
    that may be opened at once. `was_used` says whether a connection was opened in a turn. It may
    be called by several threads.
    """

    def __init__(self, rate: float = OPENS_PER_SECOND, burst: int = 100) -> None:
        self._interval = 1 / rate
        self._credit = burst / rate
        self._last = -math.inf
        self._given_back: list[float] = []
        self.was_used = False
        self._renew_lock()
        call_in_children(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def reserve(self, now: float, latest: float = math.inf) -> float:
        """Return the time of the next turn, and reserve it unless it is after `latest`.

        So a caller that cannot wait leaves the turn to others.
        """
        with self._lock:
            while self._given_back and self._given_back[0] < now:
                heappop(self._given_back)
            if self._given_back:
                turn = self._given_back[0]
                if turn <= latest:
                    heappop(self._given_back)
                return turn
            last = max(self._last, now - self._credit) + self._interval
            turn = max(now, last)
            if turn <= latest:
                self._last = last
            return turn

    def give_back(self, turn: float) -> None:
        """Return an unused turn, so that another caller can have it."""
        with self._lock:
            heappush(self._given_back, turn)
