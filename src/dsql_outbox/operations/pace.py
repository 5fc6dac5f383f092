"""The rate limit of a run; no I/O, no clock of its own."""

from dsql_outbox.outbox.settings import require_positive


class Pace:
    """Limits a run to `rate` events per second on average; None is no limit.

    Without a rate, the run rests after each transaction for `rest` times as long as that took.
    Raises `SettingsError` for a rate that is not above 0.
    """

    def __init__(self, rate: float | None = None, *, rest: float = 0.0) -> None:
        if rate is not None:
            require_positive("run", {"rate": rate})
        self._rate = rate
        self._rest = rest
        self._next = float("-inf")

    def most(self, rows: int) -> int:
        """The most events of the next transaction: those of one second, one at least."""
        return rows if self._rate is None else max(1, min(rows, int(self._rate)))

    def wait(self, now: float) -> float:
        """Seconds until the next transaction may begin; `now` is the monotonic clock in seconds."""
        return max(0.0, self._next - now)

    def spend(self, events: int, began: float, now: float) -> None:
        """Record that a transaction, which began at a time, has changed so many events."""
        if self._rate is None:
            self._next = now + self._rest * (now - began)
        else:
            self._next = max(self._next, now) + events / self._rate
