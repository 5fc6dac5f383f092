"""A circuit breaker: decides whether to try a broker again that failed. It does no I/O.

While the broker cannot be reached, little is sent and no attempt is counted against a
message. After some failures in a row the breaker opens. After a while, one message is sent as
a probe, and its answer decides (M. Nygard, "Release It!", Circuit Breaker).
"""

from typing import Final

_FIRST_WAIT: Final = 0.1
"""Seconds after the first failure, doubled after each; a reconnect is often this quick."""


class Breaker:
    """The breaker of one sink; times are seconds of the monotonic clock."""

    def __init__(self, *, failures: int, open_for: float) -> None:
        self._limit = failures
        self._open_for = open_for
        self._failures = 0
        self._retry_at = float("-inf")

    @property
    def is_failing(self) -> bool:
        """Whether the broker could not be reached when it was tried last."""
        return self._failures > 0

    def wait(self, now: float) -> float:
        """Seconds until the broker may be tried; 0 if it may now."""
        return max(0.0, self._retry_at - now)

    def succeeded(self) -> None:
        """Record that the broker answered."""
        self._failures = 0
        self._retry_at = float("-inf")

    def failed(self, now: float) -> None:
        """Record that the broker could not be reached."""
        self._failures += 1
        short = _FIRST_WAIT * 2.0 ** min(self._failures - 1, 64)
        is_open = self._failures >= self._limit
        self._retry_at = now + (self._open_for if is_open else min(short, self._open_for))
