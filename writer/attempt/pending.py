"""One event that is being written: its state between attempts, and its outcome."""

from collections.abc import Callable
from typing import Literal

import msgspec

from dsql_outbox.observability import (
    AttemptEnded,
    AttemptOutcome,
    RetryScheduled,
    Scopes,
    WriteEnded,
    WriteExhausted,
    WriteStatus,
)
from dsql_outbox.outbox import (
    RACES,
    RETRIED,
    DatabaseFailure,
    DuplicateEvent,
    FailureKind,
    OutcomeUnknown,
    Receipt,
    StaleVersion,
    Touched,
)
from dsql_outbox.writer.statement.parameters import PreparedEvent

from .backoff import Backoff

OnDuplicate = Literal["error", "return"]

WriteOutcome = Receipt | Exception
"""The outcome of a call: its receipt, or the exception that its caller gets."""


def attempt_outcome(failure: DatabaseFailure | None) -> AttemptOutcome:
    """Return the name, in facts, of an attempt with this failure or with none."""
    if failure is None:
        return "committed"
    if failure.kind in RACES:
        return "conflict"
    return "in_doubt" if failure.kind is FailureKind.IN_DOUBT else "failed"


class Stored(msgspec.Struct, frozen=True):
    """A written event: the position of its subject, and the version of each touch, in order."""

    position: int
    versions: tuple[int, ...]


class Found(msgspec.Struct, frozen=True):
    """A stored event that a look-up found. `write_id` (hex) identifies the call that wrote it."""

    write_id: str
    fingerprint: bytes
    position: int
    entities: tuple[Touched, ...]


class Pending:
    """A call to write one event. `outcome` is set when the call is settled.

    `settled` is called with the outcome at that time, even if other events of the batch
    are not settled.
    """

    def __init__(
        self,
        prepared: PreparedEvent,
        backoff: Backoff,
        scopes: Scopes,
        *,
        on_duplicate: OnDuplicate,
        settled: Callable[[WriteOutcome], None] | None = None,
    ) -> None:
        self.prepared = prepared
        self.id = prepared.event.id
        self.scopes = scopes
        self.entities = {(t.entity_type, t.entity_id) for t in prepared.event.touches}
        self.in_doubt = False
        self.outcome: WriteOutcome | None = None
        self._attempts = 0
        self._waited = 0.0
        self._trying = False
        self._abandoned = False
        self._backoff = backoff
        self._on_duplicate = on_duplicate
        self._settled = settled

    @property
    def is_last_try(self) -> bool:
        """Whether the next attempt is the last one if it ends in a conflict."""
        return self._backoff.conflicts >= self._backoff.max_retries

    @property
    def was_tried(self) -> bool:
        """Whether an attempt has begun."""
        return self._attempts > 0

    def touches_subject_of(self, other: "Pending") -> bool:
        """Return whether this event touches the subject of the other event."""
        subject = other.prepared.event.touches[0]
        key = (subject.entity_type, subject.entity_id)
        return any((t.entity_type, t.entity_id) == key for t in self.prepared.event.touches)

    def begin(self) -> None:
        """Record that another attempt starts."""
        self._attempts += 1
        self._trying = True

    def failed(self, failure: DatabaseFailure, started_ns: int, ended_ns: int) -> None:
        """Record a failed attempt. If it is in doubt, the call stays in doubt."""
        self.in_doubt = self.in_doubt or failure.kind is FailureKind.IN_DOUBT
        self._attempt_ended(attempt_outcome(failure), started_ns, ended_ns, failure)

    def stored(self, stored: Stored, started_ns: int, ended_ns: int) -> None:
        """Settle the call with the receipt of a committed attempt."""
        self._attempt_ended("committed", started_ns, ended_ns)
        touched = zip(self.prepared.event.touches, stored.versions, strict=True)
        entities = [Touched(t.entity_type, t.entity_id, version) for t, version in touched]
        self.settle(self._receipt("committed", stored.position, tuple(entities)))

    def resolved(self, found: Found, started_ns: int, ended_ns: int) -> None:
        """Settle the call: the look-up at the start of an attempt found the event."""
        self._attempt_ended("resolved", started_ns, ended_ns)
        self.found(found)

    def found(self, found: Found) -> None:
        """Settle the call: an event of this id is stored, by this call or by an earlier one."""
        if found.write_id == self.prepared.write_id:
            self.settle(self._receipt("committed", found.position, found.entities))
            return
        same = found.fingerprint == self.prepared.event.fingerprint
        if same and self._on_duplicate == "return":
            self.settle(self._receipt("duplicate", found.position, found.entities))
        else:
            self.settle(DuplicateEvent(self.id, same_content=same))

    def stale(self, actual: int, failure: DatabaseFailure) -> None:
        """Settle the call: the subject was at version `actual`, which was not expected.

        Versions only rise. If the subject is beyond the expected version, a lost
        attempt can no longer commit. If it is below, a lost attempt still may, so the
        outcome is unknown.
        """
        expected = self.prepared.expected_version or 0
        if self.in_doubt and actual < expected:
            self.settle(self._last_word(failure.error))
        else:
            self.settle(StaleVersion(self.id, expected=expected, actual=actual))

    def next_wait(self, failure: DatabaseFailure, now: float) -> float | None:
        """Return the seconds until another attempt, or settle the call and return None."""
        wait = None
        if failure.kind in RETRIED:
            wait = self._backoff.next_wait(failure, now)
            if wait is None:
                self._tell_exhausted(failure)
        if wait is None:
            self.settle(self._last_word(failure.error))
        return wait

    def waits(self, failure: DatabaseFailure, seconds: float) -> None:
        """Report that another attempt follows after `seconds`."""
        self._waited = seconds
        self.scopes(
            RetryScheduled(
                event_id=self.id,
                attempt=self._attempts,
                max_retries=self._backoff.max_retries,
                wait_s=seconds,
                error=type(failure.error).__name__,
                sqlstate=failure.sqlstate,
                oc_class=failure.oc_class,
                conflict=failure.kind in RACES,
            )
        )

    def settle(self, outcome: WriteOutcome) -> None:
        """End the call with this outcome."""
        self.outcome = outcome
        error = type(outcome).__name__ if isinstance(outcome, Exception) else None
        try:
            self._tell_ended(self._status_of(outcome), error)
        finally:
            if self._settled is not None:
                self._settled(outcome)

    def broken(self, error: Exception) -> None:
        """Settle the call after a defect of the library or a hook. A sent write may be stored."""
        if self.outcome is None:
            self.in_doubt = self.in_doubt or self._trying
            self.settle(self._last_word(error))

    def abandon(self, error: BaseException) -> None:
        """Report the end of a call whose caller is gone, as by cancellation.

        A write that was sent may still commit.
        """
        if self.outcome is None and not self._abandoned:
            self._abandoned = True
            unknown = self.in_doubt or self._trying
            self._tell_ended("unknown" if unknown else "failed", type(error).__name__)

    def _status_of(self, outcome: WriteOutcome) -> WriteStatus:
        if isinstance(outcome, Receipt):
            return outcome.status
        if isinstance(outcome, DuplicateEvent):
            return "duplicate"
        return "unknown" if isinstance(outcome, OutcomeUnknown) else "failed"

    def _last_word(self, error: Exception) -> Exception:
        """Return `OutcomeUnknown` if the call is in doubt, else the driver's exception."""
        if self.in_doubt:
            unknown = OutcomeUnknown(self.id)
            unknown.__cause__ = error
            return unknown
        error.add_note(
            f"event {self.id} was not stored by this call: "
            f"attempts {self._attempts}, conflicts {self._backoff.conflicts}"
        )
        return error

    def _receipt(
        self,
        status: Literal["committed", "duplicate"],
        position: int,
        entities: tuple[Touched, ...],
    ) -> Receipt:
        return Receipt(
            event_id=self.id,
            status=status,
            attempts=self._attempts,
            conflicts=self._backoff.conflicts,
            position=position,
            entities=entities,
        )

    def _attempt_ended(
        self,
        outcome: AttemptOutcome,
        started_ns: int,
        ended_ns: int,
        failure: DatabaseFailure | None = None,
    ) -> None:
        self.scopes(
            AttemptEnded(
                event_id=self.id,
                number=self._attempts,
                waited_s=self._waited,
                started_ns=started_ns,
                ended_ns=ended_ns,
                outcome=outcome,
                error=type(failure.error).__name__ if failure else None,
                sqlstate=failure.sqlstate if failure else None,
                oc_class=failure.oc_class if failure else None,
            )
        )
        self._trying, self._waited = False, 0.0

    def _tell_ended(self, status: WriteStatus, error: str | None) -> None:
        self.scopes(WriteEnded(self.id, status, self._attempts, self._backoff.conflicts, error))

    def _tell_exhausted(self, failure: DatabaseFailure) -> None:
        self.scopes(
            WriteExhausted(
                event_id=self.id,
                attempts=self._attempts,
                max_retries=self._backoff.max_retries,
                error=type(failure.error).__name__,
                sqlstate=failure.sqlstate,
            )
        )
