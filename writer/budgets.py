"""The budgets of the retries of a writer's call, which come from its settings."""

from collections.abc import Sequence
from typing import Final

from dsql_outbox.observability.facts import RetryReason
from dsql_outbox.outbox.failure import OUTAGES, RACES, FailureKind
from dsql_outbox.outbox.unit_of_work.budget import Budget

from .settings import WriterSettings
from .tuned_settings import TunedSettings

REASONS: Final[Sequence[RetryReason]] = ("schema change", "conflict", "outage")
SCHEMA_CHANGE, CONFLICT = 0, 1

_MOST_CHANGES: Final = 10
"""Retries of a conflict with a change of the schema, if no time limit ends them. A session meets
each change once, so one migration seldom takes as many."""


def budgets_of(settings: WriterSettings) -> Sequence[Budget]:
    """Return the budgets of a writer's calls, in the order of `REASONS`."""
    tuned = TunedSettings.of(settings)
    base, cap, jitter = tuned.base, tuned.cap, tuned.random_share
    changes = _MOST_CHANGES if settings.timeout is None else None
    return (
        Budget({FailureKind.SCHEMA_CHANGED}, changes, base, cap, jitter),
        Budget(RACES, settings.max_retries, base, cap, jitter),
        Budget(OUTAGES, base=base, cap=cap, jitter=jitter, lasts=settings.max_outage),
    )
