"""A unit of work of SQLAlchemy that is interrupted ends in the interrupt, and stores nothing."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from itertools import cycle
from typing import Any, Final

import anyio
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from tests.support.driver_sessions import engine_url
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer.callers import QUICK
from tests.support.writer.checked_tables import Tables
from tests.support.writer.session_transacts import Own, new_event
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox import AsyncWriter, Database, Writer, transact

pytestmark = [
    pytest.mark.client,
    pytest.mark.postgres_only("the sessions of these callers pass the endpoint by"),
]

__all__ = ["own"]

PHASES: Final = ["set_config", "INSERT INTO own", "business_events", "AS kept", "COMMIT"]
"""A text in the statements of each phase: mark, row, event, guard and commit."""

Call = Coroutine[Any, Any, None]


def quick_of(cases: Iterable[tuple[Any, ...]], *quick: tuple[Any, ...]) -> list[Any]:
    """The cases, of which all but some are slow: psycopg waits for a dead server for 5 seconds.

    What interrupts goes round, since each phase ends in the same way whatever it was.
    """
    return [
        pytest.param(*case, marks=[] if case in quick else [pytest.mark.slow]) for case in cases
    ]


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


def wait_for(proxy: PostgresProxy, phase: str) -> None:
    wait_until(lambda: any(phase in sql for sql in proxy.statements))


def assert_undone(proxy: PostgresProxy, own: Tables) -> None:
    proxy.wait_until_closed(proxy.opened)
    wait_until(lambda: own.others() == 0)
    assert (own_rows(own), ids(own)) == (0, set())


@pytest.mark.parametrize(
    ("phase", "error"),
    quick_of(
        zip(PHASES, cycle([TimeLimit, KeyboardInterrupt, SystemExit]), strict=False),
        (PHASES[0], TimeLimit),
        (PHASES[1], KeyboardInterrupt),
        (PHASES[4], KeyboardInterrupt),
    ),
)
def test_what_a_signal_handler_raises_reaches_the_caller(
    own: Tables, url: str, proxy: PostgresProxy, error: type[BaseException], phase: str
) -> None:
    """On psycopg alone: psycopg2 waits in C, where no handler runs."""
    main = threading.main_thread().ident
    assert main is not None
    proxy.stall(matching=phase)

    def function(session: Session) -> None:
        session.add(Own(n=1))
        session.flush()
        writer.append_to(session, new_event())

    def interrupt() -> None:
        wait_for(proxy, phase)
        signal.pthread_kill(main, signal.SIGALRM)

    engine = create_engine(engine_url(proxy.url, "psycopg"))
    thread = threading.Thread(target=interrupt)
    with handled(signal.SIGALRM, error), Writer(Database(url), QUICK) as writer:
        thread.start()
        with pytest.raises(error):
            transact(writer, sessionmaker(engine), function)
        thread.join()
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    engine.dispose()
    assert_undone(proxy, own)


async def cancelled(call: Call, is_sent: Callable[[], None]) -> None:
    task = asyncio.create_task(call)
    await asyncio.to_thread(is_sent)
    task.cancel()
    await task


async def out_of_time(call: Call, is_sent: Callable[[], None]) -> None:
    async with asyncio.timeout(None) as limit:
        sent = asyncio.create_task(asyncio.to_thread(is_sent))
        sent.add_done_callback(lambda _: limit.reschedule(0))
        await call


async def in_a_scope(call: Call, is_sent: Callable[[], None]) -> None:
    """A scope of anyio cancels each wait, those of the end of the session too."""
    with anyio.CancelScope() as scope:
        sent = asyncio.create_task(asyncio.to_thread(is_sent))
        sent.add_done_callback(lambda _: scope.cancel())
        await call
    assert scope.cancelled_caught
    raise asyncio.CancelledError


INTERRUPTS: Final[dict[Any, type[BaseException]]] = {
    cancelled: asyncio.CancelledError,
    out_of_time: TimeoutError,
    in_a_scope: asyncio.CancelledError,
}


ON_ASYNCPG: Final = [("asyncpg", *each) for each in zip(PHASES, cycle(INTERRUPTS))]
ON_PSYCOPG: Final = [
    ("psycopg", *each) for each in zip(PHASES, cycle([out_of_time, cancelled, in_a_scope]))
]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("driver", "phase", "interrupt"),
    quick_of(
        [*ON_ASYNCPG, *ON_PSYCOPG],
        *ON_ASYNCPG,
        ON_PSYCOPG[1],
    ),
)
async def test_a_cancellation_reaches_the_caller(
    own: Tables,
    url: str,
    proxy: PostgresProxy,
    driver: str,
    phase: str,
    interrupt: Callable[[Call, Callable[[], None]], Coroutine[Any, Any, None]],
) -> None:
    error = INTERRUPTS[interrupt]
    proxy.stall(matching=phase)

    async def function(session: AsyncSession) -> None:
        session.add(Own(n=1))
        await session.flush()
        await writer.append_to(session, new_event())

    engine = create_async_engine(engine_url(proxy.url, driver))
    async with AsyncWriter(Database(url), QUICK) as writer:
        call = transact(writer, async_sessionmaker(engine), function)
        with pytest.raises(error):
            await interrupt(call, lambda: wait_for(proxy, phase))
        pool: Any = engine.pool
        await asyncio.to_thread(wait_until, lambda: pool.checkedout() == 0)
    await engine.dispose()
    await asyncio.to_thread(assert_undone, proxy, own)
