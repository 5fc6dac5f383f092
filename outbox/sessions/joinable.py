"""The objects that `append_to` and `remember` take, and the session of each.

Objects of drivers are recognised by the module of their class, those of SQLAlchemy and Django by
their methods. The protocols say the same to type checkers, without an import of a driver.
"""

from typing import Any, Final, Protocol

import psycopg

from dsql_outbox.outbox.arguments import wrong_type

from .caller_session import CallerSession, Joining
from .django_session import DjangoSession
from .driver_sessions import AsyncpgSession, Psycopg2Session, PsycopgSession
from .sqlalchemy_session import SqlAlchemySession

_TAKEN: Final = (
    "a psycopg.Connection, a connection of psycopg2, a Session or Connection of SQLAlchemy, or "
    "Django's connection"
)
_INSTEAD: Final = 'psycopg.connect(..), or create_engine("postgresql+psycopg://..")'

_NO_ASYNC: Final = (
    "{0.method} takes no asynchronous connection of psycopg2: connect without async_=True, "
    "or use Async{0.owner} with a connection of asyncpg or psycopg 3"
)

_ASYNC_TAKEN: Final = (
    "a psycopg.AsyncConnection, a connection of asyncpg, or an AsyncSession or AsyncConnection of "
    "SQLAlchemy"
)
_ASYNC_INSTEAD: Final = (
    'psycopg.AsyncConnection.connect(..), or create_async_engine("postgresql+asyncpg://..")'
)


class Psycopg2Protocol(Protocol):
    """A connection of psycopg2."""

    @property
    def autocommit(self) -> Any:
        """Whether each statement is committed on its own, outside of a transaction."""
        ...

    def get_transaction_status(self) -> int:
        """Return libpq's status of the transaction."""
        ...


class AsyncpgProtocol(Protocol):
    """A connection of asyncpg."""

    def is_in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        ...

    async def fetch(self, query: str, *args: Any) -> Any:
        """Run a statement, and return its rows."""
        ...


class AsyncpgPoolProtocol(Protocol):
    """A connection that a pool of asyncpg lends, which has the methods of a connection."""

    def __getattr__(self, attr: str) -> Any: ...


class ConnectionProtocol(Protocol):
    """A Connection of SQLAlchemy."""

    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        ...

    def exec_driver_sql(self, statement: str) -> Any:
        """Run a statement."""
        ...


class SessionProtocol(Protocol):
    """A Session of SQLAlchemy, or its scoped_session."""

    def connection(self) -> ConnectionProtocol:
        """Return the connection of the session's transaction."""
        ...


class DjangoProtocol(Protocol):
    """Django's connection to a database, such as ``django.db.connection``."""

    in_atomic_block: bool
    connection: Any

    def set_rollback(self, rollback: bool) -> None:
        """Let the block of `atomic` end in a rollback."""
        ...

    def validate_no_broken_transaction(self) -> None:
        """Raise Django's error if the block of `atomic` will be rolled back."""
        ...


class AsyncConnectionProtocol(Protocol):
    """An AsyncConnection of SQLAlchemy."""

    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        ...

    async def exec_driver_sql(self, statement: str) -> Any:
        """Run a statement."""
        ...


class AsyncSessionProtocol(Protocol):
    """An AsyncSession of SQLAlchemy, or its async_scoped_session."""

    async def connection(self) -> AsyncConnectionProtocol:
        """Return the connection of the session's transaction."""
        ...


Joinable = (
    psycopg.Connection[Any]
    | Psycopg2Protocol
    | SessionProtocol
    | ConnectionProtocol
    | DjangoProtocol
)
AsyncJoinable = (
    psycopg.AsyncConnection[Any]
    | AsyncpgProtocol
    | AsyncpgPoolProtocol
    | AsyncSessionProtocol
    | AsyncConnectionProtocol
)


def session_of(given: Any, joining: Joining) -> CallerSession:
    """Return the session of one of `Joinable`. Raises `TypeError` for any other object."""
    found = _sync_session(given, joining)
    if found is None:
        is_other = _async_session(given, joining) is not None
        instead = f"this connection is for Async{joining.owner}" if is_other else _INSTEAD
        raise wrong_type(f"{_method_of(joining)} takes {_TAKEN}", given, instead)
    return found


def async_session_of(given: Any, joining: Joining) -> CallerSession:
    """Return the session of one of `AsyncJoinable`. Raises `TypeError` for any other object."""
    found = _async_session(given, joining)
    if found is None:
        is_other = _sync_session(given, joining) is not None
        instead = f"this connection is for {joining.owner}" if is_other else _ASYNC_INSTEAD
        raise wrong_type(f"{_method_of(joining)} takes {_ASYNC_TAKEN}", given, instead)
    return found


def _method_of(joining: Joining) -> str:
    return f"{joining.method} of this {joining.owner.lower()}"


def _sync_session(given: Any, joining: Joining) -> CallerSession | None:
    if isinstance(given, CallerSession):  # of a run that has one already
        return given
    if isinstance(given, psycopg.Connection):
        return PsycopgSession(given, joining)
    if isinstance(given, type):
        return None
    if hasattr(given, "in_atomic_block"):
        return DjangoSession(given, joining, session_of)
    if _is_of("psycopg2", given) and hasattr(given, "get_transaction_status"):
        if given.async_:
            raise TypeError(_NO_ASYNC.format(joining))
        return Psycopg2Session(given, joining)
    found = _of_registry(given)
    is_sync = _is_of_sqlalchemy(found) and not hasattr(found, "run_sync")
    return SqlAlchemySession(found, joining) if is_sync else None


def _async_session(given: Any, joining: Joining) -> CallerSession | None:
    if isinstance(given, psycopg.AsyncConnection):
        return PsycopgSession(given, joining)
    if isinstance(given, type):
        return None
    if _is_of("asyncpg", given) and hasattr(given, "is_in_transaction"):
        return AsyncpgSession(given, joining)
    found = _of_registry(given)
    is_async = _is_of_sqlalchemy(found) and hasattr(found, "run_sync")
    return SqlAlchemySession(found, joining) if is_async else None


def _is_of(package: str, given: object) -> bool:
    """Return whether an object is of a class of a package, or of one that derives from it.

    A proxy, as tracers put around a connection, says that it has the class of what it wraps.
    """
    return any(kind.__module__.partition(".")[0] == package for kind in given.__class__.__mro__)


def _of_registry(given: Any) -> Any:
    """Return the session that a scoped session has now."""
    return given() if hasattr(given, "registry") and callable(given) else given


def _is_of_sqlalchemy(given: object) -> bool:
    """Return whether an object is a Session or Connection, which has a method of these."""
    return hasattr(given, "exec_driver_sql") or hasattr(given, "get_bind")
