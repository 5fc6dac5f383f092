"""How fast a run goes; no I/O, no clock of its own."""

from math import inf
from typing import Final

from dsql_outbox.outbox.settings import require_positive

_REST: Final = 15.0
"""How long a run that gives way rests, to the time of a transaction that was as fast as any."""

_SLOWEST: Final = 4.0
"""One that was slower than that has waited for something else, such as a lock."""

_LONGEST: Final = 60.0
"""Most seconds of a rest: the process may have been suspended in the transaction before it."""


class Pace:
    """Limits a run to `rate` events per second on average; None is no limit.

    A run that `gives_way` and has no rate leaves the database to others, so that they hardly
    notice it. After each transaction it rests for 15 times as long as that took, and longer by
    as much as it was slower than the fastest one of the run. So it compares the delay that it feels
    with the shortest that it has felt, as LEDBAT does, the congestion control of transfers in the
    background (RFC 6817). Its transactions stay as large: each costs a file, or reads of its own.

    Raises `SettingsError` for a rate that is not above 0.
    """

    def __init__(self, rate: float | None = None, *, gives_way: bool = False) -> None:
        if rate is not None:
            require_positive("run", {"rate": rate})
        self._rate = rate
        self._gives_way = gives_way
        self._fastest = inf
        self._next = -inf

    def most(self, rows: int) -> int:
        """The most events of the next transaction: those of one second, one at least."""
        return rows if self._rate is None else max(1, min(rows, int(self._rate)))

    def wait(self, now: float) -> float:
        """Seconds until the next transaction may begin; `now` is the monotonic clock in seconds."""
        return max(0.0, self._next - now)

    def spend(self, events: int, began: float, now: float) -> None:
        """Record that a transaction, which began at a time, has changed so many events."""
        if self._rate is not None:
            self._next = max(self._next, now) + events / self._rate
        elif self._gives_way and events and (took := now - began) > 0:
            self._fastest = min(self._fastest, took)
            slower = min(took / self._fastest, _SLOWEST)
            self._next = now + min(_REST * slower * took, _LONGEST)
