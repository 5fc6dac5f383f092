"""The retries of one write call. No I/O; the caller passes the time."""

from collections.abc import Callable, Sequence
from typing import Final

from dsql_outbox.observability.facts import RetryBudget, RetryReason, TransactionFailure
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.failure import OUTAGES, RACES, DatabaseFailure, FailureKind
from dsql_outbox.outbox.unit_of_work.budget import Budget, Spending
from dsql_outbox.writer.settings import WriterSettings

_REASONS: Final[Sequence[RetryReason]] = ("schema change", "conflict", "outage")
_SCHEMA_CHANGE, _CONFLICT = 0, 1

_MOST_CHANGES: Final = 10
"""Retries of a conflict with a change of the schema, if no time limit ends them. A session meets
each change once, so one migration seldom takes as many."""


def budgets_of(settings: WriterSettings) -> Sequence[Budget]:
    """Return the budgets of a writer's calls, in the order of `_REASONS`."""
    base, cap, jitter = settings.base, settings.cap, settings.jitter
    changes = _MOST_CHANGES if settings.timeout is None else None
    return (
        Budget({FailureKind.SCHEMA_CHANGED}, changes, base, cap, jitter),
        Budget(RACES, settings.max_retries, base, cap, jitter),
        Budget(OUTAGES, base=base, cap=cap, jitter=jitter, lasts=settings.max_outage),
    )


class Backoff(Spending):
    """What a write call has spent on conflicts, on schema changes and on an outage."""

    __slots__ = ("_database",)

    def __init__(
        self,
        budgets: Sequence[Budget],
        database: Database,
        deadline: float | None,
        random: Callable[[], float],
    ) -> None:
        super().__init__(budgets, deadline, random)
        self._database = database

    @property
    def conflicts(self) -> int:
        """The number of conflicts so far, with data or with a change of the schema."""
        return self.count(_SCHEMA_CHANGE) + self.count(_CONFLICT)

    @property
    def is_last_try(self) -> bool:
        """Whether the next attempt is the last one if it ends in a conflict."""
        times = self._budgets[_CONFLICT].times
        return times is not None and self.count(_CONFLICT) >= times

    @property
    def budget(self) -> RetryBudget | None:
        """The budget that the last failure counts against."""
        if self.last is None:
            return None
        limit = self._budgets[self.last].limit
        return RetryBudget(_REASONS[self.last], self.used, limit, self.left)

    def as_fact(self, failure: DatabaseFailure) -> TransactionFailure:
        """Return the budget that a failure used, for the facts, after `next_wait`."""
        budget = self.budget
        assert budget is not None  # noqa: S101 - `next_wait` sets it for a failure that is retried
        return TransactionFailure(
            host=self._database.address,
            was_reached=self._database.was_reached,
            error=type(failure.error).__name__,
            text=failure.text,
            sqlstate=failure.sqlstate,
            oc_class=failure.oc_class,
            budget=budget,
        )
