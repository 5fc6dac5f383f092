"""How fast connections may be opened."""

import math
from heapq import heappop, heappush
from typing import Final

OPENS_PER_SECOND: Final = 100.0
"""New connections that a DSQL cluster takes a second (AWS, Aurora DSQL quotas)."""


class OpenRate:
    """A token bucket without a clock: it is told the time and answers when the next turn is.

    `rate` is openings per second, `burst` how many may come at once.
    """

    def __init__(self, rate: float = OPENS_PER_SECOND, burst: int = 100) -> None:
        self._interval = 1 / rate
        self._credit = burst / rate
        self._last = -math.inf
        self._given_back: list[float] = []

    def reserve(self, now: float, latest: float = math.inf) -> float:
        """The time of the next turn, `now` or later; it is taken unless it is after `latest`.

        So a caller that cannot wait for its turn keeps no other from it.
        """
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
        """Let another have a turn that was taken and not used."""
        heappush(self._given_back, turn)
