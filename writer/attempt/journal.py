"""The journal of one call: it counts the attempts and reports each to the hooks. No I/O."""

from uuid import UUID

from dsql_outbox.observability.facts import (
    AttemptEnded,
    AttemptOutcome,
    RetriesExhausted,
    RetryScheduled,
    WriteEnded,
    WriteExhausted,
    WriteStatus,
)
from dsql_outbox.observability.hooks import Scopes
from dsql_outbox.outbox.errors import DuplicateEvent, OutcomeUnknown
from dsql_outbox.outbox.failure import RACES, DatabaseFailure, FailureKind
from dsql_outbox.outbox.receipt import Receipt

from .backoff import Backoff


def attempt_outcome(failure: DatabaseFailure | None) -> AttemptOutcome:
    """Return the name, in facts, of an attempt with this failure or with none."""
    if failure is None:
        return "committed"
    if failure.kind in RACES:
        return "conflict"
    return "in_doubt" if failure.kind is FailureKind.IN_DOUBT else "failed"


class Journal:
    """Counts and reports the attempts of one call, which has the id `call_id` in facts.

    `attempts` is the number of attempts that were started. Times of attempts are nanoseconds
    since the Unix epoch.
    """

    __slots__ = ("_call_id", "_scopes", "_waited", "attempts", "backoff")

    def __init__(self, call_id: UUID, scopes: Scopes, backoff: Backoff) -> None:
        self.attempts = 0
        self.backoff = backoff
        self._call_id = call_id
        self._scopes = scopes
        self._waited = 0.0

    @property
    def conflicts(self) -> int:
        """The number of attempts that ended in a conflict."""
        return self.backoff.conflicts

    def begin(self) -> None:
        """Record that another attempt starts."""
        self.attempts += 1

    def attempt_ended(
        self,
        outcome: AttemptOutcome,
        started_ns: int,
        ended_ns: int,
        failure: DatabaseFailure | None = None,
    ) -> None:
        """Report the end of an attempt."""
        waited, self._waited = self._waited, 0.0
        if self._scopes.is_quiet and failure is None:
            return
        fact = AttemptEnded(
            event_id=self._call_id,
            number=self.attempts,
            waited_s=waited,
            started_ns=started_ns,
            ended_ns=ended_ns,
            outcome=outcome,
            error=type(failure.error).__name__ if failure else None,
            sqlstate=failure.sqlstate if failure else None,
            oc_class=failure.oc_class if failure else None,
        )
        self._scopes(fact)

    def next_wait(self, failure: DatabaseFailure, now: float) -> float | None:
        """Return the seconds until another attempt, or None if the retries are exhausted."""
        return self.backoff.next_wait(failure, now)

    def waits(self, seconds: float) -> None:
        """Record that another attempt follows after `seconds`."""
        self._waited = seconds

    def tell_retry(
        self, failure: DatabaseFailure, events: int = 1, first: UUID | None = None
    ) -> None:
        """Report, after `waits`, that a transaction of `events` events is tried again.

        `first` is the id of one of them, if the call has no event's id.
        """
        told, named = self.backoff.as_fact(failure), first or self._call_id
        self._scopes(RetryScheduled(named, self.attempts, self._waited, told, events))

    def tell_end_of_retries(
        self, failure: DatabaseFailure, events: int = 1, first: UUID | None = None
    ) -> None:
        """Report that a transaction of `events` events is not tried again."""
        told, named = self.backoff.as_fact(failure), first or self._call_id
        cut_short = self.backoff.is_cut_short
        self._scopes(RetriesExhausted(named, self.attempts, told, events, cut_short))

    def exhausted(self, failure: DatabaseFailure) -> None:
        """Report that the retries of this call are exhausted."""
        error = type(failure.error).__name__
        self._scopes(WriteExhausted(self._call_id, self.attempts, error, failure.sqlstate))

    def ended(self, outcome: object) -> None:
        """Report that the call has ended with a receipt or value, or with an exception."""
        if self._scopes.is_quiet and isinstance(outcome, Receipt):
            return
        error = type(outcome).__name__ if isinstance(outcome, Exception) else None
        self._tell_ended(_status_of(outcome), error)

    def abandoned(self, error: BaseException, *, in_doubt: bool) -> None:
        """Report the end of a call whose caller is gone, as by cancellation."""
        self._tell_ended("unknown" if in_doubt else "failed", type(error).__name__)

    def _tell_ended(self, status: WriteStatus, error: str | None) -> None:
        self._scopes(WriteEnded(self._call_id, status, self.attempts, self.conflicts, error))


def _status_of(outcome: object) -> WriteStatus:
    if isinstance(outcome, Receipt):
        return outcome.status
    if isinstance(outcome, DuplicateEvent):
        return "duplicate"
    if isinstance(outcome, OutcomeUnknown):
        return "unknown"
    return "failed" if isinstance(outcome, Exception) else "committed"
