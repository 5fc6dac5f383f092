"""One run of a user's function in a transaction of the library, and its judge.

`transact`, `once` and `apply` call a function of the user
between their BEGIN and COMMIT: that is an open attempt. The function may swallow an error of the
database, end the transaction, lose or close the connection, or keep the connection. Then a
COMMIT would store less than the caller believes. What the client can see of that, `FunctionRun`
judges here; the rest is for the guards before COMMIT.
"""

import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import starmap
from typing import Any, Final, NamedTuple, TypeVar
from uuid import uuid4

from psycopg.pq import TransactionStatus

from dsql_outbox.outbox.errors import TransactionMisused
from dsql_outbox.outbox.failure import (
    CONFLICTS,
    DatabaseFailure,
    FailureKind,
    NotPrepared,
    answers_commit,
    kind_of,
    sqlstate_of,
    unwrap,
)

from .commit import GuardFailed, Guards
from .gate import Gate
from .primitives import Invoke, Program
from .run_transaction import RunTransaction

T = TypeVar("T")

_NOT_OURS: Final = {TransactionStatus.IDLE, TransactionStatus.ACTIVE}

_LAZY: Final[tuple[type[object], ...]] = (Generator, AsyncGenerator, map, filter, starmap)
"""Values that call code of the user when they are read, which is after the run."""

_FAILED_CAST: Final = "22P02"
_FAILED_TRANSACTION: Final = "25P02"

_UNDONE: Final = re.compile(r"undone (?P<found>\d+) of (?P<number>\d+)")
"""The text in the failing cast of a guard whose rows are not all there."""


class Verdict(NamedTuple):
    """The reason why a transaction is not committed.

    `error` decides whether the function runs again: the first error of the connection, or an
    error of the function. `for_caller` is raised if it does not. An error that
    `is_functions` is never retried.
    """

    error: Exception
    for_caller: Exception
    is_functions: bool


class RunFailed(Exception):
    """The database failed a run. Its cause is the error that decides, not the caller's."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict.error))
        self.verdict = verdict


class FunctionRun:
    """One run of the function that a user gave to `caller`, such as ``transact``."""

    def __init__(self, caller: str) -> None:
        self._caller = caller
        self.id = uuid4().hex
        """The id of the run, which its rows and the mark of its transaction have."""
        self.is_over = False
        self.value: Any = None
        self.failures: list[Exception] = []
        """The errors of the connection since the transaction was last healthy."""
        self._transaction: RunTransaction | None = None
        self._is_lost = False
        self.misuse: TransactionMisused | None = None
        """The last misuse of the transaction."""
        self._refused: Exception | None = None
        self._not_prepared: NotPrepared | None = None
        self._unfinished = 0

    def complete(
        self,
        transaction: RunTransaction,
        function: Callable[[Any], object],
        gate: Gate,
        guards: Guards,
    ) -> Program[DatabaseFailure | None]:
        """Call the function in the open transaction, judge the run, and commit.

        Return a failure of the function, which nothing retries. Raise `RunFailed` or the error of
        COMMIT if the database failed.
        """
        verdict = self.judge((yield from self.invoke(transaction, function)))
        if verdict is None:
            verdict = yield from self._commit(transaction, gate, guards)
        if verdict is None:
            return None
        yield from transaction.roll_back()
        if verdict.is_functions:
            return DatabaseFailure(
                FailureKind.FATAL, verdict.error, None, None, for_caller=verdict.for_caller
            )
        raise RunFailed(verdict) from verdict.error

    def _commit(
        self, transaction: RunTransaction, gate: Gate, guards: Guards
    ) -> Program[Verdict | None]:
        """Commit behind the guards of the run. Return why the server did not."""
        try:
            yield from transaction.commit(guards, self.id, self.own, gate)
        except GuardFailed as failed:
            gate.sent = False
            return self.judge_guard(failed.error)
        except Exception as error:
            if not answers_commit(error) or transaction.is_lost:
                raise
            return Verdict(error, error, is_functions=True)
        return None

    @property
    def own(self) -> Mapping[str, str] | None:
        """What the run has stored itself, for the guard of it; None without any."""
        return None

    def judge_guard(self, error: Exception) -> Verdict:
        """Judge the error of a guard, which has kept the transaction from its COMMIT."""
        found = sqlstate_of(error)
        if found != _FAILED_CAST:
            has_failed = found == _FAILED_TRANSACTION and self.failures
            first = self.failures[0] if has_failed else error
            return Verdict(first, first, is_functions=False)
        if undone := _UNDONE.search(str(error)):
            found, number = undone["found"], int(undone["number"])
            events = "event is" if number == 1 else "events are"
            misuse = TransactionMisused(
                f"the function given to {self._caller} has rolled back what it appended, as to a "
                f"savepoint: {found} of {number} {events} left, and nothing is stored; append "
                "outside of savepoints and of connection.transaction()"
            )
        else:
            misuse = self.record_own_end()
        return Verdict(misuse, misuse, is_functions=True)

    def invoke(
        self, transaction: RunTransaction, function: Callable[[Any], object]
    ) -> Program[Exception | None]:
        """Call the function with what the transaction lends it. `value` is its result.

        Return the error that it raised: `judge` decides whose error it is.
        """
        with self.lend(transaction) as handle:
            try:
                self.value = yield Invoke(function, handle)
                require_eager(self._caller, self.value)
            except Exception as error:  # noqa: BLE001 - `judge` decides
                return error
        return None

    @contextmanager
    def lend(self, transaction: RunTransaction) -> Generator[Any]:
        """Yield what the function gets of the transaction. It ends with the block."""
        self._transaction = transaction
        with transaction.lent(self) as handle, _joined(self, [handle, *transaction.aliases]):
            try:
                yield handle
            finally:
                self.is_over = True

    @property
    def status(self) -> TransactionStatus:
        """The status of the transaction."""
        return self._running.status

    @property
    def can_commit(self) -> bool:
        """Whether nothing is known so far that keeps the run from its COMMIT."""
        is_open = self.status is TransactionStatus.INTRANS
        return is_open and self.misuse is None and self._refused is None

    @property
    def is_inside(self) -> bool:
        """Whether the function runs now."""
        return self._transaction is not None and not self.is_over

    def refuse_outside(self, status: int) -> None:
        """Refuse a statement outside the transaction: it would be stored, or join another run."""
        if self.is_over:
            raise TransactionMisused(
                f"the call of the function given to {self._caller} has ended: nothing was sent; "
                "use its connection before the function returns"
            )
        if status == TransactionStatus.IDLE:
            raise self.record_misuse(
                "has ended the transaction itself: what it sends after that is not stored"
            )

    def note_failure(self, error: Exception, before: int) -> None:
        """Record an error of the connection, and the transaction status `before` it."""
        if self.is_over:  # of a statement that ran when the run ended, which is a misuse
            return
        self.forget_undone(before)
        self.failures.append(error)
        if isinstance(error, NotPrepared):
            self._not_prepared = error
        self._is_lost = self._running.is_lost

    def awaited(self, append: Callable[[], Coroutine[Any, Any, T]]) -> Coroutine[Any, Any, T]:
        """Return the coroutine of an append, which must have ended when the function returns."""
        self._unfinished += 1  # not in `finish`, which never starts if it is not awaited

        async def finish() -> T:
            try:
                return await append()
            finally:
                self._unfinished -= 1

        return finish()

    def note_refused(self, error: BaseException, method: str) -> None:
        """Record the error of a method, such as ``append_to``, that could store nothing here.

        It may be one that a savepoint undoes, or an interrupt. As outside of a run, nothing is
        committed after it, even if the function swallows it.
        """
        if self._refused is not None:
            return
        if isinstance(error, Exception):
            self._refused = error
            return
        self._refused = TransactionMisused(
            f"the function given to {self._caller} has swallowed {type(error).__name__}, which "
            f"ended {method}: nothing is stored; let it pass"
        )
        self._refused.__cause__ = error

    def forget_undone(self, status: int) -> None:
        """Forget the recorded errors if the transaction is healthy.

        Then the function has rolled back to a savepoint. Inside a pipeline the status is
        never INTRANS, so nothing is forgotten there.
        """
        if status == TransactionStatus.INTRANS:
            self.failures.clear()

    def record_misuse(self, what: str, remedy: str | None = None) -> TransactionMisused:
        """Record a misuse, and return the exception that names it."""
        remedy = remedy or f"let {self._caller} begin, commit and roll back"
        self.misuse = TransactionMisused(f"the function given to {self._caller} {what}: {remedy}")
        return self.misuse

    def record_own_end(self) -> TransactionMisused:
        """Record that the transaction has no mark of the run, and return the misuse.

        It is another one, or RESET ALL has taken the mark away: the server does not tell which.
        """
        return self.record_misuse(
            "has ended the transaction itself and begun another one, or has reset its settings "
            "(RESET ALL): what it committed itself is stored, and nothing else",
            f"let {self._caller} begin, commit and roll back, and reset single settings by name",
        )

    def judge(self, raised: Exception | None) -> Verdict | None:
        """Judge the run after the function returned or raised. None: the transaction commits."""
        self.is_over = True
        status = self.status
        if self._unfinished:
            self.misuse = self._not_awaited()
        if self.misuse is None:
            self._look_for_misuse(status)
        if self.misuse is not None and self._is_of_misuse(raised):
            return Verdict(self.misuse, self.misuse, is_functions=True)
        if (ours := self._not_prepared) is not None:  # whatever the function made of it
            return Verdict(ours, ours, is_functions=False)
        if raised is None and status is TransactionStatus.INTRANS:
            return self._judge_refused()
        if raised is not None and not self._is_ours(raised, status):
            return Verdict(raised, raised, is_functions=True)
        first = self.failures[0]
        if raised is not None and (self._is_within(first, raised) or not self._is_linked(raised)):
            return Verdict(first, raised, is_functions=False)
        first.add_note(
            f"the transaction failed here, and the function given to {self._caller} continued"
        )
        return Verdict(first, first, is_functions=False)

    def _judge_refused(self) -> Verdict | None:
        error = self._refused
        if error is None:
            return None
        return Verdict(error, error, is_functions=sqlstate_of(error) is None)

    @property
    def _running(self) -> RunTransaction:
        assert self._transaction is not None  # noqa: S101 - `lend` comes first
        return self._transaction

    def _not_awaited(self) -> TransactionMisused:
        were = "append was" if self._unfinished == 1 else "appends were"
        return TransactionMisused(
            f"{self._unfinished} {were} not awaited before the function given to {self._caller} "
            "returned: nothing is stored; await each append"
        )

    def _look_for_misuse(self, status: TransactionStatus) -> None:
        """Record a misuse that no statement showed."""
        if status is TransactionStatus.UNKNOWN and not self._is_lost:
            self.record_misuse("has closed the connection, or cancelled a statement on it")
        elif status in _NOT_OURS:
            self.record_misuse(
                "has ended the transaction itself, or left a statement running "
                f"(status {status.name})"
            )
        elif status is TransactionStatus.INERROR and not self.failures:
            self.record_misuse(
                "has failed the transaction by a statement that the driver did not report"
            )
        elif status is TransactionStatus.INTRANS and self._running.has_open_block:
            self.record_misuse("has left a block of connection.transaction() open")

    def _is_of_misuse(self, raised: Exception | None) -> bool:
        return raised in (None, self.misuse) or self._running.is_refusal(raised)

    def _is_ours(self, error: Exception, status: TransactionStatus) -> bool:
        """Return whether our connection or our transaction has failed, and caused this error.

        The function may raise the error of the connection inside a wrapper, such as
        SQLAlchemy's. If the connection was lost or our transaction met a conflict, any error
        counts: the function runs again.
        """
        if status is TransactionStatus.UNKNOWN:
            return self._is_lost
        if status is not TransactionStatus.INERROR or not self.failures:
            return False
        return kind_of(self.failures[0]) in CONFLICTS or self._is_linked(error)

    def _is_linked(self, error: Exception) -> bool:
        """Return whether an error is, or wraps, one of the connection."""
        return any(self._is_within(failure, error) for failure in self.failures)

    @staticmethod
    def _is_within(failure: Exception, error: Exception) -> bool:
        return any(each is failure for each in unwrap(error))


_runs: Final[dict[int, tuple[FunctionRun, object]]] = {}
"""The run whose function has a session or connection now, by the id of that object.

An entry keeps its object, so no other one gets that id meanwhile.
"""


@contextmanager
def _joined(run: FunctionRun, given: Sequence[object]) -> Generator[None]:
    """Let `run_of` find a run by what its function has, during the block."""
    entries = {id(each): (run, each) for each in map(_synchronous, given)}
    _runs.update(entries)
    try:
        yield
    finally:
        for key in entries:
            del _runs[key]


def run_of(session: object) -> FunctionRun | None:
    """Return the run whose function has this session or connection now.

    So `append_to` and `remember` are the same verbs inside of a run and outside.
    """
    found = _runs.get(id(_synchronous(session))) if _runs else None
    return None if found is None else found[0]


def _synchronous(given: Any) -> object:
    """Return the Session or Connection behind an asynchronous one, and others as they are.

    Django's ``connection`` stands for that of each thread.
    """
    if hasattr(given, "in_atomic_block"):
        return given.ensure_connection.__self__
    return getattr(given, "sync_session", None) or getattr(given, "sync_connection", given)


def require_eager(caller: str, value: object) -> None:
    """Raise `TypeError` for a value that has run nothing yet, as ``map(append, events)``."""
    if value is None:  # of most functions
        return
    kind = type(value)
    if isinstance(value, Coroutine):
        value.close()  # else Python warns as well
        raise TypeError(
            f"the function given to {caller} returned a coroutine that it has not "
            "awaited: nothing is stored; await it in the function"
        )
    if issubclass(kind, _LAZY):
        raise TypeError(
            f"the function given to {caller} returned a {kind.__name__}, which runs "
            "nothing until it is read, after the transaction: nothing is stored; return a list"
        )
