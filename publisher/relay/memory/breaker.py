"""A circuit breaker: decides whether to try a broker again that failed. It does no I/O.

While the broker cannot be reached, little is sent and no attempt is counted against a
message. After some failures in a row the breaker opens. After a while, one message is sent as
a probe, and its answer decides (M. Nygard, "Release It!", Circuit Breaker).
"""

from typing import Final

FAILURES: Final = 5
"""Failures in a row that open the breaker, after 1.5 s of single tries; a restart is often over
by then."""

OPEN_FOR: Final = 5.0
"""Seconds from one probe to the next: few calls for a broker that is down, and no message waits
longer than this after it is back."""

_FIRST_WAIT: Final = 0.1
"""Seconds after the first failure, doubled after each; a reconnect is often this quick."""


class Breaker:
    """The breaker of one sink; times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._failures = 0
        self._retry_at = float("-inf")
        self.failing_since: float | None = None
        """The time since when the broker cannot be reached, or None."""

    @property
    def is_failing(self) -> bool:
        """Whether the broker could not be reached when it was tried last."""
        return self.failing_since is not None

    def seconds_left(self, now: float) -> float:
        """Seconds until the broker may be tried; 0 if it may now."""
        return max(0.0, self._retry_at - now)

    def note_success(self) -> None:
        """Record that the broker answered."""
        self._failures = 0
        self._retry_at = float("-inf")
        self.failing_since = None

    def note_failure(self, now: float) -> None:
        """Record that the broker could not be reached."""
        if self.failing_since is None:
            self.failing_since = now
        self._failures += 1
        is_open = self._failures >= FAILURES
        self._retry_at = now + (OPEN_FOR if is_open else _FIRST_WAIT * 2 ** (self._failures - 1))
