"""The sessions of a caller that a method lends to a function: of an engine, a pool, or Django.

None of SQLAlchemy, psycopg_pool and Django is imported before the caller gives one of its objects.
"""

from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

from psycopg.pq import TransactionStatus

from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.database.connection import AsyncConnection, Connection
from dsql_outbox.outbox.unit_of_work.connections.lender import require_time
from dsql_outbox.outbox.unit_of_work.own_transaction import OwnTransaction
from dsql_outbox.outbox.unit_of_work.primitives import Invoke, Program
from dsql_outbox.outbox.unit_of_work.run_transaction import RunTransaction, Sessions

from .caller_session import Joining
from .django_transaction import DjangoTransaction
from .sqlalchemy_transaction import SqlalchemyTransaction, ends_connection, shielded

T = TypeVar("T")
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)


class Pool(Protocol[S_co]):
    """A pool of psycopg."""

    def getconn(self, timeout: float | None = None) -> S_co:
        """Lend a connection. An AsyncConnectionPool lends it once it is awaited."""
        ...


SessionSource = Callable[[], S] | Pool[S]
"""A sessionmaker, or a pool for threads."""

AsyncSessionSource = Callable[[], S] | Pool[Coroutine[Any, Any, S]]
"""An async_sessionmaker, or a pool for tasks."""

_DRIVERS: Final = ("psycopg", "asyncpg", "psycopg2")

_TAKES: Final = {
    False: (
        "{0.method} of {0.owner} takes a sessionmaker or a ConnectionPool",
        "sessionmaker(engine)",
    ),
    True: (
        "{0.method} of Async{0.owner} takes an async_sessionmaker or an AsyncConnectionPool",
        "async_sessionmaker(engine)",
    ),
}


def sessions_of(
    given: Any, joining: Joining, *, is_async: bool, takes_local_settings: bool
) -> Sessions:
    """Return the sessions of a sessionmaker or a pool, of the kind of a method's owner.

    Raises `TypeError` for any other object, for another driver than psycopg, asyncpg and
    psycopg2, and for a sessionmaker of several engines or none.
    """
    modules = {kind.__module__.partition(".")[0] for kind in type(given).__mro__}
    found: Sessions | None = None
    if "sqlalchemy" in modules:
        found = _of_engine(
            given, joining, is_async=is_async, takes_local_settings=takes_local_settings
        )
    elif "psycopg_pool" in modules:
        found = _of_pool(given, is_async=is_async, takes_local_settings=takes_local_settings)
    if found is not None:
        return found
    takes, instead = _TAKES[is_async]
    raise wrong_type(takes.format(joining), given, instead)


class SessionPerRun(Sessions):
    """Lends the transaction that `_new_transaction` makes, and closes it."""

    @abstractmethod
    def _new_transaction(self, deadline: float | None) -> SqlalchemyTransaction | DjangoTransaction:
        """Return the transaction of a run, which has not begun."""

    def lend(
        self,
        work: Callable[[RunTransaction], Program[T]],
        *,
        fresh: bool = False,
        role_path: bool = False,
        deadline: float | None = None,
    ) -> Program[T]:
        del fresh, role_path
        require_time(deadline)
        transaction = self._new_transaction(deadline)
        try:
            answer = yield from work(transaction)
        except BaseException as error:
            yield from transaction.close(error)
            raise
        yield from transaction.close(None)
        return answer


class EngineSessions(SessionPerRun):
    """New sessions of a sessionmaker, on connections of its engine."""

    def __init__(
        self, make: Callable[..., Any], joining: Joining, *, takes_local_settings: bool
    ) -> None:
        self._make = make
        self._joining = joining
        self._takes_local_settings = takes_local_settings

    def _new_transaction(self, deadline: float | None) -> SqlalchemyTransaction:
        # Closed for ever at its end: it would begin another transaction for a late statement.
        session = self._make(close_resets_only=False)
        return SqlalchemyTransaction(
            session,
            self._joining,
            takes_local_settings=self._takes_local_settings,
            deadline=deadline,
        )


class DjangoSessions(SessionPerRun):
    """Django's connection of an alias and thread, once for each run."""

    def __init__(self, connection: Any, joining: Joining, *, takes_local_settings: bool) -> None:
        self._connection = connection
        self._joining = joining
        self._takes_local_settings = takes_local_settings

    def _new_transaction(self, deadline: float | None) -> DjangoTransaction:
        return DjangoTransaction(
            self._connection,
            self._joining,
            takes_local_settings=self._takes_local_settings,
            deadline=deadline,
        )


class PoolSessions(Sessions):
    """Connections of psycopg's pool. The function gets a handle, as of a connection of ours."""

    def __init__(self, pool: Any, kind: type[Any], *, takes_local_settings: bool) -> None:
        self._pool = pool
        self._kind = kind
        self._takes_local_settings = takes_local_settings

    def lend(
        self,
        work: Callable[[RunTransaction], Program[T]],
        *,
        fresh: bool = False,
        role_path: bool = False,
        deadline: float | None = None,
    ) -> Program[T]:
        del fresh, role_path
        require_time(deadline)
        taken: list[Any] = []  # an interrupt may come at any point from here on, and finds it there
        ours: Any = None
        try:
            yield Invoke(partial(self._take, taken), deadline)
            ours = self._kind.over(taken[0])
            ours.deadline, ours.takes_local_settings = deadline, self._takes_local_settings
            answer = yield from work(OwnTransaction(ours))
        except BaseException as error:
            _leave(taken, ours, error)
            raise
        else:
            _leave(taken, ours, None)
        finally:
            # Called here, since a program that an interrupt has closed performs no primitive.
            put = self._pool.putconn(taken[0]) if taken else None
            if put is not None:
                yield Invoke(shielded, put)
        return answer

    def _take(self, taken: list[Any], deadline: float | None) -> Any:
        seconds: float = self._pool.timeout
        if deadline is not None:
            seconds = min(seconds, max(0.0, deadline - monotonic()))
        if self._kind is AsyncConnection:
            return self._take_async(taken, seconds)
        taken.append(self._pool.getconn(timeout=seconds))
        return None

    async def _take_async(self, taken: list[Any], seconds: float) -> None:
        taken.append(await self._pool.getconn(timeout=seconds))


def _leave(taken: Sequence[Any], ours: Any, error: BaseException | None) -> None:
    """Leave the connection to the pool, which replaces one that is closed."""
    if ours is not None:
        is_idle = ours.pgconn.transaction_status == TransactionStatus.IDLE
        if not is_idle or (error is not None and ends_connection(error)):
            ours.drop()
        ours.leave()
    elif taken:  # an interrupt came first
        taken[0].pgconn.finish()


def _of_engine(
    given: Any, joining: Joining, *, is_async: bool, takes_local_settings: bool
) -> Sessions | None:
    from sqlalchemy import Engine  # noqa: PLC0415 - the caller has imported it
    from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker  # noqa: PLC0415 - as above
    from sqlalchemy.orm import sessionmaker  # noqa: PLC0415 - as above

    kind: type[Any] = async_sessionmaker if is_async else sessionmaker
    if not isinstance(given, kind):
        return None
    bind = given.kw.get("bind")
    engine = bind.sync_engine if isinstance(bind, AsyncEngine) else bind
    if not isinstance(engine, Engine) or given.kw.get("binds"):
        name = kind.__name__
        raise TypeError(
            f"{joining.method} takes the {name} of one engine: {name}(engine), without binds"
        )
    if engine.dialect.driver not in _DRIVERS:
        raise TypeError(
            f"{joining.method} takes an engine on psycopg, asyncpg or psycopg2, not on "
            f'{engine.dialect.driver}: create_engine("postgresql+psycopg://..")'
        )
    return EngineSessions(given, joining, takes_local_settings=takes_local_settings)


def _of_pool(given: Any, *, is_async: bool, takes_local_settings: bool) -> Sessions | None:
    from psycopg_pool import AsyncConnectionPool, ConnectionPool  # noqa: PLC0415 - as above

    if not isinstance(given, AsyncConnectionPool if is_async else ConnectionPool):
        return None
    kind = AsyncConnection if is_async else Connection
    return PoolSessions(given, kind, takes_local_settings=takes_local_settings)
