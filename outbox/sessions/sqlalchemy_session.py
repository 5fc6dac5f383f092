"""Sessions and connections of SQLAlchemy, on each driver, as sessions of a caller.

Each statement goes by `exec_driver_sql`, so it is part of SQLAlchemy's transaction. On the
driver's connection it might not be: on asyncpg SQLAlchemy sends BEGIN with its first statement.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from dsql_outbox.outbox.database.exchange import Row, Statements
from dsql_outbox.outbox.errors import TransactionMisused
from dsql_outbox.outbox.failure import sqlstate_of
from dsql_outbox.outbox.unit_of_work.primitives import Invoke, Program

from .caller_session import (
    CallerSession,
    Joining,
    named_parameters,
    numbered_parameters,
    text_of,
)
from .driver_sessions import end_now, psycopg2_message, role_of

T = TypeVar("T")

_DRIVERS: Final = ("psycopg", "asyncpg", "psycopg2")

_SMALL: Final = 1 << 18
"""Characters of all values that make no message over 8 MiB, however psycopg2 encodes them."""

_OWN_CURSOR: Final = {"stream_results": False, "yield_per": None}
"""The options of our statements, whatever those of the engine: no cursor of the server."""

_ANOTHER: Final = (
    "{0.method}: the session uses another connection than that of the {0.what}, and the two would "
    "not commit together: give {0.method} the connection of the rows, such as "
    'session.connection(bind_arguments={{"mapper": ..}})'
)


_FAILED: Final = (
    "{0.method} has failed in this session, and its {0.what} is not {0.stored}: roll the session "
    "back before its next statement"
)


class SqlAlchemySession(CallerSession):
    """A Session or Connection of SQLAlchemy, or the asynchronous kind of it."""

    def __init__(self, given: Any, joining: Joining) -> None:
        super().__init__(joining)
        self._given = given
        self._connection: Any = None

    def join(self) -> Program[None]:
        self._connection = yield from self._call(partial(connection_to_join, self.joining))

    def run(self, statements: Statements) -> Program[Sequence[Row]]:
        return (yield from self._call(partial(run_statements, self._connection, statements)))

    def send_failing(self) -> Program[bool]:
        return (yield from self._call(partial(_fail_all, self.joining)))

    def cut(self) -> None:
        given = self._given
        given = getattr(given, "sync_session", None) or getattr(given, "sync_connection", given)
        for connection in _connections_to_fail(self.joining, given):
            with suppress(Exception):  # such as of one that is invalidated
                end_now(connection.connection.driver_connection)

    @property
    def role(self) -> str | None:
        return role_of(self._connection.connection.driver_connection)

    def after_commit(self, ring: Callable[[], None]) -> Program[None]:
        yield from self._call(partial(_ring_after_commit, ring))

    def _call(self, function: Callable[[Any], T]) -> Program[T]:
        """Call a function with the synchronous Session or Connection."""
        run_sync = getattr(self._given, "run_sync", None)
        if run_sync is None:
            result: T = yield Invoke(function, self._given)
        else:
            result = yield Invoke(run_sync, function)
        return result


def _is_session(given: object) -> bool:
    """Return whether `connection` is a method, as in a Session. In a Connection it is not."""
    return callable(getattr(type(given), "connection", None))


def connection_to_join(joining: Joining, given: Any) -> Any:
    """Return the connection whose transaction a method joins, of a Session or a Connection.

    Raises `TransactionMisused` if it would not commit all rows of the session together.
    """
    connection = _only_connection_of(joining, given) if _is_session(given) else given
    driver = connection.dialect.driver
    if driver not in _DRIVERS:
        raise TypeError(
            f"{joining.method} takes a session on psycopg, asyncpg or psycopg2, not on {driver}: "
            'create_engine("postgresql+psycopg://..")'
        )
    if connection.connection.dbapi_connection.autocommit:
        raise joining.alone(
            "this connection is in autocommit mode",
            'with SQLAlchemy an engine without isolation_level="AUTOCOMMIT"',
        )
    if driver == "asyncpg" and _has_ended(connection.connection.dbapi_connection):
        why = "a statement such as COMMIT or ROLLBACK has ended that of this session"
        raise joining.alone(why, "commit() and rollback() of the session for it")
    return connection


def _has_ended(adapted: Any) -> bool:
    """Return whether a statement has ended a transaction of asyncpg that SQLAlchemy has begun.

    SQLAlchemy believes that it is open, and shows that nowhere else.
    """
    has_begun = getattr(adapted, "_transaction", None) is not None
    return has_begun and not adapted.driver_connection.is_in_transaction()


def run_statements(connection: Any, statements: Statements, _: object = None) -> Sequence[Row]:
    """Run statements in the transaction of a connection. Return the rows of the last one."""
    rows: Sequence[Row] = ()
    driver = connection.dialect.driver
    is_numbered = driver == "asyncpg"
    for query, values in statements:
        if driver == "psycopg2" and sum(len(value or "") for value in values.values()) > _SMALL:
            psycopg2_message(connection.connection.driver_connection, query, values)
        text = text_of(query.text if is_numbered else query.query)
        given: Any = (
            tuple(numbered_parameters(query, values)) if is_numbered else named_parameters(values)
        )
        result = connection.exec_driver_sql(text, given, _OWN_CURSOR)
        rows = result.fetchall() if result.returns_rows else ()
        result.close()
    return rows


_alone: WeakKeyDictionary[Any, tuple[Any, Joining]] = WeakKeyDictionary()
"""The only connection of each transaction of a session that a method has joined, and that method.

Without a connection the method has failed.
"""


def _only_connection_of(joining: Joining, session: Any) -> Any:
    """Return the connection of a session.

    Raises `TransactionMisused` if the session has another connection, now or later: a session
    with `binds`, or whose `get_bind` chooses an engine, commits them one after the other.
    """
    from sqlalchemy import event  # noqa: PLC0415 - the session has imported it

    connection = session.connection()
    transaction = session.get_transaction()
    if _connections_of(transaction) != {connection}:
        raise TransactionMisused(_ANOTHER.format(joining))
    _alone[transaction] = connection, joining
    if not event.contains(session, "after_begin", _refuse_another):
        event.listen(session, "after_begin", _refuse_another)
    return connection


_rings: WeakKeyDictionary[Any, set[Callable[[], None]]] = WeakKeyDictionary()
"""What to call after the COMMIT of each transaction of a session."""


def _ring_after_commit(ring: Callable[[], None], given: Any) -> None:
    """Have `ring` called after the COMMIT of a Session. A Connection tells of none."""
    if not _is_session(given):
        return
    from sqlalchemy import event  # noqa: PLC0415 - the session has imported it

    _rings.setdefault(given.get_transaction(), set()).add(ring)
    if not event.contains(given, "after_commit", _ring_all):
        event.listen(given, "after_commit", _ring_all)


def _ring_all(session: Any) -> None:
    if session.get_nested_transaction() is None:  # else it is the end of a savepoint
        for ring in _rings.pop(session.get_transaction(), ()):
            ring()


def _refuse_another(session: Any, _transaction: object, connection: Any) -> None:
    """Fail the statement that begins another connection, beside an event or after an error."""
    own, joining = _alone.get(session.get_transaction(), (connection, None))
    if joining is not None and own is not connection:
        fail_connections(joining, [connection] if own is None else [own, connection])
        raise TransactionMisused((_FAILED if own is None else _ANOTHER).format(joining))


def _connections_of(transaction: Any) -> Collection[Any]:
    """Return the connections of a session's transaction, if it has begun one."""
    if transaction is None:
        return set()
    if hasattr(transaction, "connections"):
        found: Collection[Any] = transaction.connections
        return found
    entries = transaction._connections.values()  # noqa: SLF001 - before SQLAlchemy 2.1.7
    return {connection for connection, *_ in entries}


def _connections_to_fail(joining: Joining, given: Any) -> Collection[Any]:
    """Return the connections of a Session, which begins no other one from now on, or the one."""
    if not _is_session(given):
        return [given]
    from sqlalchemy import event  # noqa: PLC0415 - the session has imported it

    transaction = given.get_transaction() or given.begin()
    connections = _connections_of(transaction)
    _alone[transaction] = None, joining
    if not event.contains(given, "after_begin", _refuse_another):
        event.listen(given, "after_begin", _refuse_another)
    return connections


def _fail_all(joining: Joining, given: Any) -> bool:
    """Fail the transactions of all connections of a Session, or that of a Connection."""
    if _is_session(given):
        with suppress(Exception):  # such as of `binds` without an engine for what is no mapper
            given.connection()  # in a session that has none yet, a later statement has to fail
    return fail_connections(joining, _connections_to_fail(joining, given))


def fail_connections(joining: Joining, connections: Collection[Any]) -> bool:
    """Fail the transactions of SQLAlchemy's connections. Each statement after that fails too.

    Return whether none of them can be committed now.
    """
    # Each of them, also after one that has not failed.
    have_failed = [_has_failed(joining, connection) for connection in connections]
    return all(have_failed)


def _has_failed(joining: Joining, connection: Any) -> bool:
    try:
        connection.exec_driver_sql(joining.failing, None, _OWN_CURSOR)
    except Exception as error:  # noqa: BLE001 - SQLAlchemy's, or the driver's without a wrapper
        is_gone = connection.closed or connection.invalidated
        return sqlstate_of(error) is not None or is_gone or not connection.in_transaction()
    return False
