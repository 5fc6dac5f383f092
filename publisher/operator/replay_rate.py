"""How fast a replay may go: pure, told the time."""

from typing import Final

from dsql_outbox.outbox import require_positive

MAX_ROWS: Final = 500
"""Events of one transaction, three rows each; a transaction may change 3,000."""

MAX_BYTES: Final = 4 << 20
"""Payload and headers of one transaction, two copies of a dead letter's; 10 MiB are allowed."""


class Pace:
    """At most `rate` events a second on average; None: no limit.

    Raises `SettingsError` for a rate that is not above 0.
    """

    def __init__(self, rate: float | None) -> None:
        if rate is not None:
            require_positive("replay", {"rate": rate})
        self._rate = rate
        self._next = float("-inf")

    @property
    def rows(self) -> int:
        """How many events a transaction may hold: a second's worth, or one."""
        return MAX_ROWS if self._rate is None else max(1, min(MAX_ROWS, int(self._rate)))

    def wait(self, now: float) -> float:
        """Seconds until the next transaction may begin; `now` is the monotonic clock."""
        return max(0.0, self._next - now)

    def spend(self, events: int, now: float) -> None:
        """Tell how many events a transaction has moved."""
        if self._rate is not None:
            self._next = max(self._next, now) + events / self._rate
