"""Both kinds of the SQLAlchemy door behind one face: a plain function with a plain Session."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar

import pytest
from anyio.from_thread import BlockingPortal
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from sqlalchemy.util import await_only
from tests.support.dsql.server import KINDS

from dsql_outbox import AsyncWriter, Database, Entity, Event, Receipt, Writer, WriterSettings
from dsql_outbox.doors.sqlalchemy import AsyncAppend, transact
from dsql_outbox.observability.hooks import Hook

from .writer.callers import QUICK, formed

T = TypeVar("T")


class Base(DeclarativeBase):
    """The models of the tests."""


class Own(Base):
    """A row of the fixture `own`, whose table has no unique key."""

    __tablename__ = "own"

    n: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


def of_driver(url: str, driver: str = "psycopg") -> str:
    """The URL of SQLAlchemy."""
    return url.replace("postgresql://", f"postgresql+{driver}://")


def event_of() -> Event:
    """An event whose id is the call's."""
    return Event.new("CarCreated", [Entity("Car", "CAR-1")])


class PlainAppend:
    """`AsyncAppend` for a function that SQLAlchemy runs in a greenlet."""

    def __init__(self, append: AsyncAppend) -> None:
        self._append = append

    def __call__(self, event: Any, **options: Any) -> Receipt:
        receipt: Receipt = await_only(self._append(event, **options))
        return receipt


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

    def transact(self, function: Callable[[Session, Any], T], timeout: float | None = None) -> T:
        """Run a plain function in a unit of work."""
        return transact(self.writer, self.sessions, function, timeout=timeout)

    def close(self) -> None:
        """Close all connections."""
        self.writer.close()
        self.engine.dispose()


class AsyncDoor:
    """The same for asyncio."""

    def __init__(
        self, portal: BlockingPortal, writer: AsyncWriter, sessions: async_sessionmaker[Any]
    ) -> None:
        self._portal = portal
        self.writer = writer
        self.sessions = sessions

    @property
    def engine(self) -> Engine:
        """The engine of the sessions."""
        engine: Engine = self.sessions.kw["bind"].sync_engine
        return engine

    def transact(self, function: Callable[[Session, Any], T], timeout: float | None = None) -> T:
        async def in_greenlet(session: AsyncSession, append: AsyncAppend) -> T:
            return await session.run_sync(function, PlainAppend(append))

        call = partial(transact, self.writer, self.sessions, in_greenlet, timeout=timeout)
        return self._portal.call(call)

    def close(self) -> None:
        self._portal.call(self.writer.close)
        self._portal.call(self.sessions.kw["bind"].dispose)


class OpenDoor(Protocol):
    """Makes a door that is closed at the end of the test."""

    def __call__(
        self,
        database: str | Database,
        *,
        settings: WriterSettings = QUICK,
        hooks: list[Hook] = ...,
        scheme: str = ...,
        sessions: dict[str, Any] = ...,
        kind: type[Session] = ...,
        **engine: Any,
    ) -> Door:
        """A door to a database. `scheme` is of the engine's URL, `kind` the sessions' class."""
        ...


@pytest.fixture(params=KINDS)
def open_door(request: pytest.FixtureRequest, portal: BlockingPortal, url: str) -> Iterator[Any]:
    """Makes doors: each test runs with `Writer` and with `AsyncWriter`."""
    opened: list[Any] = []

    def open_one(
        database: str | Database,
        *,
        settings: WriterSettings = QUICK,
        hooks: Any = (),
        scheme: str = "postgresql+psycopg",
        sessions: Any = None,
        kind: type[Session] = Session,
        **engine: Any,
    ) -> Any:
        made = Database(database) if isinstance(database, str) else database
        settings, target = formed(settings), url.replace("postgresql", scheme, 1)
        if request.param == "threads":
            options: dict[str, Any] = {"class_": kind} | (sessions or {})
            maker: Any = sessionmaker(create_engine(target, **engine), **options)
            opened.append(Door(Writer(made, settings, hooks=hooks), maker))
        else:
            options = {"sync_session_class": kind} | (sessions or {})
            maker = async_sessionmaker(create_async_engine(target, **engine), **options)
            opened.append(AsyncDoor(portal, AsyncWriter(made, settings, hooks=hooks), maker))
        return opened[-1]

    yield open_one
    for door in opened:
        door.close()
