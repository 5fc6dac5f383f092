"""psycopg's connection behind a session or connection of SQLAlchemy or Django.

Neither package is imported here. Their objects are recognised by their methods, and any
other object is returned as it is, for `require_connection` to judge. The protocols say
which objects `append_to` takes.
"""

from inspect import iscoroutinefunction
from typing import Any, Protocol

import psycopg


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
        return given if iscoroutinefunction(given.connection) else _driver_of(given.connection())
    is_sync = hasattr(given, "in_transaction") and not hasattr(given, "get_raw_connection")
    return _driver_of(given) if is_sync else given


async def async_driver_connection(given: Any) -> Any:
    """Return the driver's connection, as `driver_connection` does, for one of `AsyncJoinable`."""
    if _is_final(given):
        return given
    if _is_session(given) and iscoroutinefunction(given.connection):
        return await _async_driver_of(await given.connection())
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
