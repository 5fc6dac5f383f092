"""`transact` in a session of the caller: the retried unit of work of SQLAlchemy, or of a pool."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Literal, TypeVar, overload

from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.sessions.lent_sessions import AsyncSessionSource, SessionSource, sessions_of
from dsql_outbox.outbox.unit_of_work.turns import EntityKey
from dsql_outbox.writer.attempt.pending import OnDuplicate

from .async_writer import AsyncWriter
from .transact.append import TRANSACT
from .writer import Writer

T = TypeVar("T")
S = TypeVar("S")


@overload
def transact(
    writer: Writer,
    sessions: SessionSource[S],
    function: Callable[[S], T],
    *,
    entities: Iterable[EntityKey] = ...,
    on_duplicate: Literal["error"] = ...,
    timeout: float | None = ...,
) -> T: ...


@overload
def transact(
    writer: Writer,
    sessions: SessionSource[S],
    function: Callable[[S], T],
    *,
    entities: Iterable[EntityKey] = ...,
    on_duplicate: OnDuplicate,
    timeout: float | None = ...,
) -> T | Receipt: ...


@overload
def transact(
    writer: AsyncWriter,
    sessions: AsyncSessionSource[S],
    function: Callable[[S], Awaitable[T]],
    *,
    entities: Iterable[EntityKey] = ...,
    on_duplicate: Literal["error"] = ...,
    timeout: float | None = ...,
) -> Coroutine[Any, Any, T]: ...


@overload
def transact(
    writer: AsyncWriter,
    sessions: AsyncSessionSource[S],
    function: Callable[[S], Awaitable[T]],
    *,
    entities: Iterable[EntityKey] = ...,
    on_duplicate: OnDuplicate,
    timeout: float | None = ...,
) -> Coroutine[Any, Any, T | Receipt]: ...


def transact(  # noqa: PLR0913 - the arguments of the writer's, and the sessions
    writer: Writer | AsyncWriter,
    sessions: Any,
    function: Callable[[Any], Any],
    *,
    entities: Iterable[EntityKey] = (),
    on_duplicate: OnDuplicate = "error",
    timeout: float | None = None,
) -> Any:
    """Run `function(session)` in a transaction of its session, commit it, return its result.

    `sessions` is a sessionmaker of SQLAlchemy 2 or psycopg's ConnectionPool; with an
    `AsyncWriter`, which you await, an async_sessionmaker or an AsyncConnectionPool. The driver of
    the engine is psycopg, asyncpg or psycopg2. The function gets a new session, or a connection
    of the pool, and writes events by `append_to`. A session is flushed when it returns.

    This is `Writer.transact` on your engine's or pool's connections: after a conflict or a lost
    connection, `function` runs again with another session on another connection. One that has
    met a conflict is closed. `timeout` is the limit of the call in seconds, all runs included.
    Your engine limits the wait for one of its connections. Calls of the writer that name the
    same `entities` run one after the other. ``on_duplicate="return"`` returns the receipt if the
    first event is stored already.

    Raises as `Writer.transact` does. An error of the database comes in SQLAlchemy's wrapper.
    Raises `TransactionMisused` if `function` commits, uses another connection in its session, or
    adds an object that was loaded and changed outside. Raises `TypeError` for another driver,
    and for a sessionmaker of several engines or none.

        >>> def sell(connection) -> int:
        ...     connection.execute("SELECT 1")  # a statement of the caller
        ...     return writer.append_to(connection, event).entities[0].version
        >>> with Writer(database) as writer:
        ...     transact(writer, pool, sell)
        1
    """
    if not isinstance(writer, (Writer, AsyncWriter)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise wrong_type(
            "transact takes a Writer or AsyncWriter", writer, "transact(Writer(..), ..)"
        )
    found = sessions_of(
        sessions,
        TRANSACT,
        is_async=isinstance(writer, AsyncWriter),
        takes_local_settings=writer._core.database.takes_local_settings,  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    )
    return writer._transact_in(  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        found, function, entities=entities, on_duplicate=on_duplicate, timeout=timeout
    )
