"""`transact` in sessions of SQLAlchemy, on each driver, behind one face.

The function under test is a plain one with a plain Session, also for the drivers of asyncio.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import pytest
from anyio.from_thread import BlockingPortal
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from sqlalchemy.util import await_only
from tests.support.driver_sessions import engine_url
from tests.support.dsql.server import ON_DSQL

from dsql_outbox import (
    AsyncWriter,
    Database,
    Entity,
    Event,
    Receipt,
    Writer,
    WriterSettings,
    transact,
)
from dsql_outbox.observability.hooks import Hook

from .callers import QUICK, formed

T = TypeVar("T")

DRIVERS: Final = ["psycopg", "psycopg2", "asyncpg", "psycopg of tasks"]
"""The drivers, of which the last two are those of asyncio."""


class Base(DeclarativeBase):
    """The models of the tests."""


class Own(Base):
    """A row of the fixture `own`, whose table has no unique key."""

    __tablename__ = "own"

    n: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Append:
    """`append_to` for one session."""

    def __init__(self, session: Any, append_to: Callable[..., Receipt]) -> None:
        self._session = session
        self._append_to = append_to

    def __call__(self, event: Any, **options: Any) -> Receipt:
        return self._append_to(self._session, event, **options)

    def on(self, connection: Any, event: Any) -> Receipt:
        """Append to a connection."""
        return self._append_to(connection, event)


def new_event() -> Event:
    """An event. The n-th one of each run of a call has the same id."""
    return Event.new("CarCreated", [Entity("Car", "CAR-1")])


class Door:
    """A writer and a sessionmaker."""

    def __init__(self, writer: Writer, sessions: sessionmaker[Session]) -> None:
        self.writer = writer
        self.sessions = sessions

    @property
    def engine(self) -> Engine:
        """The engine of the sessions."""
        engine: Engine = self.sessions.kw["bind"]
        return engine

    @property
    def checked_out(self) -> int:
        """How many connections the pool of the engine has lent."""
        pool: Any = self.engine.pool
        lent: int = pool.checkedout()
        return lent

    def fill(self, count: int) -> None:
        """Let the pool of the engine have so many connections."""
        for each in [self.engine.connect() for _ in range(count)]:
            each.close()

    def transact(self, function: Callable[[Session, Any], T], **options: Any) -> T:
        """Run a plain function in a unit of work."""

        def run(session: Session) -> T:
            return function(session, Append(session, self.writer.append_to))

        return transact(self.writer, self.sessions, run, **options)

    def alone(self, function: Callable[[Session, Any], T]) -> T:
        """Run a plain function in a session of the caller's own."""
        with self.sessions() as session, session.begin():
            return function(session, Append(session, self.writer.append_to))

    def close(self) -> None:
        """Close all connections."""
        self.writer.close()
        self.engine.dispose()


class AsyncDoor(Door):
    """The same for asyncio."""

    def __init__(
        self, portal: BlockingPortal, writer: AsyncWriter, sessions: async_sessionmaker[Any]
    ) -> None:
        self._portal = portal
        self.writer: Any = writer
        self.sessions: Any = sessions

    @property
    def engine(self) -> Engine:
        engine: Engine = self.sessions.kw["bind"].sync_engine
        return engine

    def fill(self, count: int) -> None:
        async def fill() -> None:
            engine = self.sessions.kw["bind"]
            for each in [await engine.connect() for _ in range(count)]:
                await each.close()

        self._portal.call(fill)

    def transact(self, function: Callable[[Session, Any], T], **options: Any) -> T:
        async def run(session: AsyncSession) -> T:
            return await self._run(session, function)

        return self._portal.call(partial(transact, self.writer, self.sessions, run, **options))

    def alone(self, function: Callable[[Session, Any], T]) -> T:
        async def run() -> T:
            async with self.sessions() as session, session.begin():
                return await self._run(session, function)

        return self._portal.call(run)

    def close(self) -> None:
        self._portal.call(self.writer.close)
        self._portal.call(self.sessions.kw["bind"].dispose)

    async def _run(self, session: AsyncSession, function: Callable[[Session, Any], T]) -> T:
        def append_to(_: object, event: Any, **options: Any) -> Receipt:
            receipt: Receipt = await_only(self.writer.append_to(session, event, **options))
            return receipt

        return await session.run_sync(function, Append(session, append_to))


class OpenDoor(Protocol):
    """Makes a door that is closed at the end of the test."""

    def __call__(
        self,
        url: str,
        *,
        settings: WriterSettings = QUICK,
        hooks: list[Hook] = ...,
        dialect: str = ...,
        sessions: dict[str, Any] = ...,
        kind: type[Session] = ...,
        **engine: Any,
    ) -> Door:
        """A door whose engine has this URL. `kind` is the sessions' class."""
        ...


@pytest.fixture(params=DRIVERS[:2] if ON_DSQL else DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """The driver of the engine."""
    found: str = request.param
    return found


@pytest.fixture
def open_door(driver: str, portal: BlockingPortal, url: str) -> Iterator[Any]:
    """Makes doors. The writer has connections of its own to the database of `url`."""
    opened: list[Door] = []
    is_async = driver in DRIVERS[2:]

    def open_one(
        target: str,
        *,
        settings: WriterSettings = QUICK,
        hooks: Any = (),
        dialect: str = "postgresql",
        sessions: Any = None,
        kind: type[Session] = Session,
        **engine: Any,
    ) -> Any:
        database, settings = Database(url), formed(settings)
        target = engine_url(target, driver.split(maxsplit=1)[0]).replace("postgresql", dialect, 1)
        if is_async:
            options = {"sync_session_class": kind} | (sessions or {})
            made: Any = async_sessionmaker(create_async_engine(target, **engine), **options)
            opened.append(AsyncDoor(portal, AsyncWriter(database, settings, hooks=hooks), made))
        else:
            options = {"class_": kind} | (sessions or {})
            made = sessionmaker(create_engine(target, **engine), **options)
            opened.append(Door(Writer(database, settings, hooks=hooks), made))
        return opened[-1]

    yield open_one
    for door in opened:
        if hasattr(door.engine.pool, "checkedout"):
            assert door.checked_out == 0, "a connection was not given back"
        door.close()
