"""One call of `transact`: what is known between its runs, without any I/O.

A run that is lost at COMMIT may be committed or not. Every run writes under an
id of its own (`write_id`), so a look-up of the event that the lost run appended
first tells which run it was. That same event must be the first of the next run
too: then no two runs can both commit.
"""

import inspect
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from time import time_ns
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4, uuid5

import psycopg

from dsql_outbox.observability import (
    AttemptEnded,
    AttemptOutcome,
    RetryScheduled,
    WriteEnded,
    WriteExhausted,
    WriteStarted,
    WriteStatus,
)
from dsql_outbox.outbox import (
    RACES,
    DatabaseFailure,
    DuplicateEvent,
    FailureKind,
    OutcomeUnknown,
    TransactionMisused,
)
from dsql_outbox.writer.attempt.backoff import Backoff
from dsql_outbox.writer.attempt.pending import Found, attempt_outcome
from dsql_outbox.writer.core import Core, Job

from .run import Run

T = TypeVar("T")


class Call(Generic[T]):
    """One call of `transact`; at its end there is a value, or an error to raise."""

    def __init__(self, core: Core, job: Job, function: Callable[[Any], Any]) -> None:
        self.core = core
        self.function = function
        self.fence: UUID | None = None
        """The first event of a run in doubt."""
        self.in_doubt = False
        self.is_open = True
        self.fingerprints: dict[UUID, bytes] = {}
        self.winner: Run[T] | None = None
        self.error: Exception | None = None
        self._id = uuid4()
        self._job = job
        self._runs = 0
        self._running: Run[T] | None = None
        self._waited = 0.0
        self._lost: dict[str, Run[T]] = {}
        self._backoff = Backoff(core.settings, job.deadline, random.random)
        self.scopes = core.scopes(WriteStarted(self.id, "transact", "transact", "", 0))

    @property
    def id(self) -> UUID:
        """Names the call in facts: the id of the first event that `new_event` makes."""
        return self.event_id(0)

    @property
    def conflicts(self) -> int:
        """Runs that ended in a conflict so far."""
        return self._backoff.conflicts

    @property
    def is_settled(self) -> bool:
        """Whether the call has ended."""
        return self.winner is not None or self.error is not None

    def event_id(self, ordinal: int) -> UUID:
        """The id of the event that a run makes as its `ordinal`-th, from 0."""
        return uuid5(self._id, str(ordinal))

    def require_fence(self, first: UUID | None) -> None:
        """Raise `OutcomeUnknown` if this run could commit beside one in doubt."""
        if self.in_doubt and first != self.fence:
            raise self.unknown(
                "an earlier run may have been committed, and this one appends another event first"
            )

    def begin(self) -> Run[T]:
        """Another run starts."""
        self._runs += 1
        self._running = Run(self, self._runs)
        return self._running

    def committed(self, run: Run[T]) -> None:
        """The run is committed."""
        self.winner = run
        self._run_ended(run, "committed")
        self._win(run)

    def resolve(self, found: Found | None, event_id: UUID) -> None:
        """What a look-up of one event says: one of our runs, somebody else's, or nothing."""
        if found is None:
            return
        if found.write_id in self._lost:
            if self._running is not None:
                self._run_ended(self._running, "resolved")
            self._win(self._lost[found.write_id])
        else:
            same = found.fingerprint == self.fingerprints[event_id]
            self.settle(DuplicateEvent(event_id, same_content=same))

    def failed(self, run: Run[T], failure: DatabaseFailure) -> None:
        """The run failed; one in doubt leaves the whole call in doubt."""
        if failure.kind is FailureKind.IN_DOUBT:
            self.in_doubt, self.fence = True, run.first
            self._lost[run.write_id] = run
        self._run_ended(run, attempt_outcome(failure), failure)

    def next_wait(self, failure: DatabaseFailure, now: float) -> float | None:
        """Seconds until another run, or None if there is none."""
        wait = self._backoff.next_wait(failure, now)
        error, sqlstate = type(failure.error).__name__, failure.sqlstate
        if wait is None:
            retries = self._backoff.max_retries
            self.scopes(WriteExhausted(self.id, self._runs, retries, error, sqlstate))
            return None
        self._waited = wait
        self.scopes(
            RetryScheduled(
                event_id=self.id,
                attempt=self._runs,
                max_retries=self._backoff.max_retries,
                wait_s=wait,
                error=error,
                sqlstate=sqlstate,
                oc_class=failure.oc_class,
                conflict=failure.kind in RACES,
            )
        )
        return wait

    def give_up(self, error: Exception) -> None:
        """Nothing more is tried: the last error, or that nothing is known."""
        if self.in_doubt and not isinstance(error, OutcomeUnknown):
            unknown = self.unknown("an earlier run may have been committed")
            unknown.__cause__ = error
            error = unknown
        elif isinstance(error, psycopg.Error):
            error.add_note(
                f"transact has stored nothing: attempts {self._runs}, conflicts {self.conflicts}"
            )
        self.settle(error)

    def settle(self, error: Exception) -> None:
        """End the call with an error."""
        self.error = error
        status: WriteStatus = "failed"
        if isinstance(error, OutcomeUnknown):
            status = "unknown"
        elif isinstance(error, DuplicateEvent):
            status = "duplicate"
        self._tell_ended(status, error)

    def abandon(self, error: BaseException) -> None:
        """The caller is gone, as by cancellation: a COMMIT that was sent may still work."""
        if not self.is_settled:
            unknown = self.in_doubt or (self._running is not None and self._job.sent)
            self._tell_ended("unknown" if unknown else "failed", error)

    def broken(self, error: Exception) -> None:
        """A defect of our own code ended the steps: a COMMIT that was sent may have worked."""
        if not self.is_settled:
            self.in_doubt = self.in_doubt or self._job.sent
            self.give_up(error)

    def result(self) -> T:
        """What the committed run's function returned; raises the call's error instead."""
        if self.winner is None:
            assert self.error is not None  # noqa: S101 - the steps end only when settled
            raise self.error
        return self.winner.value  # type: ignore[return-value]  # set before it is committed

    def unknown(self, why: str) -> OutcomeUnknown:
        """The error that says so; without an append it names the call."""
        unknown = OutcomeUnknown(self.fence or self.id)
        unknown.add_note(f"transact: {why}")
        return unknown

    def _win(self, run: Run[T]) -> None:
        self.winner = run
        self._tell_ended("committed", None)

    def _run_ended(
        self, run: Run[T], outcome: AttemptOutcome, failure: DatabaseFailure | None = None
    ) -> None:
        self._running = None
        self.scopes(
            AttemptEnded(
                event_id=self.id,
                number=run.number,
                waited_s=self._waited,
                started_ns=run.started_ns,
                ended_ns=time_ns(),
                outcome=outcome,
                error=type(failure.error).__name__ if failure else None,
                sqlstate=failure.sqlstate if failure else None,
                oc_class=failure.oc_class if failure else None,
            )
        )

    def _tell_ended(self, status: WriteStatus, error: BaseException | None) -> None:
        name = type(error).__name__ if error is not None else None
        self.scopes(WriteEnded(self.id, status, self._runs, self.conflicts, name))


_open: ContextVar[tuple[Call[Any], ...]] = ContextVar("dsql_outbox_transact", default=())
"""The calls whose functions are running here; a task that one of them starts inherits them."""


def require_outermost(core: Core, method: str) -> None:
    """Refuse a call inside a `transact` of the same writer; raises `TransactionMisused`."""
    if any(call.core is core and call.is_open for call in _open.get()):
        raise TransactionMisused(
            f"{method} inside transact of the same writer would be another transaction: "
            "use the connection and append of the one that is open"
        )


def require_plain(function: Callable[[Any], object]) -> None:
    """Refuse what would not run when it is called; raises `TypeError`."""
    lazy = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    if any(is_lazy(function) for is_lazy in lazy):
        raise TypeError(
            "Writer.transact calls a plain function: give one that is `async def` to "
            "AsyncWriter.transact, and none that yields"
        )


@contextmanager
def opened(call: Call[Any]) -> Generator[None]:
    """Make `call` the innermost one, and its span the current one."""
    token = _open.set((*_open.get(), call))
    try:
        with call.scopes:
            yield
    finally:
        call.is_open = False
        _open.reset(token)
