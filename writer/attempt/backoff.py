"""How long to wait before a retry, and when to give up. No I/O; the caller passes the time."""

from collections.abc import Callable

from dsql_outbox.observability import RetryBudget, RetryReason, TransactionFailure
from dsql_outbox.outbox import OUTAGES, RACES, Database, DatabaseFailure, FailureKind
from dsql_outbox.writer.settings import WriterSettings


class Backoff:
    """The budgets of one write call: conflicts, schema changes, and the duration of an outage.

    An outage begins with its first failure and ends when the database answers again.
    `deadline` is a time of the clock that `next_wait` gets. `random` returns 0 to 1.
    `budget` is the budget that the last failure counts against.
    """

    __slots__ = (
        "_database",
        "_outage_began",
        "_outages",
        "_races",
        "_random",
        "_schema_changes",
        "_settings",
        "budget",
        "deadline",
        "is_cut_short",
    )

    def __init__(
        self,
        settings: WriterSettings,
        database: Database,
        deadline: float | None,
        random: Callable[[], float],
    ) -> None:
        self.budget: RetryBudget | None = None
        self.is_cut_short = False
        self._settings = settings
        self._database = database
        self.deadline = deadline
        self._random = random
        self._races = 0
        self._schema_changes = 0
        self._outage_began: float | None = None
        self._outages = 0

    @property
    def conflicts(self) -> int:
        """The number of conflicts so far, with data or with a change of the schema."""
        return self._races + self._schema_changes

    @property
    def is_last_try(self) -> bool:
        """Whether the next attempt is the last one if it ends in a conflict."""
        return self._races >= self._settings.max_retries

    def next_wait(self, failure: DatabaseFailure, now: float) -> float | None:
        """Return the seconds to wait before another attempt, or None to give up.

        `is_cut_short` is then whether the deadline of the call left no time for the wait.
        """
        wait = self._wait_after(failure, now)
        late = wait is not None and self.deadline is not None and now + wait >= self.deadline
        self.is_cut_short = late
        return None if late else wait

    def told(self, failure: DatabaseFailure) -> TransactionFailure:
        """Return the budget that a failure used, for the facts, after `next_wait`."""
        assert self.budget is not None  # noqa: S101 - `next_wait` sets it for a failure that is retried
        return TransactionFailure(
            host=self._database.address,
            was_reached=self._database.was_reached,
            error=type(failure.error).__name__,
            text=failure.text,
            sqlstate=failure.sqlstate,
            oc_class=failure.oc_class,
            budget=self.budget,
        )

    def _wait_after(self, failure: DatabaseFailure, now: float) -> float | None:
        if failure.kind is FailureKind.SCHEMA_CHANGED:
            self._schema_changes += 1
            return self._after_conflict(
                "schema change", self._schema_changes, self._settings.max_schema_changes
            )
        if failure.kind in RACES:
            self._races += 1
            return self._after_conflict("conflict", self._races, self._settings.max_retries)
        if failure.kind in OUTAGES:
            return self._after_outage(failure, now)
        return None

    def _after_conflict(self, reason: RetryReason, nth: int, limit: int) -> float | None:
        self._outage_began, self._outages = None, 0
        self.budget = RetryBudget(reason, min(nth, limit), limit)
        return self._delay(nth) if nth <= limit else None

    def _after_outage(self, failure: DatabaseFailure, now: float) -> float | None:
        self._outages += 1
        if self._outage_began is None:
            self._outage_began = now
        lasted, limit = now - self._outage_began, self._settings.max_outage
        self.budget = RetryBudget("outage", lasted, limit)
        crowded = failure.kind is FailureKind.CROWDED
        wait = self._settings.cap if crowded else self._delay(self._outages)
        return wait if lasted + wait <= limit else None

    def _delay(self, nth: int) -> float:
        """Return `base`, doubled per failure, plus a share of jitter, at most `cap`."""
        settings = self._settings
        # Limit the exponent: a float overflows at 2.0 ** 1024. The cap applies long before.
        delay = settings.base * 2.0 ** min(nth - 1, 64)
        return min(settings.cap, delay * (1 + settings.jitter * self._random()))
