"""The transaction of a run in Django's connection, in a block of its `atomic`.

Blocks of `atomic` in the function are nested in this one, and Django's settings of the database
apply. BEGIN with the mark of the run, and COMMIT behind its guards, are statements of the library:
at the end of the block Django finds nothing to commit.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.exchange import Row, Statements
from dsql_outbox.outbox.errors import TransactionMisused
from dsql_outbox.outbox.failure import driver_error
from dsql_outbox.outbox.interrupt import is_interrupt
from dsql_outbox.outbox.unit_of_work.commit import Guards, commit, roll_back
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.own_transaction import OwnTransaction
from dsql_outbox.outbox.unit_of_work.primitives import Invoke, Program
from dsql_outbox.outbox.unit_of_work.run_transaction import RunTransaction, Watcher

from .caller_session import Joining
from .deadline_watch import DeadlineWatch
from .django_session import DjangoSession
from .driver_sessions import role_of
from .joinable import session_of
from .sqlalchemy_transaction import TOO_LATE, ends_connection

_MARKED: Final = (
    "has marked its transaction for a rollback, or swallowed an exception of a block of atomic",
    "raise an exception to roll back",
)


class RunSession(DjangoSession):
    """Django's connection during a run, which tells the run about errors."""

    def __init__(self, transaction: "DjangoTransaction", given: Any, run: Watcher) -> None:
        super().__init__(given, transaction.joining, session_of)
        self._transaction = transaction
        self._run = run
        self.run_id = transaction.run_id

    def run(self, statements: Statements) -> Program[Sequence[Row]]:
        before = self._transaction.status
        try:
            return (yield from super().run(statements))
        except Exception as error:  # noqa: BLE001 - it is raised again
            found = self._transaction.note(error, before)
            raise found from found.__cause__

    def note_raised(self, error: Exception) -> None:
        """Note the error that the function raises: Django reports none of a `fetch`."""
        if not self._transaction.has_noted:
            self._transaction.note(error, TransactionStatus.INTRANS)

    def refuse(self, what: str, remedy: str) -> Exception:
        """Record a misuse, and return the exception that names it."""
        return self._run.record_misuse(what, remedy)


class DjangoTransaction(RunTransaction):
    """In Django's connection of one alias and thread. Its driver is psycopg 3."""

    def __init__(
        self,
        connection: Any,
        joining: Joining,
        *,
        takes_local_settings: bool,
        deadline: float | None,
    ) -> None:
        self._django = connection
        self.joining = joining
        self._takes_local_settings = takes_local_settings
        self._deadline = deadline
        self._watch = DeadlineWatch(deadline)
        self._atomic: Any = None
        self._driver: Any = None
        self._ours: Any = None
        self._run: Watcher | None = None
        self.run_id = ""
        self.has_noted = False
        """Whether the run knows of an error."""

    @property
    def status(self) -> TransactionStatus:
        status = TransactionStatus(self._driver.info.transaction_status)
        if status is TransactionStatus.INTRANS and self._driver.pgconn.pipeline_status:
            return TransactionStatus.ACTIVE  # an open pipeline is a statement that runs
        return status

    @property
    def is_lost(self) -> bool:
        return bool(self._driver.broken)

    @property
    def role(self) -> str | None:
        return role_of(self._driver)

    def is_refusal(self, error: Exception) -> bool:
        return type(error).__name__ == "TransactionManagementError"

    @property
    def aliases(self) -> Sequence[object]:
        return [self._django]

    def begin(
        self, guards: Guards, run: str, statements: Statements = ()
    ) -> Program[Sequence[Row]]:
        self.run_id = run
        yield Invoke(self._enter, None)
        with self._django.wrap_database_errors:
            return (yield from OwnTransaction(self._ours).begin(guards, run, statements))

    def run(self, statements: Statements) -> Program[Sequence[Row]]:
        with self._django.wrap_database_errors:
            return (yield from OwnTransaction(self._ours).run(statements))

    @contextmanager
    def lent(self, run: Watcher) -> Generator[Any]:
        self._run, self._ours.before_send = run, run.refuse_outside
        try:
            with self._django.execute_wrapper(self._execute):
                yield RunSession(self, self._django, run)
        finally:
            self._ours.before_send = None
        if self._django.needs_rollback and self.status is TransactionStatus.INTRANS:
            run.record_misuse(*_MARKED)

    def commit(
        self, guards: Guards, run: str, own: Mapping[str, str] | None, gate: Gate
    ) -> Program[None]:
        statements = guards.commit_statements(self._ours, run, own)
        gate.admit("COMMIT", self._ours, TransactionStatus.INTRANS)
        with self._django.wrap_database_errors:
            yield from commit(self._ours, statements)
        yield Invoke(self._leave_committed, None)

    def roll_back(self) -> Program[None]:
        yield from roll_back(self._ours)
        yield Invoke(self._leave, None)

    def close(self, error: BaseException | None) -> Program[None]:
        """Leave the block, and close a connection that failed by this error."""
        yield Invoke(self._close, error)

    def note(self, error: Exception, before: int) -> Exception:
        """Note an error of the driver, and the transaction status `before` it.

        Return the error to raise: at the deadline, one that names it.
        """
        if self._run is None or driver_error(error) is None:
            return error
        self.has_noted = True
        if self._watch.has_ended_it:
            late: Any = type(error)(TOO_LATE)
            late.__cause__, error = psycopg.OperationalError(TOO_LATE), late
        self._run.note_failure(error, before)
        return error

    def _enter(self, _: None) -> None:
        from django.db.transaction import Atomic  # noqa: PLC0415 - the caller has imported it

        block: Any = Atomic(self._django.alias, savepoint=True, durable=False)
        self._django.ensure_connection()
        block.__enter__()
        self._atomic = block
        driver = self._driver = self._django.connection
        if not isinstance(driver, psycopg.Connection):
            raise TransactionMisused(
                f"{self.joining.method} needs psycopg 3 in Django, and this connection is of "
                f"{type(driver).__module__}: use an engine that takes it"
            )
        self._ours = Connection.over(driver)
        self._ours.deadline = self._deadline
        self._ours.takes_local_settings = self._takes_local_settings
        self._watch.begin(driver, lambda: driver.closed, is_async=False)

    def _execute(self, execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        """Run a statement of the function, unless it would commit or comes after the end."""
        self._ours.judge(sql)
        before = self.status
        self._ours.before_send(before)
        try:
            return execute(sql, params, many, context)
        except Exception as error:  # noqa: BLE001 - it is raised again
            found = self.note(error, before)
            raise found from found.__cause__

    def _leave_committed(self, _: None) -> None:
        """Leave the block after the commit, of which no error may cast a doubt any more."""
        try:
            self._exit(None)
        except Exception as error:
            if is_interrupt(error):
                raise
            self._django.close()

    def _leave(self, _: None) -> None:
        if self._atomic is None:
            return
        if self._driver.closed or self._watch.has_ended_it:
            self._django.close()  # here, else Django opens another one at the end of the block
        self._exit(_RolledBack())

    def _close(self, error: BaseException | None) -> None:
        try:
            if self._ours is not None:
                self._ours.leave()  # before a pool of Django's gets the connection back
            is_ended = error is not None and ends_connection(error)
            if self._driver is not None and (is_ended or self._watch.has_ended_it):
                self._django.close()
            self._exit(_RolledBack())
        finally:
            self._watch.end()

    def _exit(self, error: Exception | None) -> None:
        block, self._atomic = self._atomic, None
        if block is not None:
            block.__exit__(None if error is None else type(error), error, None)


class _RolledBack(Exception):
    """Tells a block of `atomic` that its transaction is rolled back."""
