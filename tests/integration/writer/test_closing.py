"""What the end of a writer, of an event loop, or of a call by a signal leaves behind."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import (
    FORM,
    QUICK,
    TIMEOUT,
    Facts,
    OpenWriter,
    in_background,
    on_retry,
)
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import WriteEnded
from dsql_outbox.outbox import Database, OutboxError, Receipt, WriterClosed
from dsql_outbox.writer import AsyncWriter, Writer
from dsql_outbox.writer.coalesce import coalescer

pytestmark = pytest.mark.client

T = TypeVar("T")

FORMED = replace(QUICK, form=FORM)  # type: ignore[arg-type]
COALESCE: Final = [0, 1]


# Close


def test_a_closed_writer_refuses_to_write_and_opens_nothing(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    caller = open_writer(proxy.url)
    caller.write(workload_s.car_created())
    caller.close()
    proxy.wait_until_closed(1)
    event = workload_s.car_created()
    with pytest.raises(WriterClosed, match="is closed, so nothing was sent"):
        caller.write(event)
    caller.close()
    assert (proxy.opened, proxy.closed) == (1, 1)
    assert tables.events(event.id) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda writer, _: writer.write_many([workload_s.car_created()]),
        lambda writer, _: writer.transact(print),
        lambda writer, connection: writer.append_to(connection, workload_s.car_created()),
        lambda writer, _: next(writer.stream("Car", "1")),
    ],
    ids=["write_many", "transact", "append_to", "stream"],
)
def test_every_call_of_a_closed_writer_is_refused(
    url: str, proxy: PostgresProxy, call: Callable[[Writer, psycopg.Connection], object]
) -> None:
    with Writer(Database(proxy.url), FORMED) as writer:
        pass
    with psycopg.connect(url) as connection, pytest.raises(WriterClosed):
        call(writer, connection)
    assert proxy.opened == 0


@pytest.mark.anyio
@pytest.mark.parametrize("coalesce", COALESCE)
async def test_every_call_of_a_closed_async_writer_is_refused(
    url: str, proxy: PostgresProxy, coalesce: int
) -> None:
    async with AsyncWriter(Database(proxy.url), replace(FORMED, coalesce=coalesce)) as writer:
        pass

    async def nothing(_: object) -> None:
        pass

    async with await psycopg.AsyncConnection.connect(url) as connection:
        calls: list[Awaitable[object]] = [
            writer.write(workload_s.car_created()),
            writer.write_many([workload_s.car_created()]),
            writer.transact(nothing),
            writer.append_to(connection, workload_s.car_created()),
            anext(writer.stream("Car", "1")),
        ]
        for call in calls:
            with pytest.raises(WriterClosed):
                await call
    assert proxy.opened == 0


def test_a_call_in_flight_ends_normally_and_its_connection_is_closed(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    """It conflicts after the close, so it even opens another connection."""
    caller = open_writer(proxy.url, QUICK, [on_retry(lambda _: caller_closed.set())])
    caller_closed = threading.Event()
    proxy.before(caller.close, matching="INSERT")
    proxy.refuse(1, matching="INSERT")
    receipt = in_background(partial(caller.write, workload_s.car_created())).result(TIMEOUT)
    assert isinstance(receipt, Receipt), receipt
    assert (receipt.attempts, caller_closed.is_set()) == (2, True)
    proxy.wait_until_closed(proxy.opened)
    tables.assert_true_to({receipt.event_id: receipt})
    with pytest.raises(WriterClosed):
        caller.write(workload_s.car_created())


@pytest.mark.anyio
async def test_coalesced_calls_in_flight_and_queued_end_normally(
    proxy: PostgresProxy, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coalescer, "MOST_TOGETHER", 7)
    events = [workload_s.car_created() for _ in range(30)]
    settings = replace(FORMED, coalesce=1)
    async with AsyncWriter(Database(proxy.url), settings) as writer:
        calls = [asyncio.create_task(writer.write(event)) for event in events]
        await asyncio.sleep(0)  # each call has queued its event
    assert {(await call).event_id for call in calls} == {event.id for event in events}
    assert len(tables.events()) == 30
    proxy.wait_until_closed(proxy.opened)


# Event loops


def in_new_loop(call: Callable[[], Coroutine[Any, Any, T]], *, abandon: bool = False) -> T:
    """Run a call in an event loop of its own, which with `abandon` cancels no task at its end."""
    if not abandon:
        return asyncio.run(asyncio.wait_for(call(), TIMEOUT))
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(call())
    finally:
        loop.close()


@pytest.mark.parametrize("coalesce", COALESCE)
@pytest.mark.parametrize("first", ["write", "write_many"])
@pytest.mark.parametrize("abandon", [False, True], ids=["cancelled", "abandoned"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_writer_goes_on_in_a_new_loop_after_a_busy_one(
    proxy: PostgresProxy,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    coalesce: int,
    first: str,
    *,
    abandon: bool,
) -> None:
    """The busy loop ends with a write in flight, one connection for all, and others queued."""
    monkeypatch.setattr(coalescer, "MOST_TOGETHER", 1)
    monkeypatch.setattr(coalescer, "MOST_QUEUED", 3)
    settings = replace(FORMED, coalesce=coalesce, max_connections=1)
    writer = AsyncWriter(Database(proxy.url), settings)
    release = threading.Event()
    tasks: list[asyncio.Task[Receipt]] = []

    async def be_busy() -> None:
        await writer.write(workload_s.car_created())
        arrived = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold() -> None:
            loop.call_soon_threadsafe(arrived.set)
            release.wait(TIMEOUT)

        proxy.before(hold, matching="INSERT")
        tasks.extend(asyncio.create_task(writer.write(workload_s.car_created())) for _ in range(6))
        await asyncio.wait_for(arrived.wait(), TIMEOUT)

    async def write() -> list[Receipt]:
        async with writer:
            if first == "write_many":  # the coalescer has no part in it
                await writer.write_many([workload_s.car_created()])
            events = [workload_s.car_created() for _ in range(5)]
            return await asyncio.gather(*(writer.write(event) for event in events))

    in_new_loop(be_busy, abandon=abandon)
    release.set()
    receipts = in_new_loop(write)
    proxy.wait_until_closed(proxy.opened)  # although the abandoned tasks still hold theirs
    assert len({receipt.event_id for receipt in receipts}) == 5
    for receipt in receipts:
        assert tables.events(receipt.event_id)
    tables.assert_consistent()


@pytest.mark.parametrize("coalesce", COALESCE)
def test_a_second_loop_that_runs_at_the_same_time_is_refused(
    proxy: PostgresProxy, tables: Tables, coalesce: int
) -> None:
    writer = AsyncWriter(Database(proxy.url), replace(FORMED, coalesce=coalesce))
    first, second = workload_s.car_created(), workload_s.car_created()

    async def outer() -> None:
        await writer.write(first)
        refused = asyncio.to_thread(in_new_loop, partial(writer.write, second))
        with pytest.raises(OutboxError, match="make an AsyncWriter for each event loop"):
            await refused
        await writer.close()

    in_new_loop(outer)
    assert [row["id"] for row in tables.events()] == [first.id]


def test_a_loop_after_a_quiet_one_uses_its_connections(proxy: PostgresProxy) -> None:
    writer = AsyncWriter(Database(proxy.url), FORMED)
    for _ in range(3):
        in_new_loop(partial(writer.write, workload_s.car_created()))
    in_new_loop(writer.close)
    assert proxy.opened == 1
    proxy.wait_until_closed(1)


# Signals


class OutOfTimeError(TimeoutError):
    """What the handler of a signal raises. Unfortunately an OSError, as an outage of the net."""


class HardLimit(KeyboardInterrupt):
    """As the user's Ctrl-C."""


@contextmanager
def handling(error: type[BaseException]) -> Iterator[None]:
    def handle(*_: object) -> None:
        raise error

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


@pytest.mark.pairs
@pytest.mark.parametrize("error", [OutOfTimeError, HardLimit, ZeroDivisionError])
@pytest.mark.parametrize("matching", ["INSERT", "outbox_leases"])
def test_what_a_signal_handler_raises_during_a_write_reaches_the_caller(
    proxy: PostgresProxy,
    tables: Tables,
    facts: Facts,
    error: type[BaseException],
    matching: str,
) -> None:
    held = threading.Event()

    def hold() -> None:
        interrupt()
        held.wait(TIMEOUT)

    settings = replace(FORMED, max_connections=1)
    proxy.before(hold, matching=matching)
    with Writer(Database(proxy.url), settings, hooks=[facts]) as writer, handling(error):
        with pytest.raises(error):
            writer.write(workload_s.car_created(), timeout=TIMEOUT)
        held.set()
        proxy.wait_until_closed(1)
        receipt = writer.write(workload_s.car_created(), timeout=TIMEOUT)
    ended = facts.of(WriteEnded)
    first = "unknown" if matching == "INSERT" else "failed"  # the first statement only reads
    assert [fact.status for fact in ended] == [first, "committed"]
    assert ended[0].attempts == 1
    assert tables.events(receipt.event_id)


@pytest.mark.parametrize("error", [OutOfTimeError, HardLimit])
def test_what_a_signal_handler_raises_during_a_transaction_reaches_the_caller(
    proxy: PostgresProxy, tables: Tables, error: type[BaseException]
) -> None:
    runs: list[int] = []

    def work(transaction: Any) -> None:
        runs.append(len(runs))
        transaction.append(workload_s.car_created())

    held = threading.Event()

    def hold() -> None:
        interrupt()
        held.wait(TIMEOUT)

    proxy.before(hold, matching="COMMIT")
    with Writer(Database(proxy.url), FORMED) as writer, handling(error):
        with pytest.raises(error):
            writer.transact(work, timeout=TIMEOUT)
        held.set()
    assert runs == [0]
    wait_until(lambda: tables.others() == 0)  # the COMMIT may still be on its way
    tables.assert_consistent()


@pytest.mark.parametrize("error", [OutOfTimeError, HardLimit])
def test_what_a_signal_handler_raises_while_waiting_for_a_retry_reaches_the_caller(
    proxy: PostgresProxy, tables: Tables, error: type[BaseException]
) -> None:
    event = workload_s.car_created()
    proxy.refuse(9, matching="INSERT")
    settings = replace(FORMED, base=TIMEOUT, cap=TIMEOUT)
    hook = on_retry(lambda _: threading.Timer(0.05, interrupt).start())
    with (
        Writer(Database(proxy.url), settings, hooks=[hook]) as writer,
        handling(error),
        pytest.raises(error),
    ):
        writer.write(event)
    assert tables.events(event.id) == []


@pytest.mark.parametrize("error", [OutOfTimeError, HardLimit])
def test_what_a_signal_handler_raises_while_waiting_for_a_connection_reaches_the_caller(
    proxy: PostgresProxy, tables: Tables, error: type[BaseException]
) -> None:
    """The only connection is in use, and free again afterwards."""
    held, interrupted = threading.Event(), workload_s.car_created()

    def hold() -> None:
        held.set()
        threading.Timer(0.05, interrupt).start()
        release.wait(TIMEOUT)

    release = threading.Event()
    settings = replace(FORMED, max_connections=1)
    with Writer(Database(proxy.url), settings) as writer, handling(error):
        writer.write(workload_s.car_created())
        proxy.before(hold, matching="INSERT")
        other = in_background(partial(writer.write, workload_s.car_created()))
        assert held.wait(TIMEOUT)
        with pytest.raises(error):
            writer.write(interrupted)
        release.set()
        assert isinstance(other.result(TIMEOUT), Receipt)
        assert writer.write(workload_s.car_created(), timeout=TIMEOUT).attempts == 1
    assert tables.events(interrupted.id) == []
