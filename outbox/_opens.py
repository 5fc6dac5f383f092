"""How fast connections may be opened."""

from typing import Final

OPENS_PER_SECOND: Final = 100.0
"""New connections that a DSQL cluster takes a second (AWS, Aurora DSQL quotas)."""


class OpenRate:
    """A token bucket without a clock: it is told the time and answers how long to wait.

    `rate` is openings per second, `burst` how many may come at once.
    """

    def __init__(self, rate: float = OPENS_PER_SECOND, burst: int = 100) -> None:
        self._interval = 1 / rate
        self._credit = burst / rate
        self._next = float("-inf")

    def reserve(self, now: float) -> float:
        """Take the next opening; returns the seconds to wait before using it."""
        self._next = max(self._next, now - self._credit) + self._interval
        return max(0.0, self._next - now)
