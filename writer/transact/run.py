"""One run of the caller's function in one transaction: its state, without I/O."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import time_ns
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID, uuid4

import psycopg
from psycopg.pq import TransactionStatus

from dsql_outbox.observability import Scopes
from dsql_outbox.outbox import (
    EventSource,
    FailureKind,
    FunctionRun,
    OutcomeUnknown,
    ParsedEvent,
    Receipt,
    TransactionMisused,
    Verdict,
    kind_of,
)
from dsql_outbox.writer.attempt.pending import Pending
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.answers import Stored

from .append import appended, receipt_in_transaction

T = TypeVar("T")


class Caller(Protocol):
    """The part of `call.Call` that a run uses."""

    core: Core
    function: "Callable[[Run[Any], Any], Any]"
    fingerprints: dict[UUID, bytes]
    scopes: Scopes

    @property
    def conflicts(self) -> int:
        """The number of runs that ended in a conflict so far."""
        ...

    def event_id(self, ordinal: int) -> UUID:
        """Return the id of the `ordinal`-th event that a run makes, from 0."""
        ...

    def require_fence(self, first: UUID | None) -> None:
        """Raise `OutcomeUnknown` if this run could commit in addition to one in doubt."""
        ...


class Run(Generic[T]):
    """One run of the caller's function in one transaction."""

    def __init__(self, call: Caller, number: int) -> None:
        self.call = call
        self.number = number
        self.write_id = uuid4().hex
        self.first: UUID | None = None
        self.error: Exception | None = None
        """The error that `transact` raises if this is the last run. None: the driver's error."""
        self.is_callers_error = False
        """Whether the error comes from the caller's function, which is never retried."""
        self.watch = FunctionRun("transact")
        self.started_ns = time_ns()
        self.events: list[ParsedEvent] = []
        """The events that this run appends."""
        self.unfinished = 0
        """The number of appends that were called and have not finished."""
        self._made = 0
        self._appended: set[UUID] = set()
        self._collision: tuple[UUID, Exception] | None = None

    def next_event_id(self) -> UUID:
        """Return the next event id. Every run of a call gets the same ids in the same order."""
        self._made += 1
        return self.call.event_id(self._made - 1)

    def append(self, source: EventSource, expected_version: int | None, status: int) -> Pending:
        """Prepare an event of this run. `status` is the status of the transaction.

        Raises `InvalidEvent` or `TransactionMisused`. Raises `OutcomeUnknown` if an
        earlier run is in doubt and this run's first event is not the same as that run's.
        """
        self.require_running("append", status)
        call = self.call
        event, topic = call.core.parse(source)
        pending = appended(
            call.core,
            event,
            topic,
            self.write_id,
            call.scopes,
            expected_version=expected_version,
        )
        if self.first is None:
            call.require_fence(pending.id)
            self.first = pending.id
        call.fingerprints[pending.id] = event.fingerprint
        self.events.append(event)
        return pending

    def receipt(self, pending: Pending, stored: Stored) -> Receipt:
        """Return the receipt of an append. It is valid after the commit."""
        conflicts = self.call.conflicts
        return receipt_in_transaction(pending, stored, attempts=self.number, conflicts=conflicts)

    def require_running(self, method: str, status: int) -> None:
        """Raise `TransactionMisused` for a method of a transaction that has ended."""
        if self.watch.is_over:
            raise TransactionMisused(
                f"{method} after the transaction has ended: nothing was sent; "
                "call it before the function given to transact returns"
            )
        self.watch.admit(status)

    @contextmanager
    def appending(self, event_id: UUID, before: TransactionStatus) -> Generator[None]:
        """Record a unique violation of an append.

        Raises `TransactionMisused` if this run itself appended an event of that id before.
        A unique violation that is not recorded concerns a table of the caller.
        """
        self.watch.forget_undone(before)
        try:
            yield
        except psycopg.Error as error:
            if kind_of(error) is FailureKind.COLLISION:
                if event_id in self._appended:
                    self.watch.misuse = _appended_twice(event_id)
                    raise self.watch.misuse from None
                self._collision = event_id, error
            raise
        self._appended.add(event_id)

    def collided(self) -> UUID | None:
        """Return the event whose append violated a unique key, if that ended this run."""
        if self._collision is None or not self.watch.failures:
            return None
        event_id, error = self._collision
        return event_id if error is self.watch.failures[0] else None

    def end(self, raised: Exception | None) -> Exception | None:
        """Judge a run after the function returned or raised.

        Return None if the transaction is to be committed. Otherwise return the error that
        ended it: the first error of the connection, or an error of the caller.
        """
        if self.unfinished:
            self.watch.misuse = _not_awaited(self.unfinished)
        verdict = self.watch.end(raised)
        if verdict is None:
            try:
                self.call.require_fence(self.first)
            except OutcomeUnknown as unknown:
                verdict = Verdict(unknown, unknown, is_functions=True)
            else:
                return None
        self.error, self.is_callers_error = verdict.told, verdict.is_functions
        return verdict.error


def _appended_twice(event_id: UUID) -> TransactionMisused:
    return TransactionMisused(
        f"the function given to transact appended event {event_id} twice: nothing is stored; "
        "give each event an id of its own"
    )


def _not_awaited(appends: int) -> TransactionMisused:
    were = "append was" if appends == 1 else "appends were"
    return TransactionMisused(
        f"{appends} {were} not awaited before the function given to transact returned: "
        "nothing is stored; await each append"
    )
