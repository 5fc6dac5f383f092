"""One call of `transact`, and each run of its function. No I/O.

Nothing is stored before COMMIT is sent, because the server rolls back when the
connection is lost. So only a failure at COMMIT leaves the outcome in doubt. Every run has a
`write_id` of its own. So a look-up of the first event that the lost run appended tells which run
stored it. The next run must append the same event first. Then two runs cannot both
commit, because the second one collides.

This event is the *fence*. A guard before COMMIT fails if the function has rolled back any event
to a savepoint, so a run that committed has stored its fence. The look-up reads the run's other
events too: a function that commits by a statement of its own may have stored a part of them.
"""

import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import count
from time import monotonic, time_ns
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4, uuid5
from weakref import ref

from psycopg.pq import TransactionStatus

from dsql_outbox.observability.facts import AttemptOutcome, WriteStarted
from dsql_outbox.observability.hooks import Scopes
from dsql_outbox.outbox.database.array_literals import plain_array
from dsql_outbox.outbox.errors import (
    DuplicateEvent,
    OutcomeUnknown,
    StaleVersion,
    TransactionMisused,
)
from dsql_outbox.outbox.event.event import event_ids
from dsql_outbox.outbox.event.event_parser import EventSource, ParsedEvent
from dsql_outbox.outbox.failure import (
    RETRIED,
    DatabaseFailure,
    FailureKind,
    driver_error,
    kind_of,
)
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.unit_of_work.function_run import FunctionRun, Verdict, run_of
from dsql_outbox.outbox.unit_of_work.own_transaction import OwnTransaction
from dsql_outbox.outbox.unit_of_work.primitives import Program
from dsql_outbox.outbox.unit_of_work.run_transaction import RunTransaction, Sessions
from dsql_outbox.outbox.unit_of_work.work import Again, Work, next_connection
from dsql_outbox.writer.attempt.acts import Acts, learn_layout
from dsql_outbox.writer.attempt.journal import Journal, attempt_outcome
from dsql_outbox.writer.attempt.pending import OnDuplicate
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.answers import Found, Stored
from dsql_outbox.writer.statement.parameters import PreparedEvent

from .append import receipt_in_transaction

T = TypeVar("T")


class Call(Work, Generic[T]):
    """One call of `transact`. It ends with a committed run (`winner`) or with an `error`.

    `function` gets the run and its connection, and calls the function of the caller.
    """

    def __init__(
        self,
        core: Core,
        acts: Acts,
        function: "Callable[[Run[T], Any], Any]",
        *,
        on_duplicate: OnDuplicate,
        sessions: "Sessions | None" = None,
    ) -> None:
        self.core = core
        self._sessions = sessions
        self.function = function
        self._acts = acts
        self.fence: UUID | None = None
        """The fence of the run in doubt, if it has one."""
        self.in_doubt = False
        self.fingerprints: dict[UUID, bytes] = {}
        self.winner: Run[T] | None = None
        self.error: Exception | None = None
        self._id = uuid4()
        self._on_duplicate: OnDuplicate = on_duplicate
        self._duplicate: Receipt | None = None
        self._run: Run[T] | None = None
        self._is_running = False
        self._started_ns = 0
        self._lost: dict[str, Run[T]] = {}
        started = WriteStarted(self.id, "transact", "transact", "", 0, core.server)
        self.scopes = Scopes(core.hooks, started)
        deadline = acts.gate.deadline
        self._journal = Journal(self.id, self.scopes, core.database, core.budgets, deadline)

    @property
    def id(self) -> UUID:
        """The id of the call in facts, equal to that of the first event that its function makes."""
        return self.event_id(0)

    @property
    def conflicts(self) -> int:
        """The number of runs that ended in a conflict so far."""
        return self._journal.conflicts

    @property
    def is_inside(self) -> bool:
        """Whether its function runs now."""
        return self._run is not None and self._run.is_inside

    @property
    def is_open(self) -> bool:
        """Whether the call has no outcome yet."""
        return self.winner is None and self.error is None and self._duplicate is None

    def event_id(self, ordinal: int) -> UUID:
        """Return the id of the `ordinal`-th event that a run makes, from 0."""
        return uuid5(self._id, str(ordinal))

    def require_fence(self, fence: UUID | None) -> None:
        """Raise `OutcomeUnknown` if a run with this fence could commit beside one in doubt."""
        if self.in_doubt and fence != self.fence:
            raise self.unknown(
                "an earlier execution may have been committed, and this one appends another event "
                "first"
            )

    def start_attempt(self) -> None:
        """Start another run."""
        self._journal.count_attempt()
        self._started_ns = time_ns()
        self._run = Run(self, self._journal.attempts)
        self._journal.events = self._run.events
        self._is_running = True

    def resolve_doubt(self) -> Program[DatabaseFailure | None]:
        """Look up the fence of a run in doubt."""
        return None if self.fence is None else (yield from self._look_up(self.fence))

    def attempt(self, *, fresh: bool) -> Program[DatabaseFailure | None]:
        """Run the function in a transaction."""
        self._started_ns = time_ns()
        run = self._current
        if self._sessions is None:
            failure = yield from self._acts.run(self._on_own, fresh=fresh)
        else:
            failure = yield from self._acts.run_in(self._sessions, self._complete)
        if failure is not None and run.is_refused:
            run.needs_plain = yield from self._acts.prove_form()
        if failure is None:
            self.winner = run  # before the hooks: one that raises takes nothing back
            self._tell_run("committed")
            self._win(run)
        self._acts.tell_transaction_end((), failure, self._started_ns)
        if (
            failure is not None
            and failure.kind is FailureKind.COLLISION
            and run.suspect(failure.error) is None
        ):
            return failure._replace(kind=FailureKind.FATAL)  # the key of a table of the caller
        return failure

    def record_failure(self, failure: DatabaseFailure) -> None:
        """Record a failed run. If it is in doubt, the call stays in doubt."""
        if failure.kind is FailureKind.IN_DOUBT:
            run = self._current
            self.in_doubt, self.fence = True, run.fence
            self._lost[run.id] = run
        self._tell_run(attempt_outcome(failure), failure)

    def decide(self, failure: DatabaseFailure) -> Program[Again]:
        """Settle the call, or wait before another run."""
        run, first = self._current, failure
        if run.needs_plain:
            return Again([self])
        suspect = run.suspect(failure.error)
        # A lost run may have committed: report no failure then.
        fence = None if failure.kind in RETRIED else self.fence
        if (asked := fence or suspect) is not None:
            unanswered = yield from self._look_up(asked)
            if unanswered is not None and suspect is not None:
                failure = unanswered
        if not self.is_open:
            return Again()
        wait = self._next_wait(failure) if self._may_run_again(failure) else None
        if wait is None:
            self._give_up(first.for_caller or failure.error)
            return Again()
        is_own = self._sessions is None
        return Again([self], wait, next_connection(failure, role_path=True) if is_own else None)

    def fail(self, error: Exception) -> None:
        """Settle the call after a defect of the library. A COMMIT that was sent may have worked."""
        if self.is_open:
            self.in_doubt = self.in_doubt or self._acts.gate.sent
            self._give_up(error)

    def abandon(self, error: BaseException) -> None:
        """Report the end of a call whose caller is gone, as by cancellation.

        A COMMIT that was sent may still succeed.
        """
        if self.is_open:
            in_doubt = self.in_doubt or (self._is_running and self._acts.gate.sent)
            self._journal.tell_abandoned(error, in_doubt=in_doubt)

    def result(self) -> T | Receipt:
        """Return the result of the committed run's function, or raise the call's error.

        If another call has stored the first event, return the receipt of that event.
        """
        if self._duplicate is not None:
            return self._duplicate
        if self.winner is None:
            assert self.error is not None  # noqa: S101 - `settle` ends after the call is settled
            raise self.error
        return self.winner.value  # type: ignore[no-any-return]

    def unknown(self, why: str) -> OutcomeUnknown:
        """Return `OutcomeUnknown` with a note. Without an append it has the id of the call."""
        unknown = OutcomeUnknown(self.fence or self.id, has_event=self.fence is not None)
        unknown.add_note(f"transact: {why}")
        return unknown

    def _on_own(self, connection: Any) -> Program[DatabaseFailure | None]:
        yield from learn_layout(self.core.statements, connection)
        return (yield from self._complete(OwnTransaction(connection)))

    def _complete(self, transaction: RunTransaction) -> Program[DatabaseFailure | None]:
        run, core, gate = self._current, self.core, self._acts.gate
        yield from transaction.begin(core.guards, run.id)
        function = partial(self.function, run)
        failure = yield from run.complete(transaction, function, gate, core.guards)
        gate.wrote = failure is None
        return failure

    @property
    def _current(self) -> "Run[T]":
        assert self._run is not None  # noqa: S101 - `start_attempt` comes first
        return self._run

    def _look_up(self, event_id: UUID) -> Program[DatabaseFailure | None]:
        """Settle the call if the event is stored, by a run of this call or by another call."""
        of_lost = {each for run in self._lost.values() for each in run.appended}
        present = yield from self._acts.look_up({event_id} | of_lost)
        if isinstance(present, DatabaseFailure):
            return present
        found = present.get(event_id)
        if found is None:
            return None
        if (run := self._lost.get(found.write_id)) is not None:
            if self._is_running:
                self._tell_run("resolved")
            # Without an answer, nobody knows whether a guard has failed. What the function itself
            # committed may be a part of the run.
            stored = {each for each, its in present.items() if its.write_id == run.id}
            if run.appended <= stored:
                self._win(run)
            else:
                self._settle(run.record_own_end())
        else:
            same = found.has_content(self.fingerprints[event_id])
            # Behind another first event, a receipt would hide that the first one is not stored.
            if same and self._on_duplicate == "return" and self._current.is_first(event_id):
                self._duplicate = self._receipt(event_id, found)
                self._journal.tell_ended(self._duplicate)
            else:
                self._settle(DuplicateEvent(event_id, same_content=same))
        return None

    def _receipt(self, event_id: UUID, found: Found) -> Receipt:
        attempts, conflicts = self._journal.attempts, self.conflicts
        return Receipt(event_id, "duplicate", attempts, conflicts, found.position, found.entities)

    def _may_run_again(self, failure: DatabaseFailure) -> bool:
        # A lost run without a fence left nothing that the next run could collide with.
        return failure.kind in RETRIED and not (self.in_doubt and self.fence is None)

    def _next_wait(self, failure: DatabaseFailure) -> float | None:
        wait = self._journal.next_wait(failure, monotonic())
        events = self._current.events
        told = failure, len(events), events[0].id if events else None
        if wait is None:
            self._journal.tell_end_of_retries(*told)
            self._journal.tell_exhausted(failure)
        else:
            self._journal.record_wait(wait)
            self._journal.tell_retry(*told)
        return wait

    def _give_up(self, error: Exception) -> None:
        """Settle the call with the last error, or with `OutcomeUnknown` if it is in doubt."""
        if self.in_doubt and not isinstance(error, OutcomeUnknown):
            unknown = self.unknown("an earlier execution may have been committed")
            unknown.__cause__ = error
            error = unknown
        elif driver_error(error) is not None:
            error.add_note(
                "transact has stored nothing: "
                f"attempts {self._journal.attempts}, conflicts {self.conflicts}"
            )
        self._settle(error)

    def _settle(self, error: Exception) -> None:
        self.error = error
        self._journal.tell_ended(error)

    def _win(self, run: "Run[T]") -> None:
        self.winner = run
        self._journal.tell_ended(None)

    def _tell_run(self, outcome: AttemptOutcome, failure: DatabaseFailure | None = None) -> None:
        self._is_running = False
        self._journal.tell_attempt(outcome, self._current.started_ns, time_ns(), failure)


class Run(FunctionRun, Generic[T]):
    """One run of the caller's function in one transaction."""

    def __init__(self, call: "Call[T]", number: int) -> None:
        super().__init__("transact")
        self.call = call
        self.core = call.core
        self.number = number
        self.fence: UUID | None = None
        """The id of the event that the run appended first."""
        self.started_ns = time_ns()
        self.events: list[ParsedEvent] = []
        """The events that this run appends."""
        self.is_refused = False
        """Whether an append in the single form was refused."""
        self.needs_plain = False
        """Whether the server refuses that form to the writer itself: the next run leaves it."""
        self._ordinals = count()
        self.appended: set[UUID] = set()
        """The ids of the events whose append succeeded."""
        self._suspect: tuple[UUID, Exception] | None = None
        self._stale: StaleVersion | None = None
        self.transaction: Any = None
        """What its function gets, or would get on a connection of the writer."""

    def next_event_id(self) -> UUID:
        """Return the id of the next event that the function makes.

        Every run of a call gets the same ids in the same order. What outlives the run, such as
        a task that the function has started, gets random ones: the next run may use the others.
        """
        return self.call.event_id(next(self._ordinals)) if self.is_inside else uuid4()

    def event_ids(self) -> AbstractContextManager[None]:
        """Let `Event.new` give the n-th event of each run of the call the same id."""
        return event_ids(self.next_event_id)

    def prepare_append(
        self, source: EventSource, expected_version: int | None, status: int
    ) -> PreparedEvent:
        """Prepare an event of this run. `status` is the status of the transaction.

        Raises `InvalidEvent` or `TransactionMisused`. Raises `OutcomeUnknown` if an
        earlier run is in doubt and the fence of this run is another event.
        """
        self.require_running("append", status)
        call = self.call
        event, topic = call.core.parse(source)
        prepared = call.core.prepare(event, topic, self.id, call.scopes, expected_version)
        if self.fence is None:
            call.require_fence(event.id)
        call.fingerprints[event.id] = event.fingerprint
        self.events.append(event)
        return prepared

    def is_first(self, event_id: UUID) -> bool:
        """Return whether the call would have stored this event before all others."""
        return event_id == (self.fence or self.call.fence or self.events[0].id)

    def receipt(self, prepared: PreparedEvent, stored: Stored) -> Receipt:
        """Return the receipt of an append. It is valid after the commit."""
        conflicts = self.call.conflicts
        return receipt_in_transaction(prepared, stored, attempts=self.number, conflicts=conflicts)

    def require_running(self, method: str, status: int) -> None:
        """Raise `TransactionMisused` for a method of a transaction that has ended."""
        if self.is_over:
            raise TransactionMisused(
                f"{method} after the transaction has ended: nothing was sent; "
                "call it before the function given to transact returns"
            )
        self.refuse_outside(status)

    @contextmanager
    def record_append(self, event_id: UUID, before: TransactionStatus) -> Generator[None]:
        """Record an append: its event may be the fence, or be stored already.

        Raises `TransactionMisused` if this run itself appended an event of that id before.
        A unique violation that is not recorded concerns a table of the caller.
        """
        self.forget_undone(before)
        try:
            yield
        except StaleVersion as stale:
            self._stale, self._suspect = stale, (event_id, stale)
            raise
        except Exception as error:
            if kind_of(error) is FailureKind.COLLISION:
                if event_id in self.appended:
                    self.misuse = _appended_twice(event_id)
                    raise self.misuse from None
                self._suspect = event_id, error
            raise
        self.appended.add(event_id)
        if self.fence is None:
            self.fence = event_id

    @property
    def own(self) -> Mapping[str, str] | None:
        """The events of the run, for the guard of them."""
        if not self.appended:
            return None
        number = str(len(self.appended))
        return {"number": number, "ids": plain_array(self.appended), "write_id": self.id}

    def suspect(self, error: Exception) -> UUID | None:
        """Return the event that may be stored already, if its append ended this run by this error.

        Its append violated a unique key, or found its subject at another version.
        """
        if self._suspect is None:
            return None
        event_id, of_append = self._suspect
        return event_id if self._is_within(error, of_append) else None

    def judge_guard(self, error: Exception) -> Verdict:
        """Judge the error of a guard. It reads our tables, so its error may get our name."""
        verdict = super().judge_guard(error)
        if verdict.for_caller is not error:
            return verdict
        return verdict._replace(for_caller=self.call.core.translate(error, self._running.role))

    def judge(self, raised: Exception | None) -> Verdict | None:
        """Judge the run and its fence. None: the transaction commits."""
        verdict = super().judge(raised)
        if verdict is None:
            try:
                self.call.require_fence(self.fence)
            except OutcomeUnknown as unknown:
                return Verdict(unknown, unknown, is_functions=True)
        elif self._stale is not None and self._is_within(verdict.for_caller, self._stale):
            return verdict._replace(for_caller=self._stale)  # the function has swallowed it
        return verdict


def _appended_twice(event_id: UUID) -> TransactionMisused:
    return TransactionMisused(
        f"the function given to transact appended event {event_id} twice: nothing is stored; "
        "give each event an id of its own"
    )


_open: ContextVar[tuple[ref[Call[Any]], ...]] = ContextVar("dsql_outbox_transact", default=())
"""The calls in whose functions this context may be. A task that they start inherits it.

It holds them weakly: an interrupt may keep a call from taking itself out.
"""


def transaction_of(core: Core, session: object) -> Any | None:
    """Return the transaction of the run that this session belongs to, if it is of this writer."""
    run = run_of(session)
    return run.transaction if isinstance(run, Run) and run.core is core else None


def require_outermost(core: Core, method: str) -> None:
    """Raise `TransactionMisused` for a call inside a `transact` of the same writer."""
    calls = (call for each in _open.get() if (call := each()) is not None)
    if any(call.core is core and call.is_inside for call in calls):
        raise TransactionMisused(
            f"{method} inside transact of the same writer would be another transaction: "
            "use append_to with the session or connection of the open one"
        )


def require_sync(function: Callable[[Any], object]) -> None:
    """Raise `TypeError` for a coroutine or generator function, whose call runs nothing."""
    lazy = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    if any(is_lazy(function) for is_lazy in lazy):
        raise TypeError(
            "Writer.transact calls a plain function: give one that is `async def` to "
            "AsyncWriter.transact, and none that yields"
        )


@contextmanager
def innermost(call: Call[Any]) -> Generator[None]:
    """Make `call` the innermost call of the block, and its span the current span."""
    token = _open.set((*_open.get(), ref(call)))
    try:
        with call.scopes:
            yield
    finally:
        _open.reset(token)
