"""A retried unit of work for sessions of SQLAlchemy 2, sync and async, on psycopg 3.

Each run has its own session. The session is bound to a connection of the writer's `transact`,
by the caller's engine. So SQLAlchemy compiles and logs the statements, and `transact` begins,
commits, rolls back, retries, and resolves a lost COMMIT.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NoReturn, TypeVar, overload
from weakref import WeakKeyDictionary

from psycopg.pq import TransactionStatus

from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.errors import MissingExtra, SettingsError, TransactionMisused
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.unit_of_work.turns import EntityKey
from dsql_outbox.writer.async_writer import AsyncWriter
from dsql_outbox.writer.attempt.pending import OnDuplicate
from dsql_outbox.writer.transact.transaction import AsyncTransaction, Transaction
from dsql_outbox.writer.writer import Writer

try:
    from sqlalchemy import Connection, Engine, PoolProxiedConnection, event
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session, SessionTransaction, sessionmaker
except ImportError as error:
    raise MissingExtra("sqlalchemy", "dsql_outbox.doors.sqlalchemy") from error

if TYPE_CHECKING:
    from psycopg.adapt import AdaptersMap

T = TypeVar("T")
S = TypeVar("S", bound=Session)
A = TypeVar("A", bound=AsyncSession)
X = TypeVar("X", bound=Transaction | AsyncTransaction)

logger: Final = logging.getLogger("dsql_outbox")

_DRIVER: Final = "psycopg"

_FAILED: Final = {TransactionStatus.INERROR, TransactionStatus.UNKNOWN}

_COMMITTED: Final = (
    "committed its session",
    "leave out commit() and begin(), transact commits at its end",
)
_ROLLED_BACK: Final = (
    "rolled back its session",
    "leave out rollback() and close(), and raise an exception",
)
_BEGAN: Final = ("began a transaction of its session", "leave out begin(), transact has begun one")
_BEGAN_SAVEPOINT: Final = (
    "began a savepoint",
    "leave out begin_nested(): Aurora DSQL has none, and no event may be rolled back alone",
)
_TOOK_CONNECTION: Final = (
    "took the connection of its session away",
    "leave out close(), detach() and invalidate() of the connection",
)
_LEFT: Final = (
    "sent a statement of its session to another connection",
    "give transact a session without binds, whose get_bind does not choose an engine",
)
_CHANGED_OUTSIDE: Final = (
    "added an object that was changed before: a retry would lose the change",
    "load and change it in the function, or add it by session.merge()",
)

_levels: WeakKeyDictionary[Writer | AsyncWriter, str] = WeakKeyDictionary()
"""The isolation level of each writer's transactions, if an engine has asked for one."""


class _AppendBase(Generic[X]):
    def __init__(self, transaction: X) -> None:
        self._transaction = transaction


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
    entities: Iterable[EntityKey] = ...,
    on_duplicate: Literal["error"] = ...,
    timeout: float | None = ...,
) -> T: ...


@overload
def transact(
    writer: Writer,
    sessions: sessionmaker[S],
    function: Callable[[S, Append], T],
    *,
    entities: Iterable[EntityKey] = ...,
    on_duplicate: OnDuplicate,
    timeout: float | None = ...,
) -> T | Receipt: ...


@overload
def transact(
    writer: AsyncWriter,
    sessions: async_sessionmaker[A],
    function: Callable[[A, AsyncAppend], Awaitable[T]],
    *,
    entities: Iterable[EntityKey] = ...,
    on_duplicate: Literal["error"] = ...,
    timeout: float | None = ...,
) -> Coroutine[Any, Any, T]: ...


@overload
def transact(
    writer: AsyncWriter,
    sessions: async_sessionmaker[A],
    function: Callable[[A, AsyncAppend], Awaitable[T]],
    *,
    entities: Iterable[EntityKey] = ...,
    on_duplicate: OnDuplicate,
    timeout: float | None = ...,
) -> Coroutine[Any, Any, T | Receipt]: ...


def transact(  # noqa: PLR0913 - the arguments of the writer's, and its sessions
    writer: Writer | AsyncWriter,
    sessions: Any,
    function: Callable[[Any, Any], Any],
    *,
    entities: Iterable[EntityKey] = (),
    on_duplicate: OnDuplicate = "error",
    timeout: float | None = None,
) -> Any:
    """Run `function(session, append)` in a transaction, commit it, and return its result.

    This is `Writer.transact` with a session: after a conflict or a lost connection,
    `function` runs again with a new session on another connection. The session is
    flushed when `function` returns. `timeout` is the limit of the call in seconds, all
    runs included. Calls of the writer that name the same `entities` run one after the other.
    ``on_duplicate="return"`` returns the receipt if the first event is stored already.
    With an `AsyncWriter`, await the call.

    The statements run on connections of the writer. They use the dialect, the events of
    connections and statements, and the execution options of the engine of `sessions`,
    but not its pool, URL or `connect_args`.

    Raises as `Writer.transact` does. A database error of a statement of the session comes
    in SQLAlchemy's wrapper. Raises `TransactionMisused` if `function` commits, rolls back,
    closes or begins, uses another connection in its session, or adds an object that was
    loaded and changed outside. Raises `TypeError` for another driver than psycopg 3 and for
    a sessionmaker of several engines or none, and `SettingsError` for an engine with
    another isolation level than the writer's transactions have.
    """
    unit = _UnitOfWork(writer, sessions)
    options = {"entities": entities, "on_duplicate": on_duplicate, "timeout": timeout}
    if isinstance(writer, AsyncWriter):
        return _transact_async(writer, unit, function, **options)
    return _transact(writer, unit, function, **options)


def _transact(
    writer: Writer, unit: "_UnitOfWork", function: Callable[[Any, Append], T], **options: Any
) -> Any:
    def run(transaction: Transaction) -> T:
        session = unit.begin()
        with unit.joined(transaction.connection):
            unit.join(session)
            value = function(session, Append(transaction))
            session.flush()
            return value

    with unit:
        return writer.transact(run, **options)


async def _transact_async(
    writer: AsyncWriter,
    unit: "_UnitOfWork",
    function: Callable[[Any, AsyncAppend], Awaitable[T]],
    **options: Any,
) -> Any:
    async def run(transaction: AsyncTransaction) -> T:
        session = unit.begin()
        try:
            with unit.joined(transaction.connection):
                await session.run_sync(unit.join)
                value = await function(session, AsyncAppend(transaction))
                await session.flush()
                return value
        except TransactionMisused:
            await session.run_sync(_undo)  # it may hold a connection of the engine's pool
            raise

    with unit:
        return await writer.transact(run, **options)


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
            with _outcome_kept():
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
        _use_adapters(connection, self._engine)
        try:
            yield
            self._joined.require_untouched()
        finally:
            self._joined.is_usable = False

    def join(self, session: Session) -> None:
        """Begin the session on the connection. An async session needs SQLAlchemy's greenlet.

        Without a transaction of its own from the start, the calls of the function that end
        one would end nothing, and go unnoticed.
        """
        assert self._joined is not None  # noqa: S101 - inside `joined`
        self._joined.connect(self._engine)
        session.bind = connection = _TransactConnection(self._engine, self._joined)
        self._require_level(connection)
        self._joined.watch(session, connection)
        if not session.in_transaction():
            session.begin()
        session.connection(bind_arguments={"bind": connection})
        # A begin() inside the transaction raises SQLAlchemy's own error, or makes a savepoint.
        vars(session)["begin"] = self._joined.refuse_begin

    def _undo(self) -> None:
        if self._session is not None:
            _undo(_sync(self._session))

    def _require_level(self, connection: Connection) -> None:
        """Raise `SettingsError` unless the transaction has the isolation level of the engine."""
        wanted = _level_of(self._engine)
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


class _JoinedConnection(PoolProxiedConnection):
    """A connection of `transact`, as SQLAlchemy sees one that a pool has lent.

    To SQLAlchemy it never looks lost. Otherwise SQLAlchemy would replace the connections
    of the engine's pool.
    """

    closed = broken = False  # as the dialect of psycopg asks for an error that means a lost one

    def __init__(self, connection: Any) -> None:
        self.driver_connection: Any = connection
        self.dbapi_connection: Any = connection
        self.info: dict[Any, Any] = {}
        self.is_usable = True
        self._misuse: TransactionMisused | None = None

    @property
    def is_valid(self) -> bool:
        """Whether it refers to a connection."""
        return True

    @property
    def is_detached(self) -> bool:
        """Whether it was taken out of its pool."""
        return False

    def connect(self, engine: Engine) -> None:
        """Adapt an async connection to the engine's dialect, as its pool would."""
        if engine.dialect.is_async:
            connect: Any = engine.dialect.loaded_dbapi.connect
            self.dbapi_connection = connect(async_creator_fn=self._driver_connection)

    async def _driver_connection(self) -> Any:
        return self.driver_connection

    def watch(self, session: Session, ours: Connection) -> None:
        """Refuse the calls of the session that the connection of the driver does not see."""

        def refuse_others(
            _session: Session, _transaction: SessionTransaction, found: Connection
        ) -> None:
            if found is not ours:
                self.refuse(_LEFT)

        def refuse_commit(_session: Session) -> None:
            self.commit()

        def note_end(_session: Session, transaction: SessionTransaction) -> None:
            if transaction.parent is None:
                self.rollback()

        def refuse_changed(session: Session, instance: object) -> None:
            if session.is_modified(instance):
                self.refuse(_CHANGED_OUTSIDE)

        event.listen(session, "after_begin", refuse_others)
        event.listen(session, "before_commit", refuse_commit)
        event.listen(session, "after_transaction_end", note_end)
        event.listen(session, "detached_to_persistent", refuse_changed)

    def cursor(self, *args: Any, **options: Any) -> Any:
        """Return a cursor of the driver."""
        if not self.is_usable:  # the connection may be in use by another call
            raise TransactionMisused(
                "the session of transact was used after its transaction: nothing was sent; "
                "use it only inside the function"
            )
        return self.dbapi_connection.cursor(*args, **options)

    def commit(self) -> None:
        """Refuse the commit of a function."""
        self.refuse(_COMMITTED)

    def rollback(self) -> None:
        """Remember the rollback of a function. After an error of the database it is no misuse."""
        if self.driver_connection.info.transaction_status not in _FAILED:
            self._note_misuse(_ROLLED_BACK)

    def refuse(self, misuse: tuple[str, str]) -> None:
        """Raise `TransactionMisused` until the function has returned, and remember it."""
        self._note_misuse(misuse)
        self.require_untouched()

    def refuse_begin(self, nested: bool = False) -> NoReturn:
        """Take the place of the session's `begin`."""
        self._note_misuse(_BEGAN_SAVEPOINT if nested else _BEGAN)
        self.require_untouched()
        raise TransactionMisused("the session of transact cannot begin another transaction")

    def require_untouched(self) -> None:
        """Raise `TransactionMisused` if the function has misused its session."""
        if self._misuse is not None:
            raise self._misuse

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Leave the connection to `transact`."""

    detach = close = invalidate

    def _note_misuse(self, misuse: tuple[str, str]) -> None:
        what, remedy = misuse
        if self.is_usable and self._misuse is None:
            self._misuse = TransactionMisused(
                f"the function given to transact {what}: nothing is stored; {remedy}"
            )


class _TransactConnection(Connection):
    """A connection that cannot be closed, without savepoints and without two-phase commit."""

    def __init__(self, engine: Engine, joined: _JoinedConnection) -> None:
        super().__init__(engine, joined)
        self._joined = joined

    def begin_nested(self) -> NoReturn:
        self._joined.refuse_begin(nested=True)

    def begin_twophase(self, xid: Any | None = None) -> Any:  # noqa: ARG002
        raise TransactionMisused(
            "transact commits in one phase: nothing is stored; use sessionmaker(twophase=False)"
        )

    def commit(self) -> None:
        self._joined.commit()

    def rollback(self) -> None:
        self._joined.rollback()
        self._joined.require_untouched()

    def close(self) -> None:
        self._joined.refuse(_TOOK_CONNECTION)

    detach = close

    def invalidate(self, exception: BaseException | None = None) -> None:
        """Refuse the call of a function.

        With an exception, it is SQLAlchemy's own, after a cancellation, Ctrl-C or a lost
        connection: the exception goes on to the caller, and `transact` judges the connection.
        """
        if exception is None:
            self._joined.refuse(_TOOK_CONNECTION)


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
    if _level_of(engine) == "AUTOCOMMIT":
        raise SettingsError(
            'transact commits all statements at once, which isolation_level="AUTOCOMMIT" '
            "contradicts: give transact a sessionmaker of an engine without isolation_level"
        )


def _level_of(engine: Engine) -> str | None:
    """The `isolation_level` that `create_engine` was given.

    SQLAlchemy keeps it under a private name alone. Without it, an engine that asks for
    SERIALIZABLE would silently get less. A test fails if a release of SQLAlchemy renames it.
    """
    level: str | None = getattr(engine.dialect, "_on_connect_isolation_level", None)
    return level


def _undo(session: Session) -> None:
    """Let the objects of the session be as before, and close it."""
    with _outcome_kept():
        session.rollback()
    with _outcome_kept():
        session.close()


@contextmanager
def _outcome_kept() -> Generator[None]:
    """Log an error that a hook of the session raises after the outcome of the call is known.

    It must not look like the outcome: the caller would write a committed event again.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - of the user's code
        logger.warning(
            "A hook of the session raised %s at the end of transact, whose outcome stays as it is",
            type(error).__name__,
        )


def _use_adapters(connection: Any, engine: Engine) -> None:
    """Give all cursors of a lent connection the type adapters of the engine's dialect.

    They contain the `json_serializer` and `json_deserializer` of the engine. psycopg takes
    adapters only when it connects, but a cursor is a context of its own for its adapters. The
    object of a lent connection ends with its run, so nothing has to be restored.
    """
    adapters: AdaptersMap | None = engine.dialect.create_connect_args(engine.url)[1].get("context")
    if adapters is not None:
        namespace = {"adapters": property(lambda _: adapters)}
        factory = connection.cursor_factory
        connection.cursor_factory = type(factory.__name__, (factory,), namespace)


def _sync(session: Any) -> Session:
    """Return the sync session. Its end does no I/O, since `transact` ends the transaction."""
    found: Session = getattr(session, "sync_session", session)
    return found
