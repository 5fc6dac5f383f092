"""A unit of work of SQLAlchemy that is interrupted ends in the interrupt, and stores nothing."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from tests.support.sqlalchemy_units import Own, event_of, of_driver
from tests.support.waiting import wait_until
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox import AsyncWriter, Database, Writer
from dsql_outbox.doors.sqlalchemy import AsyncAppend, transact
from dsql_outbox.testing import PostgresProxy

pytestmark = pytest.mark.client

__all__ = ["own"]

ROW = "INSERT INTO own"

Call = Coroutine[Any, Any, None]


class TimeLimit(TimeoutError):
    """What a task queue raises at its time limit, in a signal handler."""


@contextmanager
def handled(number: signal.Signals, error: type[BaseException]) -> Generator[None]:
    def handler(*_: object) -> None:
        raise error

    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def wait_for_the_row(proxy: PostgresProxy) -> None:
    wait_until(lambda: any(ROW in sql for sql in proxy.statements))


def assert_undone(proxy: PostgresProxy, own: Tables) -> None:
    proxy.wait_until_closed(proxy.opened)
    wait_until(lambda: own.others() == 0)
    assert (own_rows(own), ids(own)) == (0, set())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TimeLimit])
@pytest.mark.parametrize("statement", ["execute", "flush"])
def test_what_a_signal_handler_raises_reaches_the_caller(
    own: Tables, url: str, proxy: PostgresProxy, error: type[BaseException], statement: str
) -> None:
    main = threading.main_thread().ident
    assert main is not None
    proxy.stall(matching=ROW)

    def function(session: Session, append: Any) -> None:
        append(event_of())
        session.add(Own(n=1))
        if statement == "execute":
            session.expunge_all()
            session.execute(text(f"{ROW} VALUES (1)"))

    def interrupt() -> None:
        wait_for_the_row(proxy)
        signal.pthread_kill(main, signal.SIGALRM)

    thread = threading.Thread(target=interrupt)
    with handled(signal.SIGALRM, error), Writer(Database(proxy.url)) as writer:
        thread.start()
        with pytest.raises(error):
            transact(writer, sessionmaker(create_engine(of_driver(url))), function)
        thread.join()
    assert_undone(proxy, own)


async def cancelled(call: Call, row_is_sent: Callable[[], None]) -> None:
    task = asyncio.create_task(call)
    await asyncio.to_thread(row_is_sent)
    task.cancel()
    await task


async def out_of_time(call: Call, row_is_sent: Callable[[], None]) -> None:
    async with asyncio.timeout(None) as limit:
        sent = asyncio.create_task(asyncio.to_thread(row_is_sent))
        sent.add_done_callback(lambda _: limit.reschedule(0))
        await call


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("interrupt", "error"), [(cancelled, asyncio.CancelledError), (out_of_time, TimeoutError)]
)
async def test_a_cancellation_reaches_the_caller(
    own: Tables,
    url: str,
    proxy: PostgresProxy,
    interrupt: Callable[[Call, Callable[[], None]], Coroutine[Any, Any, None]],
    error: type[BaseException],
) -> None:
    proxy.stall(matching=ROW)

    async def function(session: AsyncSession, append: AsyncAppend) -> None:
        await append(event_of())
        session.add(Own(n=1))

    async with AsyncWriter(Database(proxy.url)) as writer:
        sessions = async_sessionmaker(create_async_engine(of_driver(url)))
        with pytest.raises(error):
            await interrupt(transact(writer, sessions, function), lambda: wait_for_the_row(proxy))
    await asyncio.to_thread(assert_undone, proxy, own)
