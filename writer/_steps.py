"""One write call as a sequence of steps, without any I/O.

A generator decides; its driver (`Writer` or `AsyncWriter`) does. The generator
yields what is to be done next and is sent what came of it, so threads and
tasks share every decision.

Once an attempt is in doubt, the call can only end in a receipt,
`DuplicateEvent` or `OutcomeUnknown`: a look-up that finds nothing proves
nothing, as the lost statement may still reach the server. Every later attempt
looks the event up first and then inserts the same id again; whichever insert
comes second collides, and the collision is looked up.
"""

from collections.abc import Callable, Generator
from time import time_ns
from typing import Literal
from uuid import UUID

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
from dsql_outbox.outbox import DuplicateEvent, OutcomeUnknown, Receipt, Touched

from ._backoff import Backoff
from ._classify import Failure, Kind, classify

OnDuplicate = Literal["error", "return"]


class Attempt(msgspec.Struct, frozen=True):
    """Run the write; if `look_first`, only when the event is not there yet."""

    number: int
    look_first: bool


class LookUp(msgspec.Struct, frozen=True):
    """Read what is stored under the event's id."""


class Wait(msgspec.Struct, frozen=True):
    """Let `seconds` pass, holding nothing."""

    seconds: float


class Stored(msgspec.Struct, frozen=True):
    """The write committed: the subject's position and each touch's version, in order."""

    position: int
    versions: tuple[int, ...]


class Found(msgspec.Struct, frozen=True):
    """What is stored under the id: whose write it was, and what its receipt says."""

    write_id: UUID
    fingerprint: bytes
    position: int
    entities: tuple[Touched, ...]


class Absent(msgspec.Struct, frozen=True):
    """Nothing is stored under the id, as far as a look-up can tell."""


class Failed(msgspec.Struct, frozen=True):
    """The step raised; `sent` tells whether the write may have reached the server."""

    error: Exception
    sent: bool


Step = Attempt | LookUp | Wait
Result = Stored | Found | Absent | Failed | None
Steps = Generator[Step, Result, Receipt]


class Call(msgspec.Struct, frozen=True):
    """What one write call is about."""

    event_id: UUID
    fingerprint: bytes
    write_id: UUID
    entities: tuple[tuple[str, str], ...]
    on_duplicate: OnDuplicate
    max_retries: int


def write_steps(
    call: Call, backoff: Backoff, emit: Scopes, monotonic: Callable[[], float]
) -> Steps:
    """The steps of one write call; returns its receipt or raises what the caller gets."""
    run = _Run(call, backoff, emit, monotonic)
    try:
        receipt = yield from run.steps()
    except BaseException as error:
        emit(run.ended(run.status_of(error), type(error).__name__))
        raise
    emit(run.ended(receipt.status, None))
    return receipt


class _Run:
    """The state of one call between its attempts."""

    def __init__(
        self, call: Call, backoff: Backoff, emit: Scopes, monotonic: Callable[[], float]
    ) -> None:
        self._call = call
        self._backoff = backoff
        self._emit = emit
        self._monotonic = monotonic
        self._attempts = 0
        self._in_doubt = False
        self._sending = False
        self._waited = 0.0

    def steps(self) -> Steps:
        while True:
            self._attempts += 1
            started = time_ns()
            self._sending = True
            result = yield Attempt(self._attempts, look_first=self._in_doubt)
            self._sending = False
            if isinstance(result, Stored):
                self._attempt_ended(started, "committed")
                return self._receipt(result)
            if isinstance(result, Found):
                self._attempt_ended(started, "resolved")
                return self._settle(result)
            failure = self._classified(result)
            self._attempt_failed(started, failure)
            if failure.kind is Kind.COLLISION:
                found = yield LookUp()
                if isinstance(found, Found):
                    return self._settle(found)
                failure = self._after_look_up(found, failure)
            yield from self._wait_or_raise(failure)

    def _wait_or_raise(self, failure: Failure) -> Generator[Step, Result, None]:
        if failure.kind is Kind.FATAL:
            raise self._last_word(failure.error) from self._cause(failure.error)
        wait = self._backoff.next_wait(failure, self._monotonic())
        if wait is None:
            self._exhausted(failure)
            raise self._last_word(failure.error) from self._cause(failure.error)
        self._retry_scheduled(failure, wait)
        yield Wait(wait)
        self._waited = wait

    def _classified(self, result: Result) -> Failure:
        if not isinstance(result, Failed):
            raise TypeError(f"an attempt cannot end in {result!r}")
        failure = classify(result.error, sent=result.sent)
        if failure.kind is Kind.IN_DOUBT and not result.sent:
            failure = failure._replace(kind=Kind.OUTAGE)
        self._in_doubt = self._in_doubt or failure.kind is Kind.IN_DOUBT
        return failure

    def _after_look_up(self, found: Result, collision: Failure) -> Failure:
        """A collision with another id is a conflict; a look-up that failed is an outage."""
        if isinstance(found, Failed):
            return self._classified(Failed(found.error, sent=False))
        return collision

    def _settle(self, found: Found) -> Receipt:
        """The id is taken: by this very call, or by somebody before it."""
        if found.write_id == self._call.write_id:
            return self._receipt_of(found, "committed")
        if self._call.on_duplicate == "return":
            return self._receipt_of(found, "duplicate")
        same = found.fingerprint == self._call.fingerprint
        raise DuplicateEvent(self._call.event_id, same_content=same)

    def _last_word(self, error: Exception) -> Exception:
        """The driver's own exception, or that nothing is known."""
        if self._in_doubt:
            return OutcomeUnknown(self._call.event_id)
        error.add_note(
            f"event {self._call.event_id} was not stored by this call: "
            f"attempts {self._attempts}, conflicts {self._backoff.conflicts}"
        )
        return error

    def _cause(self, error: Exception) -> BaseException | None:
        return error if self._in_doubt else error.__cause__

    def status_of(self, error: BaseException) -> WriteStatus:
        """What a caller may assume after `error`."""
        if isinstance(error, DuplicateEvent):
            return "duplicate"
        interrupted = self._sending and not isinstance(error, Exception)
        return "unknown" if self._in_doubt or interrupted else "failed"

    def ended(self, status: WriteStatus, error: str | None) -> WriteEnded:
        """The fact that closes the call."""
        return WriteEnded(
            self._call.event_id, status, self._attempts, self._backoff.conflicts, error
        )

    def _receipt(self, stored: Stored) -> Receipt:
        entities = tuple(
            Touched(entity_type, entity_id, version)
            for (entity_type, entity_id), version in zip(
                self._call.entities, stored.versions, strict=True
            )
        )
        return self._make_receipt("committed", stored.position, entities)

    def _receipt_of(self, found: Found, status: Literal["committed", "duplicate"]) -> Receipt:
        return self._make_receipt(status, found.position, found.entities)

    def _make_receipt(
        self,
        status: Literal["committed", "duplicate"],
        position: int,
        entities: tuple[Touched, ...],
    ) -> Receipt:
        return Receipt(
            event_id=self._call.event_id,
            status=status,
            attempts=self._attempts,
            conflicts=self._backoff.conflicts,
            position=position,
            entities=entities,
        )

    def _attempt_failed(self, started: int, failure: Failure) -> None:
        outcomes: dict[Kind, AttemptOutcome] = {
            Kind.CONFLICT: "conflict",
            Kind.COLLISION: "conflict",
            Kind.IN_DOUBT: "in_doubt",
        }
        self._attempt_ended(started, outcomes.get(failure.kind, "failed"), failure)

    def _attempt_ended(
        self, started: int, outcome: AttemptOutcome, failure: Failure | None = None
    ) -> None:
        self._emit(
            AttemptEnded(
                event_id=self._call.event_id,
                number=self._attempts,
                waited_s=self._waited,
                started_ns=started,
                ended_ns=time_ns(),
                outcome=outcome,
                error=type(failure.error).__name__ if failure else None,
                sqlstate=failure.sqlstate if failure else None,
                oc_class=failure.oc_class if failure else None,
            )
        )

    def _retry_scheduled(self, failure: Failure, wait: float) -> None:
        self._emit(
            RetryScheduled(
                event_id=self._call.event_id,
                attempt=self._attempts,
                max_retries=self._call.max_retries,
                wait_s=wait,
                error=type(failure.error).__name__,
                sqlstate=failure.sqlstate,
                oc_class=failure.oc_class,
                conflict=failure.kind in {Kind.CONFLICT, Kind.COLLISION},
            )
        )

    def _exhausted(self, failure: Failure) -> None:
        self._emit(
            WriteExhausted(
                event_id=self._call.event_id,
                attempts=self._attempts,
                max_retries=self._call.max_retries,
                error=type(failure.error).__name__,
                sqlstate=failure.sqlstate,
            )
        )
