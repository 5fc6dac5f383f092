"""The facts of transactions that failed."""

from typing import Any
from uuid import UUID

from dsql_outbox.observability.facts import (
    RetryBudget,
    RetryReason,
    RetryScheduled,
    TransactionFailure,
)

HOST = "db.example:5432"
TEXT = "could not serialize access"


def budget(reason: RetryReason = "conflict", used: float = 1, limit: float = 3) -> RetryBudget:
    """What a failure counts against."""
    return RetryBudget(reason, used, limit)


def failure(
    of: RetryBudget | None = None,
    *,
    error: str = "SerializationFailure",
    sqlstate: str | None = "40001",
    oc_class: str | None = "OC000",
    text: str = TEXT,
    was_reached: bool = True,
    host: str = HOST,
) -> TransactionFailure:
    """A conflict, if not told otherwise."""
    return TransactionFailure(host, was_reached, error, text, sqlstate, oc_class, of or budget())


def retry(
    event_id: UUID, attempt: int = 1, wait_s: float = 0.1, *, events: int = 1, **changes: Any
) -> RetryScheduled:
    """A retry after a failure with these changes."""
    return RetryScheduled(event_id, attempt, wait_s, failure(**changes), events)
