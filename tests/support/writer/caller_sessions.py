"""The sessions that `append_to` takes behind one face, each driver with each of its objects."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

import asyncpg
import psycopg
import psycopg2
import pytest
from anyio.from_thread import BlockingPortal
from django.db import Error as DjangoError
from django.db.backends.base.base import BaseDatabaseWrapper
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, create_async_engine
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import NullPool
from tests.support.driver_sessions import engine_url, without_options
from tests.support.dsql.server import ON_DSQL

from dsql_outbox.outbox import Database, Receipt
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings

from .callers import QUICK, formed
from .django_connections import new_django_connection

DRIVERS_ERRORS: Final = (
    psycopg.Error,
    psycopg2.Error,
    asyncpg.PostgresError,
    SQLAlchemyError,
    DjangoError,
)
"""The errors of all drivers, also in the wrappers of SQLAlchemy and Django."""

COMMON: Final = ["psycopg", "psycopg2 Session", "asyncpg AsyncSession"]
"""The commonest session of each driver."""

SESSIONS: Final = ["psycopg Session", "psycopg2 Session", "asyncpg AsyncSession"]
"""The commonest session of SQLAlchemy on each driver."""

GOVERNED: Final[dict[str, Any]] = {"application_name": "dsql-outbox"}
"""The name of a session that the stand-in for DSQL governs. It lets those of others pass."""

OF_ASYNCPG: Final[dict[str, Any]] = {"server_settings": GOVERNED, "ssl": False}

PLAIN: Final = ["psycopg", "psycopg async", "psycopg2", "asyncpg", "asyncpg pool"]
"""The connections of the drivers."""

OF_SQLALCHEMY: Final = [
    *[f"{driver} {kind}" for driver in ("psycopg", "psycopg2") for kind in ("Session", "scoped")],
    *["psycopg Connection", "psycopg2 Connection"],
    *[
        f"{driver} {kind}"
        for driver in ("psycopg", "asyncpg")
        for kind in ("AsyncSession", "async scoped", "AsyncConnection")
    ],
]

DRIVERS: Final = [
    *["psycopg", "psycopg async", "psycopg2", "asyncpg"],
    *["psycopg Session", "psycopg AsyncSession", "psycopg2 Session", "asyncpg AsyncSession"],
]
"""Each driver, of threads and of tasks, plain and through SQLAlchemy."""

ALL: Final = DRIVERS if ON_DSQL else [*PLAIN, *OF_SQLALCHEMY]
"""All objects of a driver send the same statements, so one will do in front of DSQL's shape."""

TAKEN: Final = [*ALL, "django"]
"""With Django's connection."""

OTHERS: Final = [kind for kind in ALL if kind not in COMMON]


class Caller:
    """A session of a caller, and the writer that takes it."""

    def __init__(self, writer: Any, given: Any) -> None:
        self.writer = writer
        self.given = given

    @property
    def engine(self) -> Engine:
        """The engine of an object of SQLAlchemy."""
        found = self.given
        found = found.bind if hasattr(found, "bind") else found.engine
        engine: Engine = getattr(found, "sync_engine", found)
        return engine

    def append(self, event: Any, **options: Any) -> Receipt:
        """Write an event in the session's transaction."""
        receipt: Receipt = self._run(self.writer.append_to, self.given, event, **options)
        return receipt

    def execute(self, sql: str) -> None:
        """Run a statement of the caller's own."""
        if isinstance(self.given, (psycopg2.extensions.connection, BaseDatabaseWrapper)):
            with self.given.cursor() as cursor:
                cursor.execute(sql)
        elif _is_of_sqlalchemy(self.given):
            self._run(self.given.execute, text(sql))
        else:
            self._run(self.given.execute, sql)

    def commit(self) -> None:
        """Commit, as the caller does."""
        self._run(self.given.commit)

    def rollback(self) -> None:
        """Roll back, as the caller does."""
        self._run(self.given.rollback)

    def close(self) -> None:
        """Close the session."""
        with suppress(*DRIVERS_ERRORS):
            self._run(self.given.close)

    def _run(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return function(*args, **options)


class AsyncCaller(Caller):
    """The same in the event loop of a portal."""

    def __init__(self, portal: BlockingPortal, writer: Any, given: Any) -> None:
        super().__init__(writer, given)
        self.portal = portal

    def _run(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return self.portal.call(partial(function, *args, **options))


class AsyncpgCaller(AsyncCaller):
    """A connection of asyncpg, whose caller begins each transaction."""

    def __init__(self, portal: BlockingPortal, writer: Any, given: Any, isolation: Any) -> None:
        super().__init__(portal, writer, given)
        self._isolation = isolation
        self._begin()

    def _begin(self) -> None:
        self._transaction = self.given.transaction(isolation=self._isolation)
        self._run(self._transaction.start)

    def commit(self) -> None:
        self._run(self._transaction.commit)
        self._begin()

    def rollback(self) -> None:
        with suppress(asyncpg.InterfaceError):  # the COMMIT has failed
            self._run(self._transaction.rollback)
        self._begin()

    def close(self) -> None:
        pool = getattr(self.given, "_holder", None) and self.given._holder._pool
        self.portal.call((pool or self.given).terminate)


def _is_of_sqlalchemy(given: Any) -> bool:
    return hasattr(given, "exec_driver_sql") or hasattr(given, "get_bind")


def leave_transaction(caller: Any, kind: str) -> None:
    """Let a session that is not of SQLAlchemy commit each statement by itself."""
    if kind.startswith("asyncpg"):
        caller._run(caller._transaction.rollback)
    elif kind in ("psycopg async", "django"):
        caller._run(caller.given.set_autocommit, True)
    else:
        caller.given.autocommit = True


class OpenCaller(Protocol):
    """Makes sessions that are closed at the end of the test."""

    def __call__(
        self,
        kind: str,
        url: str,
        *,
        database: Database | None = ...,
        settings: WriterSettings = ...,
        isolation: str | None = ...,
        **options: Any,
    ) -> Any:
        """A session of a kind of `ALL`, or of Django. `options` are of SQLAlchemy's engine."""
        ...


@pytest.fixture
def open_caller(portal: BlockingPortal) -> Iterator[OpenCaller]:
    """Makes sessions of callers."""
    opened: list[Caller] = []

    def open_one(
        kind: str,
        url: str,
        *,
        database: Database | None = None,
        settings: WriterSettings = QUICK,
        isolation: str | None = None,
        **options: Any,
    ) -> Caller:
        driver, _, what = kind.partition(" ")
        is_async = driver == "asyncpg" or "sync" in what
        make: Any = AsyncWriter if is_async else Writer
        writer = make(database or Database(url), formed(settings))
        if isolation and what and what not in ("async", "pool"):
            options["isolation_level"] = isolation.upper()
        if is_async:
            caller = _async_caller(portal, writer, driver, what, url, isolation, options)
        else:
            caller = Caller(writer, _given(driver, what, url, isolation, options))
        opened.append(caller)
        return caller

    yield open_one
    for caller in opened:
        caller.close()
        caller._run(caller.writer.close)


def _given(driver: str, what: str, url: str, isolation: str | None, options: dict[str, Any]) -> Any:
    if driver == "django":
        django = new_django_connection(url)
        django.set_autocommit(False)
        return django
    if what:
        options = {"connect_args": GOVERNED, **options}
        if driver == "psycopg":
            options = {"use_native_hstore": False, **options}
        engine = create_engine(engine_url(url, driver), poolclass=NullPool, **options)
        made = {
            "Session": lambda: Session(engine),
            "scoped": lambda: scoped_session(lambda: session),
            "Connection": engine.connect,
        }
        session = Session(engine)
        return made[what]()
    connection: Any = (psycopg if driver == "psycopg" else psycopg2).connect(url, **GOVERNED)
    if isolation:
        levels = psycopg if driver == "psycopg" else psycopg2.extensions
        name = isolation.upper().replace(" ", "_")
        connection.isolation_level = (
            psycopg.IsolationLevel[name]
            if levels is psycopg
            else getattr(levels, f"ISOLATION_LEVEL_{name}")
        )
    return connection


def _async_caller(
    portal: BlockingPortal,
    writer: Any,
    driver: str,
    what: str,
    url: str,
    isolation: str | None,
    options: dict[str, Any],
) -> Caller:
    if driver == "asyncpg" and what in ("", "pool"):
        level = isolation and isolation.replace(" ", "_")
        return AsyncpgCaller(portal, writer, portal.call(_asyncpg, url, what), level)
    if what == "async":
        connect = partial(psycopg.AsyncConnection.connect, url, **GOVERNED)
        connection: Any = portal.call(connect)
        if isolation:
            level_of = psycopg.IsolationLevel[isolation.upper().replace(" ", "_")]
            portal.call(connection.set_isolation_level, level_of)
        return AsyncCaller(portal, writer, connection)
    if driver == "asyncpg":
        options["connect_args"] = OF_ASYNCPG
    else:
        options = {"connect_args": GOVERNED, "use_native_hstore": False, **options}
    engine = create_async_engine(engine_url(url, driver), poolclass=NullPool, **options)
    if what == "AsyncConnection":
        return AsyncCaller(portal, writer, portal.call(_connected, engine))
    session: Any = AsyncSession(engine)
    if what == "async scoped":
        return AsyncCaller(portal, writer, async_scoped_session(lambda: session, lambda: 0))
    return AsyncCaller(portal, writer, session)


async def _connected(engine: Any) -> Any:
    return await engine.connect()


async def _asyncpg(url: str, what: str) -> Any:
    if what == "pool":
        pool = await asyncpg.create_pool(without_options(url), min_size=1, max_size=1, **OF_ASYNCPG)
        return await pool.acquire()
    return await asyncpg.connect(without_options(url), **OF_ASYNCPG)
