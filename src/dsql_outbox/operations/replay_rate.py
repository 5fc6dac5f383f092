"""The rate limit and the transaction size of a replay; no I/O, no clock of its own."""

from typing import Final

from dsql_outbox.outbox.settings import require_positive

MAX_ROWS: Final = 500
"""Most events of one transaction. Each changes up to three rows, and Aurora DSQL allows 3,000."""

MAX_BYTES: Final = 4 << 20
"""Most bytes of payload and headers in one transaction.

Aurora DSQL allows 10 MiB of changes. A replayed dead letter counts twice: it is
inserted into the outbox and deleted from the dead letters.
"""


class Pace:
    """Limits a replay to `rate` events per second on average; None is no limit.

    Raises `SettingsError` for a rate that is not above 0.
    """

    def __init__(self, rate: float | None) -> None:
        if rate is not None:
            require_positive("replay", {"rate": rate})
        self._rate = rate
        self._next = float("-inf")

    @property
    def is_limited(self) -> bool:
        """Whether there is a rate."""
        return self._rate is not None

    @property
    def rows(self) -> int:
        """The most events of the next transaction: those of one second, at least one."""
        return MAX_ROWS if self._rate is None else max(1, min(MAX_ROWS, int(self._rate)))

    def wait(self, now: float) -> float:
        """Seconds until the next transaction may begin; `now` is the monotonic clock in seconds."""
        return max(0.0, self._next - now)

    def spend(self, events: int, now: float) -> None:
        """Record that a transaction has replayed this number of events."""
        if self._rate is not None:
            self._next = max(self._next, now) + events / self._rate
