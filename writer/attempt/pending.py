"""The write of one event for a caller: its state between attempts, and its outcome."""

from collections.abc import Callable, Sequence
from os import urandom
from typing import Literal

import psycopg

from dsql_outbox.observability.hooks import Scopes
from dsql_outbox.outbox.errors import DuplicateEvent, OutcomeUnknown, StaleVersion
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.failure import RETRIED, DatabaseFailure, FailureKind
from dsql_outbox.outbox.receipt import Receipt, Touched
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.answers import Found, Stored, touched_entities
from dsql_outbox.writer.statement.parameters import PreparedEvent

from .journal import Journal, attempt_outcome

OnDuplicate = Literal["error", "return"]

WriteOutcome = Receipt | Exception
"""The outcome of a call: its receipt, or the exception that its caller gets."""


class Pending:
    """The write of one event, which is a call of its own for its caller, also in `write_many`.

    `outcome` is set when the call is settled. `on_settled` is called with the outcome at that
    time, even if other events of the batch are not settled. `journal` counts and reports the
    attempts.

    `is_sent` is True from the time when the gate admits the event until the result of that
    attempt is known. `in_doubt` is True after an attempt whose result stays unknown. `is_open`
    is True while the event takes part in the next attempt: until the call is settled, or left
    by cancellation.
    """

    __slots__ = (
        "_on_duplicate",
        "_on_settled",
        "id",
        "in_doubt",
        "is_open",
        "is_sent",
        "journal",
        "outcome",
        "prepared",
        "scopes",
    )

    def __init__(
        self,
        prepared: PreparedEvent,
        journal: Journal,
        *,
        on_duplicate: OnDuplicate,
        on_settled: Callable[[WriteOutcome], None] | None = None,
    ) -> None:
        self.prepared = prepared
        self.id = prepared.event.id
        self.scopes = journal.scopes
        self.in_doubt = False
        self.is_sent = False
        self.is_open = True
        self.outcome: WriteOutcome | None = None
        self.journal = journal
        self._on_duplicate = on_duplicate
        self._on_settled = on_settled

    @property
    def deadline(self) -> float | None:
        """The deadline of the call, a time of the monotonic clock, or None."""
        return self.journal.deadline

    @property
    def may_be_stored(self) -> bool:
        """Whether an attempt of this call may have stored the event, or may still do so."""
        return self.is_sent or self.in_doubt

    @property
    def entities(self) -> set[tuple[str, str]]:
        """The types and ids of the entities that the event touches."""
        return {(touch.entity_type, touch.entity_id) for touch in self.prepared.event.touches}

    def touches_subject_of(self, other: "Pending") -> bool:
        """Return whether this event touches the subject of the other event."""
        subject = other.prepared.event.touches[0]
        key = (subject.entity_type, subject.entity_id)
        return any((t.entity_type, t.entity_id) == key for t in self.prepared.event.touches)

    def record_failure(self, failure: DatabaseFailure, started_ns: int, ended_ns: int) -> None:
        """Record a failed attempt. If it is in doubt, the call stays in doubt."""
        self.in_doubt = self.in_doubt or failure.kind is FailureKind.IN_DOUBT
        self.journal.tell_attempt(attempt_outcome(failure), started_ns, ended_ns, failure)
        self.is_sent = False  # after the hooks: one that raises leaves the call in doubt

    def settle_stored(self, stored: Stored, started_ns: int, ended_ns: int) -> None:
        """Settle the call with the receipt of a committed attempt."""
        self.journal.tell_attempt("committed", started_ns, ended_ns, is_one_of=True)
        entities = touched_entities(self.prepared, stored)
        self.settle(self._receipt("committed", stored.position, entities), is_one_of=True)

    def settle_resolved(self, found: Found, started_ns: int, ended_ns: int) -> None:
        """Settle the call: the look-up at the start of an attempt found the event."""
        self.journal.tell_attempt("resolved", started_ns, ended_ns)
        self.settle_found(found)

    def settle_found(self, found: Found) -> None:
        """Settle the call: an event of this id is stored, by this call or by an earlier one."""
        if found.write_id == self.prepared.write_id:
            self.settle(self._receipt("committed", found.position, found.entities))
            return
        same = found.has_content(self.prepared.event.fingerprint)
        if same and self._on_duplicate == "return":
            self.settle(self._receipt("duplicate", found.position, found.entities))
        else:
            self.settle(DuplicateEvent(self.id, same_content=same))

    def settle_stale(self, actual: int, failure: DatabaseFailure) -> None:
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

    def give_up(self, failure: DatabaseFailure) -> None:
        """Settle the call with the failure of its last attempt."""
        if failure.kind in RETRIED:
            self.journal.tell_exhausted(failure)
        self.settle(self._last_word(failure.error))

    def settle(self, outcome: WriteOutcome, *, is_one_of: bool = False) -> None:
        """End the call with this outcome. `is_one_of`: a `WritesStored` reports it too."""
        self.outcome, self.is_open = outcome, False
        try:
            self.journal.tell_ended(outcome, is_one_of=is_one_of)
        finally:  # a hook that raises must not leave the caller waiting
            if self._on_settled is not None:
                self._on_settled(outcome)

    def receipt(self) -> Receipt:
        """Return the receipt of a settled call, or raise its exception."""
        if isinstance(self.outcome, Receipt):
            return self.outcome
        assert self.outcome is not None  # noqa: S101 - `settle` ends after every event is settled
        raise self.outcome

    def fail(self, error: Exception) -> None:
        """Settle the call after a defect of the library or a hook. A sent write may be stored."""
        if self.is_open:
            self.in_doubt = self.may_be_stored
            self.settle(self._last_word(error))

    def expire(self) -> bool:
        """End the call at its deadline and return True, or return False if its event is on its way.

        The event is not stored, or its outcome is unknown because of an earlier attempt.
        """
        if self.is_open and not self.is_sent:
            self.settle(
                self._last_word(
                    psycopg.OperationalError(
                        f"event {self.id} is not stored: "
                        "its turn did not come before the deadline of the call"
                    )
                )
            )
        return not self.is_open

    def abandon(self, error: BaseException) -> None:
        """Report the end of a call whose caller is gone, as by cancellation.

        A write that was sent may still commit.
        """
        if self.is_open:
            self.is_open = False
            self.journal.tell_abandoned(error, in_doubt=self.may_be_stored)

    def _last_word(self, error: Exception) -> Exception:
        """Return `OutcomeUnknown` if the call is in doubt, else the driver's exception."""
        if self.in_doubt:
            unknown = OutcomeUnknown(self.id)
            unknown.__cause__ = error
            return unknown
        error.add_note(
            f"event {self.id} was not stored by this call: "
            f"attempts {self.journal.attempts}, conflicts {self.journal.conflicts}"
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
            attempts=self.journal.attempts,
            conflicts=self.journal.conflicts,
            position=position,
            entities=entities,
        )


def pend(  # noqa: PLR0913 - one argument per part of the call
    core: Core,
    source: EventSource,
    gate: Gate,
    *,
    on_duplicate: OnDuplicate,
    expected_version: int | None,
    on_settled: Callable[[WriteOutcome], None] | None = None,
    quiet: Scopes | None = None,
) -> Pending:
    """Check an event of a caller and prepare its write. Raises `InvalidEvent`.

    `quiet` are the scopes of a call of many events, if they are quiet (`Core.quiet_scopes`).
    """
    event, topic = core.parse(source)
    scopes = quiet or core.start_scopes(event, topic)
    return Pending(
        core.prepare(event, topic, urandom(16).hex(), scopes, expected_version),
        Journal(event.id, scopes, core.database, core.budgets, gate.deadline, events=(event,)),
        on_duplicate=on_duplicate,
        on_settled=on_settled,
    )


def still_open(batch: Sequence[Pending]) -> list[Pending]:
    """Return the events of a batch whose calls have not ended, in order."""
    return [pending for pending in batch if pending.is_open]
