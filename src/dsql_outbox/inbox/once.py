"""One call of `once` or `once_many`: functions and the memory of their messages in transactions.

The call is a program, as the calls of a writer are: `Inbox` has it performed in a thread and
`AsyncInbox` in a task, so both share every decision. `once` is a call of one message.

Nothing is stored before COMMIT. The key of the remembered row is the fence: of two runs with
the same message, one finds the row of the other or conflicts with it. So after a lost COMMIT
the functions run again, unless the row says that the lost run committed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from dsql_outbox.outbox.errors import MessageGap, MessageSetAside
from dsql_outbox.outbox.event.causation import CORRELATION, caused_by
from dsql_outbox.outbox.event.own_headers import is_header_value
from dsql_outbox.outbox.failure import DatabaseFailure, FailureKind
from dsql_outbox.outbox.unit_of_work.budget import INBOX, Spending
from dsql_outbox.outbox.unit_of_work.function_run import FunctionRun, require_eager
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.primitives import Program
from dsql_outbox.outbox.unit_of_work.run_transaction import RunTransaction, Sessions
from dsql_outbox.outbox.unit_of_work.work import Again, Work, on_connection, settle

from .memory import (
    Key,
    Order,
    Position,
    Remembered,
    Statements,
    key_of,
    remember_in,
    subject_of,
)
from .received import Received

T = TypeVar("T")

OnGap = Literal["run", "raise"]

MOST: Final = 500
"""Messages in one transaction. Aurora DSQL changes 3,000 rows in one, and each message has two.

So a function may change four of its own. If a transaction is too large, it is tried in parts.
"""

_TOO_LARGE: Final = "54"
"""The class of the errors about limits of the server, such as that of rows."""


class Handled(msgspec.Struct, Generic[T], frozen=True):
    """The result of `once`.

    `ran` is whether the function ran in this call and was committed; `value` is what it
    returned. Without, the message was handled before, and has no `order`.
    """

    ran: bool
    value: T | None = None
    order: Order | None = None


class Entry(Generic[T]):
    """A message of a call, at its `place`, and how it ended."""

    def __init__(self, place: int, message: Remembered, key: Key) -> None:
        self.place = place
        self.message = message
        self.key = key
        self.subject = subject_of(message)
        self.position: Position | None = None
        self.value: T | None = None
        self.outcome: Handled[T] | Exception | None = None

    @property
    def handled(self) -> Handled[T]:
        """The outcome, if its run is committed."""
        order = self.position and self.position[0]
        return Handled(ran=True, value=self.value, order=order)


class Run(FunctionRun, Generic[T]):
    """A run of the functions of these messages, which it remembers. `at` is the current one."""

    def __init__(self, statements: Statements, method: str) -> None:
        super().__init__(method)
        self._statements = statements
        self._method = method
        self.entries: Sequence[Entry[T]] = ()
        self.at: int | None = None

    def turns(self) -> Iterator[Entry[T]]:
        """Yield each message, whose value is set then, until one keeps the run from its COMMIT."""
        for place, entry in enumerate(self.entries):
            self.at = place
            yield entry
            require_eager(self._method, entry.value)
            if len(self.entries) > 1 and not self.can_commit:  # of one, the judge looks next
                return
        self.at = len(self.entries)

    @property
    def own(self) -> dict[str, str]:
        """The memory of the messages, for the guard of it."""
        keys = self._statements.keyed([entry.key for entry in self.entries])
        return {**keys, "number": str(len(self.entries)), "run_id": self.id}


def causing(message: Remembered) -> AbstractContextManager[None]:
    """Let the events of a block follow from a message. An id alone is no message."""
    if not isinstance(message, Received):
        return nullcontext()
    own = str(message.id)
    first = message.headers.get(CORRELATION, "")
    return caused_by(own, first if is_header_value(first) else own)


class OnceCall(Generic[T]):
    """One call. `function` gets a run and what is lent to it, and calls the user's function."""

    def __init__(  # noqa: PLR0913 - the parts of a call
        self,
        statements: Statements,
        sessions: Sessions,
        method: str,
        messages: Sequence[Remembered],
        function: Callable[[Run[T], Any], Any],
        *,
        on_gap: OnGap,
        timeout: float | None,
    ) -> None:
        self.statements = statements
        self.sessions = sessions
        self.method = method
        self.function = function
        self.raises_gaps = on_gap == "raise"
        self.gate = Gate(timeout)
        self.lost: dict[str, dict[Key, Handled[T]]] = {}
        """The results of the runs in doubt, by run id."""
        self._keys = [key_of(message, method) for message in messages]
        self._entries: dict[Key, Entry[T]] = {}
        for place, (key, message) in enumerate(zip(self._keys, messages, strict=True)):
            self._entries.setdefault(key, Entry(place, message, key))
        self._failed: dict[object, Entry[T]] = {}
        """The first message of each subject that has failed."""

    def program(self) -> Program[list[Handled[T] | Exception]]:
        """Handle the messages. Return how each ended, in their order."""
        entries = list(self._entries.values())
        for start in range(0, len(entries), MOST):
            yield from settle(Batch(self, entries[start : start + MOST]))
        told: set[Key] = set()
        return [self._outcome(key, told) for key in self._keys]

    def fail(self, entry: Entry[T], error: Exception) -> None:
        """End a message with an error, which says so if a run of it is in doubt."""
        entry.outcome = error
        first = self._failed.get(entry.subject)
        if entry.subject is not None and (first is None or entry.place < first.place):
            self._failed[entry.subject] = entry
        note = (
            f"{self.method}: an earlier execution may have been committed; when the message is "
            "delivered again, the inbox decides"
        )
        is_in_doubt = any(entry.key in results for results in self.lost.values())
        if is_in_doubt and note not in getattr(error, "__notes__", ()):
            error.add_note(note)

    def fail_all(self, error: Exception) -> None:
        """End all messages that have no outcome."""
        for entry in self._entries.values():
            if entry.outcome is None:
                self.fail(entry, error)

    def set_aside(self, entry: Entry[T]) -> None:
        """End a message behind one of its subject that has failed."""
        first = self._failed.get(entry.subject)
        if first is not None and entry.place > first.place:
            assert isinstance(entry.message, Received)  # noqa: S101 - it has a subject
            error = MessageSetAside(entry.message.key)
            error.__cause__ = first.outcome if isinstance(first.outcome, Exception) else None
            self.fail(entry, error)

    def _outcome(self, key: Key, told: set[Key]) -> Handled[T] | Exception:
        """Return the outcome of a message. One that comes again was handled before, or failed."""
        outcome = self._entries[key].outcome
        assert outcome is not None  # noqa: S101 - `settle` ends after every message is settled
        if key in told and isinstance(outcome, Handled):
            return Handled(ran=False)
        told.add(key)
        return outcome


class Batch(Work, Generic[T]):
    """Messages in one transaction, or in parts. The library finds the one whose function raises.

    Aurora DSQL has no savepoints, so nothing of a run is left then. The messages before that one
    are handled in a transaction of their own, and those behind it in another: each function runs
    twice at most for it, however many raise.
    """

    def __init__(self, call: OnceCall[T], entries: Sequence[Entry[T]]) -> None:
        self._call = call
        self._entries = entries
        self._spending = Spending([INBOX], call.gate.deadline)
        self._run: Run[T]  # from `start_attempt` on

    @property
    def is_open(self) -> bool:
        """Whether a message has no outcome yet."""
        return bool(self._open)

    def start_attempt(self) -> None:
        """Begin another run, with an id of its own, without messages behind one that failed."""
        self._run = Run(self._call.statements, self._call.method)
        for entry in self._open:
            self._call.set_aside(entry)

    def attempt(self, *, fresh: bool) -> Program[DatabaseFailure | None]:
        """Run the functions of the messages that were not handled before in a transaction."""
        del fresh  # a connection that survived a failure is as good: it was rolled back
        call = self._call
        failure = yield from on_connection(
            call.sessions,
            self._transaction,
            call.gate,
            role_path=True,
            translate=call.statements.translate,
        )
        if failure is None:
            for entry in self._run.entries:
                entry.outcome = entry.handled
        return failure

    def record_failure(self, failure: DatabaseFailure) -> None:
        """Keep the results of a run in doubt: the next run finds its rows, if it committed."""
        if failure.kind is FailureKind.IN_DOUBT:
            run = self._run
            self._call.lost[run.id] = {entry.key: entry.handled for entry in run.entries}

    def decide(self, failure: DatabaseFailure) -> Program[Again]:
        """Try again after a wait, or without the message that has failed, or end."""
        yield from ()
        wait = self._spending.next_wait(failure, monotonic())
        if wait is not None:
            return Again([self], wait)
        entries, at = self._run.entries, self._run.at
        if isinstance(failure.error, MessageGap):
            return Again([Batch(self._call, self._open)])
        if failure.kind in INBOX.again or at is None:
            self._call.fail_all(failure.last_word)
            return Again()
        if at == len(entries) > 1:  # it came with the COMMIT, so nobody knows of which function
            middle = len(entries) // 2
            parts = [entries[:middle], entries[middle:]]
        elif at and (failure.sqlstate or "").startswith(_TOO_LARGE):
            parts = [entries[:at], entries[at:]]
        else:
            at = min(at, len(entries) - 1)
            self._call.fail(entries[at], failure.last_word)
            parts = [entries[:at], entries[at + 1 :]]
        return Again([Batch(self._call, part) for part in parts if part])

    def fail(self, error: Exception) -> None:
        """End all messages: one behind a defect might overtake another one of its subject."""
        self._call.fail_all(error)

    @property
    def _open(self) -> list[Entry[T]]:
        return [entry for entry in self._entries if entry.outcome is None]

    def _transaction(self, transaction: RunTransaction) -> Program[DatabaseFailure | None]:
        call, run = self._call, self._run
        yield from self._remember(transaction)
        failure = self._refuse_gaps() if call.raises_gaps else None
        if failure is not None or not run.entries:
            yield from transaction.roll_back()
            return failure
        guards = call.statements.guards
        return (yield from run.complete(transaction, self._invoke, call.gate, guards))

    def _invoke(self, handle: Any) -> Any:
        return self._call.function(self._run, handle)

    def _remember(self, transaction: RunTransaction) -> Program[None]:
        """Begin, and remember the messages. Those that are new are the entries of the run."""
        run, entries = self._run, self._open
        messages = {entry.key: entry.message for entry in entries}
        found = yield from remember_in(transaction, self._call.statements, messages, run.id)
        for entry in entries:
            entry.position = found.get(entry.key)
        run.entries = [entry for entry in entries if entry.position is not None]
        if len(run.entries) < len(entries):
            earlier = [entry for entry in entries if entry.position is None]
            yield from self._settle_earlier(transaction, earlier)

    def _settle_earlier(
        self, transaction: RunTransaction, entries: Sequence[Entry[T]]
    ) -> Program[None]:
        """Settle messages that another call has handled, or an earlier run of this one."""
        runs: dict[Key, str] = {}
        if self._call.lost:
            keys = [entry.key for entry in entries]
            rows = yield from transaction.run([self._call.statements.finding(keys)])
            runs = {Key(source, own): run.replace("-", "") for source, own, run in rows}
        for entry in entries:
            lost = self._call.lost.get(runs.get(entry.key, ""), {})
            entry.outcome = lost.get(entry.key) or Handled(ran=False)

    def _refuse_gaps(self) -> DatabaseFailure | None:
        """Fail the messages whose predecessors were not handled. Return the failure of the run."""
        failure: DatabaseFailure | None = None
        for entry in self._run.entries:
            message, position = entry.message, entry.position
            if not isinstance(message, Received) or position is None or position[0] != "gap":
                continue
            last = position[1]
            gap = MessageGap(message.key, expected=message.previous_position, actual=last)
            self._call.fail(entry, gap)
            failure = DatabaseFailure(FailureKind.FATAL, gap, None, None)
        return failure
