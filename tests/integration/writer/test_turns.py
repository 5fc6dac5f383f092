"""Calls of `transact` that name their entities take turns, and so never conflict."""

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from time import monotonic

import psycopg
import pytest
from tests.support.proxy.postgres_proxy import OutboxProxy, PostgresProxy
from tests.support.publisher.running_relays import until
from tests.support.waiting import wait_until
from tests.support.writer.callers import TIMEOUT, Facts, formed, in_background
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import WriteEnded
from dsql_outbox.outbox import Database, Entity, Event, Receipt
from dsql_outbox.writer import AsyncTransaction, AsyncWriter, Transaction, Writer, WriterSettings

pytestmark = pytest.mark.client

Names = list[tuple[str, str]]

CARS: Names = [("Car", f"CAR-{n}") for n in range(3)]
ONE_ATTEMPT = WriterSettings(max_retries=0, max_outage=0, max_connections=20, backlog_check=None)


@pytest.fixture
def writer(proxy: PostgresProxy) -> Iterator[Writer]:
    with Writer(Database(proxy.url), formed(ONE_ATTEMPT)) as writer:
        writer.entity("Car", "CAR-0")  # it has a connection
        yield writer


def moved(names: Names) -> Event:
    return Event.new("CarMoved", [Entity(*name, {}) for name in names])


def _appended(event: Event) -> Callable[[Transaction], Receipt]:
    return lambda transaction: transaction.append(event)


def test_a_turn_costs_no_round_trip_and_comes_in_the_order_of_the_calls(
    writer: Writer, proxy: PostgresProxy
) -> None:
    writer.transact(_appended(moved(CARS[:1])))
    proxy.reset_counts()
    writer.transact(_appended(moved(CARS[:1])))
    plain = proxy.round_trips
    proxy.reset_counts()
    held = proxy.hold()
    order: list[int] = []

    def numbered(number: int, transaction: Transaction) -> Receipt:
        order.append(number)
        return transaction.append(moved(CARS[:1]))

    def call(number: int) -> Receipt:
        return writer.transact(partial(numbered, number), entities=CARS[: 1 + number % 2])

    running = [in_background(partial(call, 0))]
    held.arrived()
    for number in range(1, 3):  # the sixth transaction would prepare its append
        running.append(in_background(partial(call, number)))
        waits(writer, number)
    held.release()
    for each in running:
        each.result(TIMEOUT)
    assert order == [0, 1, 2]
    assert proxy.round_trips == 3 * plain


def waits(writer: Writer, number: int) -> None:
    """Wait until so many calls are behind the first."""
    lines = writer._programs._turns._lines
    wait_until(lambda: len(lines[CARS[0]]) == number + 1)


def test_a_call_whose_turn_does_not_come_in_time_stores_nothing_and_frees_its_place(
    writer: Writer, proxy: PostgresProxy, tables: Tables
) -> None:
    held = proxy.hold()
    first = in_background(partial(writer.transact, _appended(moved(CARS)), entities=CARS))
    held.arrived()
    began = monotonic()
    with pytest.raises(psycopg.OperationalError, match="name the same entities") as raised:
        writer.transact(_appended(moved(CARS[:1])), entities=CARS[:1], timeout=0.3)
    assert 0.3 <= monotonic() - began < 5
    assert "attempts 0" in "".join(raised.value.__notes__)
    held.release()
    first.result(TIMEOUT)
    writer.transact(_appended(moved(CARS[:2])), entities=CARS[:2], timeout=5)
    assert len(tables.events()) == 2


def test_calls_that_fail_or_are_cancelled_free_their_entities(url: str, tables: Tables) -> None:
    async def run() -> None:
        async with AsyncWriter(Database(url), formed(ONE_ATTEMPT)) as writer:
            begun, ends = asyncio.Event(), asyncio.Event()

            async def slow(transaction: AsyncTransaction) -> Receipt:
                begun.set()
                await ends.wait()
                return await transaction.append(moved(CARS))

            async def fails(_: AsyncTransaction) -> None:
                raise KeyError("its own")

            async def quick(transaction: AsyncTransaction) -> Receipt:
                return await transaction.append(moved(CARS))

            running = asyncio.create_task(writer.transact(slow, entities=CARS))
            await begun.wait()
            waiting = [
                asyncio.create_task(writer.transact(quick, entities=CARS[n:])) for n in range(3)
            ]
            last = asyncio.create_task(writer.transact(quick, entities=CARS[::-1]))
            await until(lambda: len(writer._programs._turns._lines[CARS[2]]) == 5)
            for task in (waiting[0], waiting[2], running):
                task.cancel()
            receipts = await asyncio.gather(waiting[1], last)
            assert all(isinstance(receipt, Receipt) for receipt in receipts)
            with pytest.raises(KeyError):
                await writer.transact(fails, entities=CARS)
            await writer.transact(quick, entities=CARS, timeout=5)

    asyncio.run(run())
    assert len(tables.events()) == 3


@pytest.fixture
def outbox_proxy(url: str) -> Iterator[OutboxProxy]:
    with OutboxProxy(url) as proxy:
        yield proxy


@contextmanager
def turn_held(writer: Writer) -> Generator[Future[Receipt]]:
    """Hold the turn of a car with a call of `transact` that has sent nothing but BEGIN."""
    begun, ends = threading.Event(), threading.Event()

    def function(transaction: Transaction) -> Receipt:
        begun.set()
        assert ends.wait(TIMEOUT)
        return transaction.append(moved(CARS[:1]))

    call = in_background(partial(writer.transact, function, entities=CARS[:1]))
    assert begun.wait(TIMEOUT)
    try:
        yield call
    finally:
        ends.set()
    call.result(TIMEOUT)


def losing(
    proxy: OutboxProxy, write: Callable[[], Receipt]
) -> tuple[Future[Receipt], threading.Event]:
    """Send a write, which loses a conflict when the event is set. It took no turn before."""
    sent, loses = threading.Event(), threading.Event()

    def wait() -> None:
        sent.set()
        assert loses.wait(TIMEOUT)

    proxy.before(wait, 1, matching="business_events")
    proxy.conflicts(1)
    call = in_background(write)
    assert sent.wait(TIMEOUT)
    return call, loses


def test_a_write_that_lost_a_conflict_waits_for_its_turn_and_others_behind_it(
    outbox_proxy: OutboxProxy,
) -> None:
    with Writer(outbox_proxy.database, formed(WriterSettings(backlog_check=None))) as writer:
        writer.write(moved(CARS))
        second, loses = losing(outbox_proxy, partial(writer.write, moved(CARS[1::-1])))
        with turn_held(writer) as first:
            loses.set()
            waits(writer, 1)
            third = in_background(partial(writer.write, moved(CARS[:1])))
            waits(writer, 2)
            assert writer.write(moved(CARS[2:])).conflicts == 0  # it has no line
        receipts = [each.result(TIMEOUT) for each in (first, second, third)]
        assert [each.conflicts for each in receipts] == [0, 1, 0]
        assert [each.position for each in receipts] == sorted(each.position for each in receipts)
        assert not writer._programs._turns._lines


def test_a_write_waits_for_no_transact_that_has_met_no_conflict(url: str) -> None:
    settings = formed(WriterSettings(backlog_check=None))
    with Writer(Database(url), settings) as writer, turn_held(writer):
        waiting = in_background(
            partial(writer.transact, _appended(moved(CARS)), entities=CARS, timeout=TIMEOUT)
        )
        waits(writer, 1)
        receipt = writer.write(moved(CARS[:2]), timeout=TIMEOUT / 2)
        assert (receipt.attempts, receipt.conflicts, waiting.done()) == (1, 0, False)
    assert isinstance(waiting.result(TIMEOUT), Receipt)


def test_a_write_waits_for_a_transact_that_has_lost_a_conflict(
    outbox_proxy: OutboxProxy,
) -> None:
    runs: list[Transaction] = []
    ends = threading.Event()

    def function(transaction: Transaction) -> Receipt:
        runs.append(transaction)
        if len(runs) == 2:
            assert ends.wait(TIMEOUT)
        return transaction.append(moved(CARS[:1]))

    settings = formed(WriterSettings(backlog_check=None))
    with Writer(outbox_proxy.database, settings) as writer:
        writer.write(moved(CARS))
        outbox_proxy.conflicts(1)
        first = in_background(partial(writer.transact, function, entities=CARS[:1]))
        wait_until(lambda: len(runs) == 2)
        second = in_background(partial(writer.write, moved(CARS[:1])))
        waits(writer, 1)
        ends.set()
        receipts = [each.result(TIMEOUT) for each in (first, second)]
    assert [each.conflicts for each in receipts] == [1, 0]


def test_a_write_whose_turn_does_not_come_in_time_ends_with_its_conflict_if_it_has_one(
    outbox_proxy: OutboxProxy, tables: Tables
) -> None:
    with Writer(outbox_proxy.database, formed(WriterSettings(backlog_check=None))) as writer:
        writer.write(moved(CARS))
        lost, loses = losing(outbox_proxy, partial(writer.write, moved(CARS[:1]), timeout=2))
        with turn_held(writer):
            loses.set()
            waits(writer, 1)
            with pytest.raises(psycopg.OperationalError, match="nothing was sent") as never:
                writer.write(moved(CARS[:1]), timeout=0.3)
            ended = lost.result(TIMEOUT)
        assert not writer._programs._turns._lines
    assert "attempts 0" in "".join(never.value.__notes__)
    assert isinstance(ended, psycopg.errors.SerializationFailure)
    assert "attempts 1" in "".join(ended.__notes__)
    assert len(tables.events()) == 2


def test_a_write_that_is_cancelled_in_the_line_is_told_and_frees_its_place(
    outbox_proxy: OutboxProxy, facts: Facts, tables: Tables
) -> None:
    async def run() -> None:
        database, settings = outbox_proxy.database, formed(WriterSettings(backlog_check=None))
        async with AsyncWriter(database, settings, hooks=[facts]) as writer:
            begun, ends = asyncio.Event(), asyncio.Event()

            async def slow(transaction: AsyncTransaction) -> Receipt:
                begun.set()
                await ends.wait()
                return await transaction.append(moved(CARS[:1]))

            running = asyncio.create_task(writer.transact(slow, entities=CARS[:1]))
            await begun.wait()
            lines = writer._programs._turns._lines
            outbox_proxy.conflicts(1)
            lost = asyncio.create_task(writer.write(moved(CARS[:1])))
            await until(lambda: len(lines[CARS[0]]) == 2)
            waiting = asyncio.create_task(writer.write(moved(CARS[:1])))
            await until(lambda: len(lines[CARS[0]]) == 3)
            for task in (waiting, lost):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert [ended.attempts for ended in facts.of(WriteEnded)] == [0, 1]
            assert len(lines[CARS[0]]) == 1
            ends.set()
            await running

    asyncio.run(run())
    assert len(tables.events()) == 1


def test_a_write_with_counted_retries_takes_no_turn(outbox_proxy: OutboxProxy) -> None:
    with (
        Writer(outbox_proxy.database, formed(WriterSettings.origin())) as writer,
        turn_held(writer),
    ):
        outbox_proxy.conflicts(2)
        assert writer.write(moved(CARS[:1])).conflicts == 2
