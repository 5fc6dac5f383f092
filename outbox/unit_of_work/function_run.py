"""One run of a user's function in a transaction of the library, and its judge.

`transact`, `once` and `apply` call a function of the user
between their BEGIN and COMMIT: that is an open attempt. The function may swallow an error of the
database, end the transaction, lose or close the connection, or keep the connection. Then a
COMMIT would store less than the caller believes.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from dsql_outbox.outbox.database.connection import AsyncConnection, Connection
from dsql_outbox.outbox.errors import TransactionMisused
from dsql_outbox.outbox.failure import CONFLICTS, DatabaseFailure, FailureKind, kind_of, unwrap

from .commit import commit, roll_back
from .gate import Gate
from .primitives import Invoke, Program

C = TypeVar("C", bound=Connection | AsyncConnection)

_NOT_OURS: Final = {TransactionStatus.IDLE, TransactionStatus.ACTIVE}


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
        self.is_over = False
        self.value: Any = None
        self.failures: list[psycopg.Error] = []
        """The errors of the connection since the transaction was last healthy."""
        self._handle: Connection | AsyncConnection | None = None
        self._is_lost = False
        self.misuse: TransactionMisused | None = None
        """The last misuse of the transaction."""

    def complete(
        self, connection: C, function: Callable[[C], object], gate: Gate
    ) -> Program[DatabaseFailure | None]:
        """Call the function in the open transaction of a connection, judge the run, and commit.

        Return a failure of the function, which nothing retries. Raise `RunFailed` or the error of
        COMMIT if the database failed.
        """
        verdict = self.end((yield from self.invoke(connection, function)))
        if verdict is None:
            # Nothing is stored before this point, so only from here on is the outcome in doubt.
            gate.admit("COMMIT", connection, TransactionStatus.INTRANS)
            yield from commit(connection)
            return None
        yield from roll_back(connection)
        if verdict.is_functions:
            return DatabaseFailure(
                FailureKind.FATAL, verdict.error, None, None, for_caller=verdict.for_caller
            )
        raise RunFailed(verdict) from verdict.error

    def invoke(self, connection: C, function: Callable[[C], object]) -> Program[Exception | None]:
        """Call the function with a handle of the connection. `value` is its result.

        Return the error that it raised: `end` decides whose error it is.
        """
        with self.lent(connection) as handle:
            try:
                self.value = yield Invoke(function, handle)
            except Exception as error:  # noqa: BLE001 - `end` decides
                return error
        return None

    @contextmanager
    def lent(self, connection: C) -> Generator[C]:
        """Yield a handle of the connection for the function. It ends with the block."""
        lent: Any = connection.lent(self.admit, self.note_failure)  # of the connection's own kind
        with lent as handle:
            self._handle = handle
            try:
                yield handle
            finally:
                self.is_over = True

    @property
    def is_inside(self) -> bool:
        """Whether the function runs now."""
        return self._handle is not None and not self.is_over

    def admit(self, status: int) -> None:
        """Refuse a statement outside the transaction: it would be stored, or join another run."""
        if self.is_over:
            raise TransactionMisused(
                f"the run of the function given to {self._caller} has ended: nothing was sent; "
                "use its connection before the function returns"
            )
        if status == TransactionStatus.IDLE:
            raise self.misused(
                "has ended the transaction itself: what it sends after that is not stored"
            )

    def note_failure(self, error: psycopg.Error, before: int) -> None:
        """Record an error of the connection, and the transaction status `before` it."""
        if self.is_over:  # of a statement that ran when the run ended, which is a misuse
            return
        self.forget_undone(before)
        self.failures.append(error)
        self._is_lost = self._handle is not None and self._handle.closed

    def forget_undone(self, status: int) -> None:
        """Forget the recorded errors if the transaction is healthy.

        Then the function has rolled back to a savepoint. Inside a pipeline the status is
        never INTRANS, so nothing is forgotten there.
        """
        if status == TransactionStatus.INTRANS:
            self.failures.clear()

    def misused(self, what: str) -> TransactionMisused:
        """Record a misuse, and return the exception that names it."""
        self.misuse = TransactionMisused(
            f"the function given to {self._caller} {what}: "
            f"let {self._caller} begin, commit and roll back"
        )
        return self.misuse

    def end(self, raised: Exception | None) -> Verdict | None:
        """Judge the run after the function returned or raised. None: the transaction commits."""
        self.is_over = True
        status = self._status
        if self.misuse is None:
            self._look_for_misuse(status)
        if self.misuse is not None and raised in (None, self.misuse):
            return Verdict(self.misuse, self.misuse, is_functions=True)
        if raised is None and status is TransactionStatus.INTRANS:
            return None
        if raised is not None and not self._is_ours(raised, status):
            return Verdict(raised, raised, is_functions=True)
        first = self.failures[0]
        if raised is not None and (self._is_inside(first, raised) or not self._is_linked(raised)):
            return Verdict(first, raised, is_functions=False)
        first.add_note(
            f"the transaction failed here, and the function given to {self._caller} continued"
        )
        return Verdict(first, first, is_functions=False)

    @property
    def may_be_in_savepoint(self) -> bool:
        """Whether what the run sends now may be undone although the transaction commits."""
        return self._lent.may_be_in_savepoint

    @property
    def _lent(self) -> Connection | AsyncConnection:
        assert self._handle is not None  # noqa: S101 - the function gets it, and `end` follows
        return self._handle

    @property
    def _status(self) -> TransactionStatus:
        """The transaction status. An open pipeline is a statement that runs."""
        if self._lent.was_busy:
            return TransactionStatus.ACTIVE
        status = self._lent.info.transaction_status
        if status is TransactionStatus.INTRANS and self._lent.pgconn.pipeline_status:
            return TransactionStatus.ACTIVE
        return status

    def _look_for_misuse(self, status: TransactionStatus) -> None:
        """Record a misuse that no statement showed."""
        if status is TransactionStatus.UNKNOWN and not self._is_lost:
            self.misused("has closed the connection, or cancelled a statement on it")
        elif status in _NOT_OURS:
            self.misused(
                "has ended the transaction itself, or left a statement running "
                f"(status {status.name})"
            )
        elif status is TransactionStatus.INERROR and not self.failures:
            self.misused("has failed the transaction by a statement that psycopg did not run")
        elif status is TransactionStatus.INTRANS and self._lent.has_open_block:
            self.misused("has left a block of connection.transaction() open")

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
        return any(self._is_inside(failure, error) for failure in self.failures)

    @staticmethod
    def _is_inside(failure: Exception, error: Exception) -> bool:
        return any(each is failure for each in unwrap(error))
