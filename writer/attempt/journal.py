"""The journal of one call: the budgets of its retries, their count, and the report of each. No I/O.

The caller passes the time.
"""

import random
from collections.abc import Callable, Sequence
from itertools import islice
from time import perf_counter
from typing import Final
from uuid import UUID

from dsql_outbox.observability.facts import (
    AttemptEnded,
    AttemptOutcome,
    RetriesExhausted,
    RetryBudget,
    RetryScheduled,
    StoredCall,
    TransactionFailure,
    WriteEnded,
    WriteExhausted,
    WriteStatus,
)
from dsql_outbox.observability.hooks import Scopes
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import DuplicateEvent, OutcomeUnknown
from dsql_outbox.outbox.event.event_parser import ParsedEvent
from dsql_outbox.outbox.failure import RACES, DatabaseFailure, FailureKind
from dsql_outbox.outbox.message import subject_key
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.unit_of_work.budget import Budget, Spending
from dsql_outbox.writer.budgets import CONFLICT, REASONS, SCHEMA_CHANGE

NAMED: Final = 16
"""The largest number of entities that the facts of a conflict name."""


def attempt_outcome(failure: DatabaseFailure | None) -> AttemptOutcome:
    """Return the name, in facts, of an attempt with this failure or with none."""
    if failure is None:
        return "committed"
    if failure.kind in RACES:
        return "conflict"
    return "in_doubt" if failure.kind is FailureKind.IN_DOUBT else "failed"


class Journal(Spending):
    """What one call, with the id `call_id` in facts, spends on its retries, and reports of them.

    `attempts` is the number of attempts that were started. `events` are the events of the latest
    one, whose entities the facts of a conflict name. Times of attempts are nanoseconds since the
    Unix epoch.
    """

    __slots__ = ("_call_id", "_database", "_waited", "attempts", "began", "events", "scopes")

    def __init__(  # noqa: PLR0913 - the parts of a call
        self,
        call_id: UUID,
        scopes: Scopes,
        database: Database,
        budgets: Sequence[Budget],
        deadline: float | None,
        *,
        events: Sequence[ParsedEvent] = (),
        random: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(budgets, deadline, random)
        self.attempts = 0
        self.events = events
        self.scopes = scopes
        self._call_id = call_id
        self._database = database
        self._waited = 0.0
        self.began = perf_counter()
        """When the call began; one time for all events of a transaction of `write_many`."""

    @property
    def stored_call(self) -> StoredCall:
        """The call as its last attempt has stored its events."""
        return StoredCall(perf_counter() - self.began, self._waited, self.conflicts > 0)

    @property
    def conflicts(self) -> int:
        """The number of conflicts that were retried or given up, with data or with the schema."""
        return self.count(SCHEMA_CHANGE) + self.count(CONFLICT)

    @property
    def is_last_try(self) -> bool:
        """Whether the next attempt is the last one if it ends in a conflict."""
        times = self._budgets[CONFLICT].times
        return times is not None and self.count(CONFLICT) >= times

    @property
    def budget(self) -> RetryBudget | None:
        """The budget that the last failure counts against."""
        if self.last is None:
            return None
        limit = self._budgets[self.last].limit
        return RetryBudget(REASONS[self.last], self.used, limit, self.left)

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

    def count_attempt(self) -> None:
        """Record that another attempt starts."""
        self.attempts += 1

    def tell_attempt(
        self,
        outcome: AttemptOutcome,
        started_ns: int,
        ended_ns: int,
        failure: DatabaseFailure | None = None,
        *,
        is_one_of: bool = False,
    ) -> None:
        """Report the end of an attempt. `is_one_of`: a `WritesStored` reports it too."""
        waited, self._waited = self._waited, 0.0
        if is_one_of and self.scopes.is_quiet:
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
            entities=self._entities(failure),
        )
        (self.scopes.tell_each if is_one_of else self.scopes)(fact)

    def record_wait(self, seconds: float) -> None:
        """Record that another attempt follows after `seconds`."""
        self._waited = seconds

    def tell_retry(
        self, failure: DatabaseFailure, events: int = 1, first: UUID | None = None
    ) -> None:
        """Report, after `record_wait`, that a transaction of `events` events is tried again.

        `first` is the id of one of them, if the call has no event's id.
        """
        fact, event_id = self.as_fact(failure), first or self._call_id
        entities = self._entities(failure)
        self.scopes(RetryScheduled(event_id, self.attempts, self._waited, fact, events, entities))

    def tell_end_of_retries(
        self, failure: DatabaseFailure, events: int = 1, first: UUID | None = None
    ) -> None:
        """Report that a transaction of `events` events is not tried again."""
        fact, event_id = self.as_fact(failure), first or self._call_id
        cut_short = self.is_cut_short
        entities = self._entities(failure)
        self.scopes(RetriesExhausted(event_id, self.attempts, fact, events, cut_short, entities))

    def tell_exhausted(self, failure: DatabaseFailure) -> None:
        """Report that the retries of this call are exhausted."""
        error = type(failure.error).__name__
        self.scopes(WriteExhausted(self._call_id, self.attempts, error, failure.sqlstate))

    def tell_ended(self, outcome: object, *, is_one_of: bool = False) -> None:
        """Report that the call has ended with a receipt or value, or with an exception."""
        if is_one_of and self.scopes.is_quiet:
            return
        error = type(outcome).__name__ if isinstance(outcome, Exception) else None
        fact = self._end(_status_of(outcome), error)
        (self.scopes.tell_each if is_one_of else self.scopes)(fact)

    def tell_abandoned(self, error: BaseException, *, in_doubt: bool) -> None:
        """Report the end of a call whose caller is gone, as by cancellation."""
        self.scopes(self._end("unknown" if in_doubt else "failed", type(error).__name__))

    def _entities(self, failure: DatabaseFailure | None) -> tuple[str, ...]:
        """Return the entities of a conflict: the database does not say which of them conflicted."""
        # Only this kind is about entities: OC001 is about a table, a collision about an event's id.
        if failure is None or failure.kind is not FailureKind.CONFLICT:
            return ()
        touches = (touch for event in self.events for touch in event.touches)
        keys = dict.fromkeys(subject_key(each.entity_type, each.entity_id) for each in touches)
        return tuple(islice(keys, NAMED))

    def _end(self, status: WriteStatus, error: str | None) -> WriteEnded:
        seconds = perf_counter() - self.began
        return WriteEnded(self._call_id, status, self.attempts, self.conflicts, error, seconds)


def _status_of(outcome: object) -> WriteStatus:
    if isinstance(outcome, Receipt):
        return outcome.status
    if isinstance(outcome, DuplicateEvent):
        return "duplicate"
    if isinstance(outcome, OutcomeUnknown):
        return "unknown"
    return "failed" if isinstance(outcome, Exception) else "committed"
