"""psycopg's connection behind a session or connection of SQLAlchemy or Django.

Their objects are recognised by their methods, and any other object is returned as it is, for
`require_connection` to judge. SQLAlchemy is imported only for one of its sessions. The
protocols say which objects `append_to` takes.
"""

from collections.abc import Collection
from contextlib import suppress
from inspect import iscoroutinefunction
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import psycopg

from dsql_outbox.outbox.errors import TransactionMisused
from dsql_outbox.schema.named_statements import read_sql

APPEND_FAILED: Final = read_sql("statements", "append_failed")
"""Fails the transaction in which it runs."""

_ANOTHER: Final = (
    "append_to: the session uses another connection than that of the event, and the two would not "
    "commit together: give append_to the connection of the rows, such as "
    'session.connection(bind_arguments={"mapper": ..})'
)


class _Pooled(Protocol):
    @property
    def driver_connection(self) -> Any: ...


class SqlAlchemyConnection(Protocol):
    """A Connection of SQLAlchemy."""

    @property
    def connection(self) -> _Pooled:
        """The connection of the pool."""
        ...

    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        ...

    def begin(self) -> Any:
        """Begin a transaction."""
        ...


class SqlAlchemySession(Protocol):
    """A Session of SQLAlchemy, or its scoped_session."""

    def connection(self) -> SqlAlchemyConnection:
        """Return the connection of the session's transaction."""
        ...


class DjangoConnection(Protocol):
    """Django's connection to a database, such as ``django.db.connection``."""

    in_atomic_block: bool
    connection: Any

    def set_rollback(self, rollback: bool) -> None:
        """Let the block of `atomic` end in a rollback."""
        ...

    def validate_no_broken_transaction(self) -> None:
        """Raise Django's error if the block of `atomic` will be rolled back."""
        ...


class AsyncSqlAlchemyConnection(Protocol):
    """An AsyncConnection of SQLAlchemy."""

    async def get_raw_connection(self) -> _Pooled:
        """Return the connection of the pool."""
        ...

    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        ...

    def begin(self) -> Any:
        """Begin a transaction, once it is awaited."""
        ...


class AsyncSqlAlchemySession(Protocol):
    """An AsyncSession of SQLAlchemy, or its async_scoped_session."""

    async def connection(self) -> AsyncSqlAlchemyConnection:
        """Return the connection of the session's transaction."""
        ...


Joinable = psycopg.Connection[Any] | SqlAlchemySession | SqlAlchemyConnection | DjangoConnection
AsyncJoinable = psycopg.AsyncConnection[Any] | AsyncSqlAlchemySession | AsyncSqlAlchemyConnection


def driver_connection(given: Any) -> Any:
    """Return the driver's connection of a transaction that is given as one of `Joinable`.

    Like any statement, this begins SQLAlchemy's transaction if none is open.
    """
    if _is_final(given):
        return given
    if hasattr(given, "in_atomic_block"):
        return _driver_of_django(given)
    if _is_session(given):
        if iscoroutinefunction(given.connection):
            return given
        return _driver_of(_only_connection_of(_session_of(given)))
    is_sync = hasattr(given, "in_transaction") and not hasattr(given, "get_raw_connection")
    return _driver_of(given) if is_sync else given


async def async_driver_connection(given: Any) -> Any:
    """Return the driver's connection, as `driver_connection` does, for one of `AsyncJoinable`."""
    if _is_final(given):
        return given
    if _is_session(given) and iscoroutinefunction(given.connection):
        session = _session_of(given)
        await session.run_sync(_only_connection_of)
        return await _async_driver_of(await session.connection())
    return await _async_driver_of(given) if hasattr(given, "get_raw_connection") else given


def _is_final(given: object) -> bool:
    """Return whether `given` is psycopg's connection already, or a class."""
    return isinstance(given, (psycopg.BaseConnection, type))


def _is_session(given: object) -> bool:
    """Return whether `connection` is a method, as in a session. In a connection it is not."""
    return callable(getattr(type(given), "connection", None))


def _driver_of(connection: SqlAlchemyConnection) -> Any:
    if not connection.in_transaction():
        connection.begin()
    return connection.connection.driver_connection


async def _async_driver_of(connection: AsyncSqlAlchemyConnection) -> Any:
    if not connection.in_transaction():
        await connection.begin()
    return (await connection.get_raw_connection()).driver_connection


def _driver_of_django(connection: DjangoConnection) -> Any:
    connection.validate_no_broken_transaction()
    return connection.connection


def undo_block(given: Any) -> None:
    """Let a block of Django's `atomic` end in a rollback, without its `on_commit` hooks.

    An error of `append_to` does not pass through Django, which looks at no transaction status.
    """
    if getattr(given, "in_atomic_block", False):
        given.set_rollback(True)


_alone: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""The connection of each transaction of a session that holds an event."""


def _session_of(given: Any) -> Any:
    """Return the session that a scoped session has now."""
    return given() if hasattr(given, "registry") else given


def _only_connection_of(session: Any) -> Any:
    """Return the connection of a session. An error fails what the session has begun.

    Raises `TransactionMisused` if the session has another connection, now or later: a session
    with `binds`, or whose `get_bind` chooses an engine, commits them one after the other.
    """
    from sqlalchemy import event  # noqa: PLC0415 - the session has imported it

    try:
        connection = session.connection()
    except BaseException:  # such as of `binds` without an engine for what is no mapper
        _fail(_connections_of(session.get_transaction()))
        raise
    transaction = session.get_transaction()
    found = _connections_of(transaction)
    if found != {connection}:
        _fail(found)
        raise TransactionMisused(_ANOTHER)
    _alone[transaction] = connection
    if not event.contains(session, "after_begin", _refuse_another):
        event.listen(session, "after_begin", _refuse_another)
    return connection


def _refuse_another(session: Any, _transaction: object, connection: Any) -> None:
    """Fail the statement that begins another connection beside an event."""
    own = _alone.get(session.get_transaction(), connection)
    if own is not connection:
        _fail([own, connection])
        raise TransactionMisused(_ANOTHER)


def _connections_of(transaction: Any) -> Collection[Any]:
    """Return the connections of a session's transaction, if it has begun one."""
    if transaction is None:
        return set()
    if hasattr(transaction, "connections"):
        found: Collection[Any] = transaction.connections
        return found
    entries = transaction._connections.values()  # noqa: SLF001 - before SQLAlchemy 2.1.7
    return {connection for connection, *_ in entries}


def _fail(connections: Collection[Any]) -> None:
    """Fail the transactions of SQLAlchemy's connections. Each statement after that fails too.

    A caller who swallows the refusal would otherwise commit one without the other. A ROLLBACK
    would not do: what the caller writes next would be committed alone.
    """
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - as above

    for connection in connections:
        with suppress(SQLAlchemyError):
            connection.exec_driver_sql(APPEND_FAILED)
