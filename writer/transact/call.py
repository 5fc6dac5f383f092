"""One call of `transact`: its state between runs, without I/O.

A run whose COMMIT was lost is committed or not. Every run has a `write_id` of its
own. So a look-up of the first event that the lost run appended tells which run
stored it. The next run must append the same event first. Then two runs cannot both
commit, because the second one collides.
"""

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from time import time_ns
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4, uuid5

import psycopg

from dsql_outbox.observability import AttemptOutcome, WriteStarted
from dsql_outbox.outbox import (
    DatabaseFailure,
    DuplicateEvent,
    FailureKind,
    OutcomeUnknown,
    TransactionMisused,
)
from dsql_outbox.writer.attempt.journal import Journal, attempt_outcome
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.gate import Gate
from dsql_outbox.writer.statement.answers import Found

from .run import Run

T = TypeVar("T")


class Call(Generic[T]):
    """One call of `transact`. It ends with a committed run (`winner`) or with an `error`.

    `function` gets the run and its connection, and calls the function of the caller.
    """

    def __init__(self, core: Core, gate: Gate, function: Callable[[Run[T], Any], Any]) -> None:
        self.core = core
        self.function = function
        self.fence: UUID | None = None
        """The id of the first event of the run in doubt."""
        self.in_doubt = False
        self.is_open = True
        self.fingerprints: dict[UUID, bytes] = {}
        self.winner: Run[T] | None = None
        self.error: Exception | None = None
        self._id = uuid4()
        self._gate = gate
        self._running: Run[T] | None = None
        self._lost: dict[str, Run[T]] = {}
        self.scopes = core.scopes(WriteStarted(self.id, "transact", "transact", "", 0, core.server))
        self._journal = Journal(self.id, self.scopes, core.backoff(gate.deadline))

    @property
    def id(self) -> UUID:
        """The id of the call in facts, equal to the first event id that `new_event` assigns."""
        return self.event_id(0)

    @property
    def conflicts(self) -> int:
        """The number of runs that ended in a conflict so far."""
        return self._journal.conflicts

    @property
    def is_settled(self) -> bool:
        """Whether the call has ended."""
        return self.winner is not None or self.error is not None

    def event_id(self, ordinal: int) -> UUID:
        """Return the id of the `ordinal`-th event that a run makes, from 0."""
        return uuid5(self._id, str(ordinal))

    def require_fence(self, first: UUID | None) -> None:
        """Raise `OutcomeUnknown` if this run could commit in addition to one in doubt."""
        if self.in_doubt and first != self.fence:
            raise self.unknown(
                "an earlier run may have been committed, and this one appends another event first"
            )

    def begin(self) -> Run[T]:
        """Start another run."""
        self._journal.begin()
        self._running = Run(self, self._journal.attempts)
        return self._running

    def committed(self, run: Run[T]) -> None:
        """Settle the call with a committed run."""
        self.winner = run
        self._run_ended(run, "committed")
        self._win(run)

    def resolve(self, found: Found | None, event_id: UUID) -> None:
        """Evaluate a look-up of one event: a run of this call stored it, another call, or none."""
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
        """Record a failed run. If it is in doubt, the call stays in doubt."""
        if failure.kind is FailureKind.IN_DOUBT:
            self.in_doubt, self.fence = True, run.first
            self._lost[run.write_id] = run
        self._run_ended(run, attempt_outcome(failure), failure)

    def next_wait(self, failure: DatabaseFailure, now: float) -> float | None:
        """Return the seconds until another run, or None to give up."""
        wait = self._journal.next_wait(failure, now)
        if wait is None:
            self._journal.tell_end_of_retries(failure)
            self._journal.exhausted(failure)
        else:
            self._journal.waits(wait)
            self._journal.tell_retry(failure)
        return wait

    def give_up(self, error: Exception) -> None:
        """Settle the call with the last error, or with `OutcomeUnknown` if it is in doubt."""
        if self.in_doubt and not isinstance(error, OutcomeUnknown):
            unknown = self.unknown("an earlier run may have been committed")
            unknown.__cause__ = error
            error = unknown
        elif isinstance(error, psycopg.Error):
            error.add_note(
                "transact has stored nothing: "
                f"attempts {self._journal.attempts}, conflicts {self.conflicts}"
            )
        self.settle(error)

    def settle(self, error: Exception) -> None:
        """End the call with an error."""
        self.error = error
        self._journal.ended(error)

    def abandon(self, error: BaseException) -> None:
        """Report the end of a call whose caller is gone, as by cancellation.

        A COMMIT that was sent may still succeed.
        """
        if not self.is_settled:
            in_doubt = self.in_doubt or (self._running is not None and self._gate.sent)
            self._journal.abandoned(error, in_doubt=in_doubt)

    def broken(self, error: Exception) -> None:
        """Settle the call after a defect of the library. A COMMIT that was sent may have worked."""
        if not self.is_settled:
            self.in_doubt = self.in_doubt or self._gate.sent
            self.give_up(error)

    def result(self) -> T:
        """Return the result of the committed run's function, or raise the call's error."""
        if self.winner is None:
            assert self.error is not None  # noqa: S101 - the steps end only after the call is settled
            raise self.error
        return self.winner.watch.value  # type: ignore[no-any-return]

    def unknown(self, why: str) -> OutcomeUnknown:
        """Return `OutcomeUnknown` with a note. Without an append it has the id of the call."""
        unknown = OutcomeUnknown(self.fence or self.id)
        unknown.add_note(f"transact: {why}")
        return unknown

    def _win(self, run: Run[T]) -> None:
        self.winner = run
        self._journal.ended(None)

    def _run_ended(
        self, run: Run[T], outcome: AttemptOutcome, failure: DatabaseFailure | None = None
    ) -> None:
        self._running = None
        self._journal.attempt_ended(outcome, run.started_ns, time_ns(), failure)


_open: ContextVar[tuple[Call[Any], ...]] = ContextVar("dsql_outbox_transact", default=())
"""The calls whose functions are running in this context. A task that they start inherits it."""


def require_outermost(core: Core, method: str) -> None:
    """Raise `TransactionMisused` for a call inside a `transact` of the same writer."""
    calls = _open.get()
    if calls and any(call.core is core and call.is_open for call in calls):
        raise TransactionMisused(
            f"{method} inside transact of the same writer would be another transaction: "
            "use connection and append of the open one"
        )


def require_plain(function: Callable[[Any], object]) -> None:
    """Raise `TypeError` for a coroutine or generator function, whose call runs nothing."""
    lazy = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    if any(is_lazy(function) for is_lazy in lazy):
        raise TypeError(
            "Writer.transact calls a plain function: give one that is `async def` to "
            "AsyncWriter.transact, and none that yields"
        )


@contextmanager
def opened(call: Call[Any]) -> Generator[None]:
    """Make `call` the innermost call of the block, and its span the current span."""
    token = _open.set((*_open.get(), call))
    try:
        with call.scopes:
            yield
    finally:
        call.is_open = False
        _open.reset(token)
