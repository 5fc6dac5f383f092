"""A retried unit of work for sessions of SQLAlchemy 2, sync and async, on psycopg 3.

Each run has its own session. The session is bound to a connection of the writer's `transact`,
by the caller's engine. So SQLAlchemy compiles and logs the statements, and `transact` begins,
commits, rolls back, retries, and resolves a lost COMMIT.
"""

from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import TransactionStatus

from dsql_outbox import (
    AsyncTransaction,
    AsyncWriter,
    Entity,
    Event,
    MissingExtra,
    Receipt,
    SettingsError,
    Transaction,
    TransactionMisused,
    Writer,
)
from dsql_outbox.outbox import EventSource, wrong_type

try:
    from sqlalchemy import Connection, Engine, NestedTransaction
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session, sessionmaker
except ImportError as error:
    raise MissingExtra("sqlalchemy", "dsql_outbox.doors.sqlalchemy") from error

if TYPE_CHECKING:
    from psycopg.adapt import AdaptersMap

T = TypeVar("T")
S = TypeVar("S", bound=Session)
A = TypeVar("A", bound=AsyncSession)
X = TypeVar("X", bound=Transaction | AsyncTransaction)

_DRIVER: Final = "psycopg"

_levels: WeakKeyDictionary[Writer | AsyncWriter, str] = WeakKeyDictionary()
"""The isolation level of each writer's transactions, if an engine has asked for one."""


class _AppendBase(Generic[X]):
    def __init__(self, transaction: X) -> None:
        self._transaction = transaction

    def new_event(
        self,
        name: str,
        type: str,  # noqa: A002 - the name of the field
        entities: Iterable[Entity],
        *,
        created_date: datetime | None = None,
    ) -> Event:
        """Return a new event. The n-th event of a run has the same id in every run of this call.

        So if the COMMIT of a run is lost, a look-up of its first event tells whether that
        run was committed.
        """
        return self._transaction.new_event(name, type, entities, created_date=created_date)


class Append(_AppendBase[Transaction]):
    """Writes events in the transaction of a session."""

    def __call__(self, event: EventSource, *, expected_version: int | None = None) -> Receipt:
        """Write one event. The receipt is valid after `transact` returns.

        Raises as `Transaction.append` does.
        """
        return self._transaction.append(event, expected_version=expected_version)


class AsyncAppend(_AppendBase[AsyncTransaction]):
    """Writes events in the transaction of a session. For asyncio."""

    def __call__(
        self, event: EventSource, *, expected_version: int | None = None
    ) -> Coroutine[Any, Any, Receipt]:
        """Write one event. The receipt is valid after `transact` returns.

        Await it before the function returns. Raises as `AsyncTransaction.append` does.
        """
        return self._transaction.append(event, expected_version=expected_version)


@overload
def transact(
    writer: Writer,
    sessions: sessionmaker[S],
    function: Callable[[S, Append], T],
    *,
    timeout: float | None = None,
) -> T: ...


@overload
def transact(
    writer: AsyncWriter,
    sessions: async_sessionmaker[A],
    function: Callable[[A, AsyncAppend], Awaitable[T]],
    *,
    timeout: float | None = None,
) -> Coroutine[Any, Any, T]: ...


def transact(
    writer: Writer | AsyncWriter,
    sessions: Any,
    function: Callable[[Any, Any], Any],
    *,
    timeout: float | None = None,
) -> Any:
    """Run `function(session, append)` in a transaction, commit it, and return its result.

    This is `Writer.transact` with a session: after a conflict or a lost connection,
    `function` runs again with a new session on another connection. The session is
    flushed when `function` returns. `timeout` is the limit of the call in seconds, all
    runs included. With an `AsyncWriter`, await the call.

    The statements run on connections of the writer. They use the dialect, the events of
    connections and statements, and the execution options of the engine of `sessions`,
    but not its pool, URL or `connect_args`.

    Raises as `Writer.transact` does. A database error of a statement of the session comes
    in SQLAlchemy's wrapper. Raises `TransactionMisused` if `function` commits, rolls back
    or begins a savepoint. Raises `TypeError` for another driver than psycopg 3 and for a
    sessionmaker of several engines or none, and `SettingsError` for an engine with
    another isolation level than the writer's transactions have.
    """
    unit = _UnitOfWork(writer, sessions)
    if isinstance(writer, AsyncWriter):
        return _transact_async(writer, unit, function, timeout)
    return _transact(writer, unit, function, timeout)


def _transact(
    writer: Writer, unit: "_UnitOfWork", function: Callable[[Any, Append], T], timeout: float | None
) -> T:
    def run(transaction: Transaction) -> T:
        session = unit.begin()
        with unit.joined(transaction.connection):
            unit.join(session)
            value = function(session, Append(transaction))
            session.flush()
            return value

    with unit:
        return writer.transact(run, timeout=timeout)


async def _transact_async(
    writer: AsyncWriter,
    unit: "_UnitOfWork",
    function: Callable[[Any, AsyncAppend], Awaitable[T]],
    timeout: float | None,
) -> T:
    async def run(transaction: AsyncTransaction) -> T:
        session = unit.begin()
        with unit.joined(transaction.connection):
            await session.run_sync(unit.join)
            value = await function(session, AsyncAppend(transaction))
            await session.flush()
            return value

    with unit:
        return await writer.transact(run, timeout=timeout)


class _UnitOfWork:
    """The runs of one call: one session per run, of which the last one counts.

    Until the call ends it is not known whether a run is committed. So the session of a
    run is undone when the next one begins: its new objects can then be added again.
    """

    def __init__(self, writer: Any, sessions: Any) -> None:
        _require_sessions(writer, sessions)
        self._writer = writer
        self._sessions = sessions
        self._engine = _engine_of(sessions)
        self._session: Any = None
        self._joined: _JoinedConnection | None = None

    def __enter__(self) -> None:
        """Begin the call."""

    def __exit__(self, kind: object, *_: object) -> None:
        """End the call. Objects of a committed session keep their attributes."""
        if kind is not None:
            self._undo()
        elif self._session is not None:
            _sync(self._session).close()

    def begin(self) -> Any:
        """Return the session of another run."""
        self._undo()
        self._session = self._sessions()
        return self._session

    @contextmanager
    def joined(self, connection: Any) -> Generator[None]:
        """Let the session use the connection of a transaction during the block."""
        self._joined = _JoinedConnection(connection)
        with _adapted(connection, self._engine):
            try:
                yield
                self._joined.require_untouched()
            finally:
                self._joined.is_valid = False

    def join(self, session: Session) -> None:
        """Bind the session to the connection. An async session needs SQLAlchemy's greenlet."""
        assert self._joined is not None  # noqa: S101 - inside `joined`
        self._joined.connect(self._engine)
        pooled: Any = self._joined
        session.bind = _TransactConnection(self._engine, pooled)
        self._require_level(session.bind)

    def _undo(self) -> None:
        if self._session is not None:
            session = _sync(self._session)
            session.rollback()
            session.close()

    def _require_level(self, connection: Connection) -> None:
        """Raise `SettingsError` unless the transaction has the isolation level of the engine."""
        wanted = getattr(self._engine.dialect, "_on_connect_isolation_level", None)
        if wanted is None:
            return
        if self._writer not in _levels:
            _levels[self._writer] = connection.get_isolation_level()
        if wanted != (found := _levels[self._writer]):
            raise SettingsError(
                f"the engine has isolation_level {wanted}, and the transactions of this writer "
                f"are {found}: nothing is stored; give transact a sessionmaker of an engine "
                "without isolation_level, and the level to Database(isolation=..)"
            )


class _JoinedConnection:
    """A connection of `transact` in the place of SQLAlchemy's `PoolProxiedConnection`.

    To SQLAlchemy it never looks lost. Otherwise SQLAlchemy would replace the connections
    of the engine's pool.
    """

    closed = broken = is_detached = False

    def __init__(self, connection: Any) -> None:
        self.driver_connection = connection
        self.dbapi_connection = connection
        self.info: dict[Any, Any] = {}
        self.is_valid = True
        self._misuse: TransactionMisused | None = None

    def connect(self, engine: Engine) -> None:
        """Adapt an async connection to the engine's dialect, as its pool would."""
        if engine.dialect.is_async:
            connect: Any = engine.dialect.loaded_dbapi.connect
            self.dbapi_connection = connect(async_creator_fn=self._created)

    async def _created(self) -> Any:
        return self.driver_connection

    def cursor(self, *args: Any, **options: Any) -> Any:
        """Return a cursor of the driver."""
        return self.dbapi_connection.cursor(*args, **options)

    def commit(self) -> None:
        """Refuse the commit of a function."""
        self._misused("committed", "leave out commit() and begin(), transact commits at its end")
        self.require_untouched()

    def rollback(self) -> None:
        """Remember the rollback of a function. After an error of the database it is no misuse."""
        status = self.driver_connection.info.transaction_status
        if status is TransactionStatus.INTRANS:
            self._misused("rolled back", "leave out rollback() and close(), and raise an exception")

    def require_untouched(self) -> None:
        """Raise `TransactionMisused` if the function committed or rolled back."""
        if self._misuse is not None:
            raise self._misuse

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Leave the connection to `transact`."""

    detach = close = invalidate

    def _misused(self, what: str, remedy: str) -> None:
        self._misuse = self._misuse or TransactionMisused(
            f"the function given to transact {what} its session: nothing is stored; {remedy}"
        )


class _TransactConnection(Connection):
    """A connection without savepoints and without two-phase commit."""

    def begin_nested(self) -> NestedTransaction:
        raise TransactionMisused(
            "the function given to transact began a savepoint: nothing is stored; leave out "
            "begin_nested(), since Aurora DSQL has none and an event must not be rolled back alone"
        )

    def begin_twophase(self, xid: Any | None = None) -> Any:  # noqa: ARG002
        raise TransactionMisused(
            "transact commits in one phase: nothing is stored; use sessionmaker(twophase=False)"
        )


def _require_sessions(writer: object, sessions: object) -> None:
    """Raise `TypeError` unless the sessionmaker is of the kind of the writer."""
    if not isinstance(writer, (Writer, AsyncWriter)):
        raise wrong_type(
            "transact takes a Writer or AsyncWriter", writer, "transact(Writer(..), ..)"
        )
    kind: type = sessionmaker if isinstance(writer, Writer) else async_sessionmaker
    if not isinstance(sessions, kind):
        takes = f"transact of {type(writer).__name__} takes a {kind.__name__}"
        raise wrong_type(takes, sessions, f"{kind.__name__}(engine)")


def _engine_of(sessions: Any) -> Engine:
    """Return the engine of a sessionmaker.

    Raises `TypeError` unless it has one engine, of psycopg 3. Raises `SettingsError` for
    options that only the pool's connections can have.
    """
    if sessions.kw.get("binds"):
        raise TypeError("transact takes a sessionmaker of one engine, without binds")
    bind = sessions.kw.get("bind")
    engine = bind.sync_engine if isinstance(bind, AsyncEngine) else bind
    if not isinstance(engine, Engine):
        takes = "transact takes a sessionmaker of an engine"
        raise wrong_type(takes, bind, 'sessionmaker(create_engine("postgresql+psycopg://.."))')
    if engine.dialect.driver != _DRIVER:
        raise TypeError(
            f"transact takes an engine of psycopg 3, not {engine.dialect.driver}: "
            f'create_engine("{engine.dialect.name}+psycopg://..")'
        )
    _require_options(engine)
    return engine


def _require_options(engine: Engine) -> None:
    characteristics: Any = getattr(engine.dialect, "connection_characteristics", {})
    of_pool = {"isolation_level", "postgresql_readonly", "postgresql_deferrable"}
    if found := sorted(of_pool & set(characteristics) & set(engine.get_execution_options())):
        raise SettingsError(
            f"transact cannot apply the execution option {found[0]} of the engine, since its "
            "transaction has begun: leave it out, and use Database(isolation=..)"
        )
    if getattr(engine.dialect, "_on_connect_isolation_level", None) == "AUTOCOMMIT":
        raise SettingsError(
            'transact commits all statements at once, which isolation_level="AUTOCOMMIT" '
            "contradicts: give transact a sessionmaker of an engine without isolation_level"
        )


@contextmanager
def _adapted(connection: psycopg.BaseConnection[Any], engine: Engine) -> Generator[None]:
    """Give the connection the type adapters of the engine's dialect during the block.

    They contain the `json_serializer` and `json_deserializer` of the engine.
    """
    adapters: AdaptersMap | None = engine.dialect.create_connect_args(engine.url)[1].get("context")
    adapted: Any = connection  # psycopg takes adapters only when it connects
    kept = adapted._adapters  # noqa: SLF001
    adapted._adapters = adapters or kept  # noqa: SLF001
    try:
        yield
    finally:
        adapted._adapters = kept  # noqa: SLF001


def _sync(session: Any) -> Session:
    """Return the sync session. Its end does no I/O, since `transact` ends the transaction."""
    found: Session = getattr(session, "sync_session", session)
    return found
