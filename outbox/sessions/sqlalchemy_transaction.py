"""The transaction of a run in a session of SQLAlchemy, on a connection of its engine.

The session begins and commits, so the engine's pool, events, isolation level and options apply.
The mark of the run is its first statement. The guards are its last one: they are sent by the
`commit` of the connection that the pool has lent, which SQLAlchemy calls after all its hooks.
"""

import asyncio
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from inspect import isawaitable
from typing import Any, Final, NoReturn, TypeVar
from weakref import WeakSet

import psycopg
from psycopg.pq import TransactionStatus

from dsql_outbox.outbox.database.connection import is_commit
from dsql_outbox.outbox.database.exchange import (
    NumberedQuery,
    Row,
    Statements,
    numbered,
    unprepared,
)
from dsql_outbox.outbox.errors import TransactionMisused
from dsql_outbox.outbox.failure import (
    RETRIED,
    FailureKind,
    kind_of,
    lacks_feature,
    sqlstate_of,
)
from dsql_outbox.outbox.interrupt import is_interrupt
from dsql_outbox.outbox.unit_of_work.commit import GuardFailed, Guards
from dsql_outbox.outbox.unit_of_work.function_run import RunFailed
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.primitives import Invoke, Program
from dsql_outbox.outbox.unit_of_work.run_transaction import RunTransaction, Watcher

from .caller_session import Joining
from .deadline_watch import DeadlineWatch
from .driver_sessions import role_of
from .sqlalchemy_session import connection_to_join, fail_connections, run_statements

T = TypeVar("T")

logger: Final = logging.getLogger("dsql_outbox")

_ENDING: Final = (RETRIED - {FailureKind.COLLISION}) | {FailureKind.READ_ONLY}
"""The failures after which no pool gets the connection back: the next run has another one."""

_UNUSABLE: Final = {TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN}

_FAILED_TRANSACTION: Final = "25P02"

_REFUSALS: Final = {"InvalidRequestError", "PendingRollbackError", "ResourceClosedError"}
"""The errors of SQLAlchemy for a session whose transaction has ended."""

_COMMITTED: Final = (
    "has committed its session",
    "leave out the commit, {0.method} commits at its end",
)
_ENDED: Final = (
    "has ended the transaction itself: what it sends after that is not stored",
    "let {0.method} begin, commit and roll back",
)
_ANOTHER: Final = (
    "has sent a statement of its session to another connection",
    "use one transaction, and a session of one engine",
)
_CHANGED_OUTSIDE: Final = (
    "has added an object that was changed before, and a retry would lose the change",
    "load and change it in the function, or add it by session.merge()",
)
_NOT_COMMITTED: Final = (
    "has changed its session, so that session.commit() has committed nothing",
    "leave the commit of the session as it is",
)

TOO_LATE: Final = "no answer from the database before the deadline; the connection is closed"

_NOTHING: Final = unprepared(b"SELECT 1")
"""It fails in a transaction that has failed."""

_unmarked: WeakSet[Any] = WeakSet()
"""The engines whose server takes no mark, although the URL of the writer says so."""

_running: "dict[Any, SqlalchemyTransaction]" = {}
"""The transaction that each connection has now."""


class SqlalchemyTransaction(RunTransaction):
    """In a Session or AsyncSession. Its methods run in SQLAlchemy's greenlet for the latter."""

    def __init__(
        self, session: Any, joining: Joining, *, takes_local_settings: bool, deadline: float | None
    ) -> None:
        self._session = session
        self._joining = joining
        self._run_sync: Callable[[Callable[[Any], Any]], Any]
        self._run_sync = getattr(session, "run_sync", None) or (lambda act: act(session))
        self._takes_local_settings = takes_local_settings
        self._watch = DeadlineWatch(deadline)
        self._connection: Any = None
        self._root: Any = None
        self._driver: Any = None
        self._run: Watcher | None = None
        self._proof: Callable[[], None] | None = None
        self._is_committed = False
        self._commit_error: BaseException | None = None
        """What came instead of the answer that the COMMIT was done."""
        self._has_failed = False
        self._is_lost = False

    @property
    def status(self) -> TransactionStatus:
        """The status as the driver has it, or INERROR after an error.

        SQLAlchemy itself rolls back after an error in a flush. And asyncpg does not tell whether
        an open transaction has failed.
        """
        if self._is_lost:
            return TransactionStatus.UNKNOWN
        found, is_sure = self._found_status()
        if is_sure:
            self._has_failed = False
        return TransactionStatus.INERROR if self._has_failed else found

    @property
    def is_lost(self) -> bool:
        return self._is_lost

    @property
    def role(self) -> str | None:
        return role_of(self._driver)

    def is_refusal(self, error: Exception) -> bool:
        return type(error).__module__ == "sqlalchemy.exc" and type(error).__name__ in _REFUSALS

    @property
    def aliases(self) -> Sequence[object]:
        return [self._connection]

    def begin(
        self, guards: Guards, run: str, statements: Statements = ()
    ) -> Program[Sequence[Row]]:
        yield from self._call(self._open)
        if self._has_mark:
            try:
                yield from self.run([(_mark_of(guards), {"run": run})])
            except Exception as error:
                if not lacks_feature(error):
                    raise
                _unmarked.add(self._connection.engine)
                yield from self._call(self._open_again)
        if not self._has_mark:
            # Drivers begin with the first statement. Until then they say what they say after a
            # ROLLBACK of the function.
            yield from self.run([(_NOTHING, {})])
        return (yield from self.run(statements))

    def run(self, statements: Statements) -> Program[Sequence[Row]]:
        return (yield from self._call(lambda _: self._send(statements)))

    @contextmanager
    def lent(self, run: Watcher) -> Generator[Any]:
        self._run = run
        yield self._session

    def commit(
        self, guards: Guards, run: str, own: Mapping[str, str] | None, gate: Gate
    ) -> Program[None]:
        proof = _proof_of(guards, has_mark=self._has_mark, has_own=own is not None)
        values: dict[str, str | None] = {"run": run, **(own or {})}
        yield from self._call(partial(self._commit, [(proof, values)], gate))

    def roll_back(self) -> Program[None]:
        yield from self._call(self._roll_back)

    def close(self, error: BaseException | None) -> Program[None]:
        """Give the connection back, or close it if it failed by this error."""
        close = partial(self._close, error)
        yield Invoke(lambda _: shielded(self._run_sync(close)), None)

    @property
    def _has_mark(self) -> bool:
        return self._takes_local_settings and self._connection.engine not in _unmarked

    def _call(self, function: Callable[[Any], T]) -> Program[T]:
        """Call a function with the synchronous session."""
        result: T = yield Invoke(self._run_sync, function)
        return result

    def _open(self, session: Any) -> None:
        from sqlalchemy import event  # noqa: PLC0415 - the session has imported it

        if session.twophase:  # whose commit would pass the guards
            raise TypeError(
                f"{self._joining.method} commits in one phase: give it a sessionmaker without "
                "twophase"
            )
        if not session.in_transaction():
            session.begin()
        self._connection = connection = connection_to_join(self._joining, session)
        self._root = connection.get_transaction()
        lent = connection.connection
        self._driver = lent.driver_connection
        self._has_failed = False
        # Not by the event `commit`: hooks of the engine come after those of the connection.
        lent.commit = partial(self._commit_behind_proof, lent.commit)
        _running[connection] = self
        event.listen(connection, "before_cursor_execute", self._refuse_statement)
        event.listen(connection, "rollback_savepoint", self._forget_failure)
        event.listen(session, "after_begin", self._refuse_another, insert=True)
        event.listen(session, "detached_to_persistent", self._refuse_changed)
        dialect = connection.dialect  # one for all engines that share a pool
        if not event.contains(dialect, "handle_error", _note_error):
            event.listen(dialect, "handle_error", _note_error, insert=True)
        for returned in ("after_commit", "after_rollback"):  # to the pool, soon after the event
            event.listen(session, returned, self._watch.end)
        self._watch.begin(
            self._driver,
            lambda: connection.closed or connection.invalidated,
            is_async=connection.dialect.is_async,
        )

    def _open_again(self, session: Any) -> None:
        _running.pop(self._connection, None)
        session.rollback()
        self._open(session)

    def _send(self, statements: Statements) -> Sequence[Row]:
        return run_statements(self._connection, statements)

    def _commit(self, proof: Statements, gate: Gate, session: Any) -> None:
        session.expire_on_commit = False  # nothing can load the attributes of a result again
        self._proof = partial(self._send_proof, proof, gate)
        try:
            session.commit()
        except Exception as error:
            if is_interrupt(error) or not (self._is_committed or self._commit_error):
                raise
            if self._is_committed:
                self._tell_hook(error)
        if self._is_committed:
            return
        if self._commit_error is None:
            self._refuse(_NOT_COMMITTED)
        raise self._commit_error  # the session's own class may have swallowed it

    def _send_proof(self, proof: Statements, gate: Gate) -> None:
        try:
            self._send(proof)
        except Exception as error:
            if sqlstate_of(error) is None:
                raise
            raise GuardFailed(error) from error
        gate.admit_commit()

    def _commit_behind_proof(self, commit: Callable[[], None]) -> None:
        """Prove the run before its COMMIT, or refuse a COMMIT of the function, or another one."""
        proof, self._proof = self._proof, None
        if proof is None:
            self._refuse(_COMMITTED)
        try:
            proof()
            commit()
        except BaseException as error:
            self._commit_error = error
            raise
        self._is_committed = True

    def _close(self, error: BaseException | None, session: Any) -> None:
        try:
            is_ended = self._watch.has_ended_it or (error is not None and ends_connection(error))
            if is_ended and self._connection is not None:
                _invalidate(self._connection)
        finally:
            try:
                self._at_the_end(session.rollback)
            finally:
                self._at_the_end(session.close)
                _running.pop(self._connection, None)
                self._watch.end()

    def _roll_back(self, session: Any) -> None:
        if self._found_status()[0] in _UNUSABLE or self._watch.has_ended_it:
            _invalidate(self._connection)
        self._at_the_end(session.rollback)

    def _found_status(self) -> tuple[TransactionStatus, bool]:
        """Return the status, and whether it says that the transaction has not failed."""
        connection = self._connection
        if connection.invalidated:
            return TransactionStatus.UNKNOWN, False
        if connection.closed or connection.get_transaction() is not self._root:
            return TransactionStatus.IDLE, False
        driver = self._driver
        if hasattr(driver, "is_in_transaction"):
            if driver.is_closed():  # at the deadline, as the next statement tells
                is_late = self._watch.has_ended_it
                return (TransactionStatus.INTRANS if is_late else TransactionStatus.UNKNOWN), False
            is_open = driver.is_in_transaction()
            return (TransactionStatus.INTRANS if is_open else TransactionStatus.IDLE), False
        if getattr(getattr(driver, "pgconn", None), "pipeline_status", 0):
            return TransactionStatus.ACTIVE, False
        found = TransactionStatus(driver.info.transaction_status)
        return found, found is TransactionStatus.INTRANS

    def note_error(self, context: Any) -> Exception | None:
        """Note an error of the connection. Return another one to be raised, or None."""
        error = context.original_exception
        if isinstance(error, (GuardFailed, TransactionMisused)):  # ours, about a COMMIT
            return None
        if not isinstance(error, Exception) or is_interrupt(error):
            _end_connection(context)  # in the middle of a statement
            return None
        if error is self._commit_error:
            self._commit_error = context.sqlalchemy_exception or error
        self._is_lost = self._is_lost or context.is_disconnect
        late = psycopg.OperationalError(TOO_LATE) if self._watch.has_ended_it else None
        state = sqlstate_of(error)
        was_healthy = not self._has_failed or state not in {None, _FAILED_TRANSACTION}
        before = TransactionStatus.INTRANS if was_healthy else TransactionStatus.INERROR
        self._has_failed = self._has_failed or state is not None or self._is_lost
        # If no statement failed, then ROLLBACK did: the pool would lend an open transaction again.
        if kind_of(error) in _ENDING or (context.statement is None and state is None):
            _end_connection(context)
        if self._run is not None:
            self._run.note_failure(late or context.sqlalchemy_exception or error, before)
        return late

    def _forget_failure(self, *_: object) -> None:
        self._has_failed = False

    def _refuse_statement(self, _connection: Any, _cursor: Any, text: str, *_: object) -> None:
        """Refuse a text that begins with COMMIT, or after the end: neither could be taken back."""
        if is_commit(text.encode()):
            self._refuse(_COMMITTED)
        if self._run is not None and self._found_status()[0] is TransactionStatus.IDLE:
            self._refuse(_ENDED)  # on asyncpg the statement would be committed alone

    def _refuse_another(self, _session: Any, _transaction: object, connection: Any) -> None:
        if self._run is not None and connection is not self._connection:
            fail_connections(self._joining, [self._connection, connection])
            self._refuse(_ANOTHER)

    def _refuse_changed(self, session: Any, instance: object) -> None:
        if session.is_modified(instance):
            self._refuse(_CHANGED_OUTSIDE)

    def _at_the_end(self, end: Callable[[], object]) -> None:
        """End a session. An error of its hooks must not look like the outcome of the call."""
        try:
            end()
        except Exception as error:
            if is_interrupt(error):
                raise
            self._tell_hook(error)

    def _tell_hook(self, error: Exception) -> None:
        logger.warning(
            "A hook of the session raised %s at the end of %s, whose outcome stays as it is",
            type(error).__name__,
            self._joining.method,
        )

    def _refuse(self, misuse: tuple[str, str]) -> NoReturn:
        assert self._run is not None  # noqa: S101 - the function runs
        what, remedy = misuse
        raise self._run.record_misuse(what, remedy.format(self._joining))


@lru_cache(maxsize=64)
def _mark_of(guards: Guards) -> NumberedQuery:
    return numbered("run_mark", guards.mark)


@lru_cache(maxsize=64)
def _proof_of(guards: Guards, *, has_mark: bool, has_own: bool) -> NumberedQuery:
    """Return one statement that proves a run, or at least that its transaction has not failed."""
    proofs = [*([guards.of_mark] if has_mark else []), *([guards.own] if has_own else [])]
    if not proofs:
        return _NOTHING
    texts = [_NOTHING.query, *(b"(%s)" % proof for proof in proofs)]
    return numbered("run_proof", b", ".join(texts))


def _note_error(context: Any) -> Exception | None:
    found = _running.get(context.connection) if context.connection is not None else None
    return None if found is None else found.note_error(context)


def _end_connection(context: Any) -> None:
    """Have SQLAlchemy close this connection, and no other one of the pool.

    It does so at once. After an error in a flush it gives the connection back itself. One that
    the function has detached from the pool is closed at its end anyway.
    """
    connection = context.connection
    if not context.is_disconnect and not connection.connection.is_detached:
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, False


def ends_connection(error: BaseException) -> bool:
    """Return whether a connection is not to be used again after this error of its run."""
    found = error.verdict.error if isinstance(error, RunFailed) else error
    return not isinstance(found, Exception) or is_interrupt(found) or kind_of(found) in _ENDING


def shielded(ending: Any) -> Any:
    """Have a task end a session or connection that awaits it: a cancellation leaves it alone."""
    return asyncio.shield(asyncio.ensure_future(ending)) if isawaitable(ending) else ending


def _invalidate(connection: Any) -> None:
    if not (connection.closed or connection.invalidated):
        connection.invalidate()
