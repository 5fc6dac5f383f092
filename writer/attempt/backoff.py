"""How long to wait before a retry, and when to give up. No I/O; the caller passes the time."""

from collections.abc import Callable

from dsql_outbox.outbox import OUTAGES, RACES, DatabaseFailure, FailureKind
from dsql_outbox.writer.settings import WriterSettings


class Backoff:
    """The two limits of one write call: a number of conflicts, and a duration of an outage.

    An outage begins with its first failure and ends when the database answers again.
    `deadline` is a time of the clock that `next_wait` gets. `random` returns 0 to 1.
    """

    __slots__ = (
        "_deadline",
        "_outage_began",
        "_outages",
        "_random",
        "_settings",
        "conflicts",
        "max_retries",
    )

    def __init__(
        self, settings: WriterSettings, deadline: float | None, random: Callable[[], float]
    ) -> None:
        self.conflicts = 0
        self.max_retries = settings.max_retries
        self._settings = settings
        self._deadline = deadline
        self._random = random
        self._outage_began: float | None = None
        self._outages = 0

    def next_wait(self, failure: DatabaseFailure, now: float) -> float | None:
        """Return the seconds to wait before another attempt, or None to give up."""
        if failure.kind in RACES:
            wait = self._after_conflict()
        elif failure.kind in OUTAGES:
            wait = self._after_outage(failure, now)
        else:
            wait = None
        if wait is None or (self._deadline is not None and now + wait >= self._deadline):
            return None
        return wait

    def _after_conflict(self) -> float | None:
        self.conflicts += 1
        self._outage_began, self._outages = None, 0
        if self.conflicts > self._settings.max_retries:
            return None
        return self._delay(self.conflicts)

    def _after_outage(self, failure: DatabaseFailure, now: float) -> float | None:
        self._outages += 1
        if self._outage_began is None:
            self._outage_began = now
        crowded = failure.kind is FailureKind.CROWDED
        wait = self._settings.cap if crowded else self._delay(self._outages)
        return wait if now + wait - self._outage_began <= self._settings.max_outage else None

    def _delay(self, nth: int) -> float:
        """Return `base`, doubled per failure, plus a share of jitter, at most `cap`."""
        settings = self._settings
        # Limit the exponent: a float overflows at 2.0 ** 1024. The cap applies long before.
        delay = settings.base * 2.0 ** min(nth - 1, 64)
        return min(settings.cap, delay * (1 + settings.jitter * self._random()))
