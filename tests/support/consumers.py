"""Consumers that handle messages in sessions of their own, on each driver, behind one face.

The function under test is `async def` for all of them. On a driver for threads nothing in it waits.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import pytest
from anyio import to_thread
from anyio.from_thread import BlockingPortal
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from tests.support.driver_sessions import engine_url
from tests.support.writer.caller_sessions import GOVERNED, OF_ASYNCPG
from tests.support.writer.callers import QUICK, formed

from dsql_outbox import AsyncWriter, Database, Event, Receipt, Writer
from dsql_outbox.inbox import AsyncInbox, Handled, Inbox

COMMON: Final = ["psycopg", "asyncpg"]
OTHERS: Final = ["own", "psycopg2", "psycopg of tasks", "pool", "pool of tasks", "own of tasks"]

Handler = Callable[["Work", Any], Awaitable[Any]]


class Work:
    """What the function of a consumer has: its session, and a writer."""

    def __init__(self, session: Any, writer: Writer) -> None:
        self.session = session
        self._writer: Any = writer

    async def execute(self, query: str) -> None:
        """Run a statement."""
        of_sqlalchemy = isinstance(self.session, Session | AsyncSession)
        await self._done(self.session.execute(text(query) if of_sqlalchemy else query))

    async def add(self, n: int = 1) -> None:
        """Add a row of the consumer's own."""
        await self.execute(f"INSERT INTO own VALUES ({n})")

    async def append(self, event: Event | dict[str, Any]) -> Receipt:
        """Append what follows from the message."""
        receipt: Receipt = await self._done(self._writer.append_to(self.session, event))
        return receipt

    async def commit(self) -> None:
        """Commit, which a function must not do."""
        await self._done(self.session.commit())

    async def wait(self, until: Callable[[], object]) -> None:
        """Wait for a state, as for another service."""
        until()

    async def _done(self, found: Any) -> Any:
        return found


class AsyncWork(Work):
    """The same for asyncio."""

    async def wait(self, until: Callable[[], object]) -> None:
        await to_thread.run_sync(until)

    async def _done(self, found: Any) -> Any:
        return await found


class Consumer:
    """An inbox on threads."""

    def __init__(self, inbox: Any, writer: Any, end: Callable[[], object]) -> None:
        self.inbox = inbox
        self.writer = writer
        self._end = end
        self.runs = 0

    def once(self, message: Any, handle: Handler, **options: Any) -> Handled[Any]:
        """Handle a message."""

        def function(session: Any) -> Any:
            self.runs += 1
            return _run(handle(Work(session, self.writer), message))

        handled: Handled[Any] = self.inbox.once(message, function, **options)
        return handled

    def once_many(self, messages: Sequence[Any], handle: Handler, **options: Any) -> list[Any]:
        """Handle messages."""

        def function(session: Any, message: Any) -> Any:
            self.runs += 1
            return _run(handle(Work(session, self.writer), message))

        found: list[Any] = self.inbox.once_many(messages, function, **options)
        return found

    def close(self) -> None:
        """Close all connections."""
        self.inbox.close()
        self.writer.close()
        self._end()


class AsyncConsumer(Consumer):
    """An inbox on asyncio."""

    def __init__(self, portal: BlockingPortal, inbox: Any, writer: Any, end: Any) -> None:
        super().__init__(inbox, writer, end)
        self.portal = portal

    def once(self, message: Any, handle: Handler, **options: Any) -> Handled[Any]:
        return self.portal.call(partial(self.once_async, message, handle, **options))

    async def once_async(self, message: Any, handle: Handler, **options: Any) -> Any:
        """Handle a message, in a task."""

        async def function(session: Any) -> Any:
            self.runs += 1
            return await handle(AsyncWork(session, self.writer), message)

        return await self.inbox.once(message, function, **options)

    def once_many(self, messages: Sequence[Any], handle: Handler, **options: Any) -> list[Any]:
        async def function(session: Any, message: Any) -> Any:
            self.runs += 1
            return await handle(AsyncWork(session, self.writer), message)

        return self.portal.call(partial(self.inbox.once_many, messages, function, **options))

    def close(self) -> None:
        self.portal.call(self.inbox.close)
        self.portal.call(self.writer.close)
        self.portal.call(self._end)


def _run(handling: Awaitable[Any]) -> Any:
    """Run an async function that waits for nothing."""
    assert isinstance(handling, Coroutine)
    try:
        handling.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it waits")


OpenConsumer = Callable[..., Any]


@pytest.fixture
def open_consumer(portal: BlockingPortal, url: str) -> Iterator[OpenConsumer]:
    """Makes consumers. The writer and the inbox have connections of their own to `url`."""
    opened: list[Consumer] = []

    def open_one(kind: str, target: str) -> Consumer:
        driver, *of_tasks = kind.split(maxsplit=1)
        is_async = bool(of_tasks) or driver == "asyncpg"
        database = Database(target if driver == "own" else url)
        settings = formed(QUICK)
        sessions, end = (
            portal.call(_async_sessions, driver, target) if is_async else _sessions(driver, target)
        )
        options = {} if driver == "own" else {"sessions": sessions}
        if is_async:
            inbox: Any = AsyncInbox(database, "mailer", **options)
            writer = AsyncWriter(Database(url), settings)
            opened.append(AsyncConsumer(portal, inbox, writer, end))
        else:
            inbox = Inbox(database, "mailer", **options)
            opened.append(Consumer(inbox, Writer(Database(url), settings), end))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def _sessions(driver: str, target: str) -> tuple[Any, Callable[[], object]]:
    if driver == "own":
        return None, lambda: None
    if driver == "pool":
        pool = ConnectionPool(target, min_size=0, max_size=1, open=True)
        return pool, pool.close
    own: Any = {"use_native_hstore": False} if driver == "psycopg" else {}
    engine = create_engine(engine_url(target, driver), connect_args=GOVERNED, **own)
    return sessionmaker(engine), engine.dispose


async def _async_sessions(driver: str, target: str) -> tuple[Any, Callable[[], Awaitable[None]]]:
    if driver == "own":
        return None, _nothing
    if driver == "pool":
        pool = AsyncConnectionPool(target, min_size=0, max_size=1, open=False)
        await pool.open()
        return pool, pool.close
    options: Any = {"connect_args": OF_ASYNCPG}
    if driver == "psycopg":
        options = {"connect_args": GOVERNED, "use_native_hstore": False}
    engine = create_async_engine(engine_url(target, driver), **options)
    return async_sessionmaker(engine), engine.dispose


async def _nothing() -> None:
    """End nothing."""


def outcomes(found: Sequence[Any]) -> list[str]:
    """How messages ended, in words."""
    return [_word(each) for each in found]


def _word(outcome: Any) -> str:
    if isinstance(outcome, Exception):
        return type(outcome).__name__
    return str(outcome.order) if outcome.ran else "before"


def swallow(*errors: type[BaseException]) -> Any:
    """Swallow errors, as a function must not."""
    return suppress(*errors or (Exception,))
