"""A caller who is cancelled or out of time leaves nothing open behind, and no retries."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Literal

import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import (
    QUICK,
    TIMEOUT,
    Facts,
    OpenWriter,
    in_background,
    outcome_of,
)
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import AttemptEnded, RetryScheduled, WriteEnded
from dsql_outbox.outbox import Database, Event, OutcomeUnknown
from dsql_outbox.writer import AsyncWriter, Writer, http_status
from dsql_outbox.writer.http_status import HttpAnswer

pytestmark = pytest.mark.client

SOON = 4.0  # seconds; psycopg alone would wait for five for an answer to its cancel request
SLOW = replace(QUICK, base=30.0, cap=30.0)


def nothing_is_left(proxy: PostgresProxy, tables: Tables) -> None:
    """No connection at the proxy, no session and no transaction at the server."""
    proxy.wait_until_closed(proxy.opened)
    wait_until(lambda: tables.others() == 0)


async def cancel(task: "asyncio.Task[object]") -> float:
    """Cancel a task; the seconds until it has ended."""
    began = monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return monotonic() - began


async def until(state: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, state)


@pytest.mark.anyio
async def test_a_caller_cancelled_during_an_attempt_leaves_nothing_open(
    proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    """Fact 23: the answer never comes."""
    proxy.stall()
    async with AsyncWriter(Database(proxy.url), QUICK, hooks=[facts]) as writer:
        event = workload_s.car_created()
        task = asyncio.create_task(writer.write(event))
        await until(lambda: any("INSERT" in sql for sql in proxy.statements))
        assert await cancel(task) < SOON
        await asyncio.to_thread(nothing_is_left, proxy, tables)
    assert facts.of(RetryScheduled) == []
    assert facts.of(WriteEnded) == [WriteEnded(event.id, "unknown", 1, 0, "CancelledError")]


@pytest.mark.anyio
async def test_a_caller_cancelled_while_the_server_works_leaves_no_transaction(
    url: str, tables: Tables, proxy: PostgresProxy
) -> None:
    """Fact 23: the server finds out when it is done, and nothing waits for it."""
    async with AsyncWriter(Database(proxy.url), QUICK) as writer:
        with tables.locked("CAR-1"), Tables(url) as watch:
            task = asyncio.create_task(writer.write(workload_s.car_created()))
            await until(lambda: watch.blocked() == 1)
            assert await cancel(task) < SOON
        await asyncio.to_thread(nothing_is_left, proxy, tables)
        tables.assert_consistent()


@pytest.mark.anyio
async def test_a_caller_cancelled_during_a_wait_stops_retrying(
    proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    """Fact 23."""
    proxy.refuse(None)
    async with AsyncWriter(Database(proxy.url), SLOW, hooks=[facts]) as writer:
        event = workload_s.car_created()
        task = asyncio.create_task(writer.write(event))
        await until(lambda: len(facts.of(RetryScheduled)) == 1)
        assert await cancel(task) < SOON
        assert len(facts.of(AttemptEnded)) == 1
        assert proxy.opened <= 2, "one was opened for its next attempt, and is the writer's"
    await asyncio.to_thread(nothing_is_left, proxy, tables)
    assert facts.of(WriteEnded) == [WriteEnded(event.id, "failed", 1, 1, "CancelledError")]
    tables.assert_true_to({event.id: psycopg.OperationalError("cancelled")})


@pytest.mark.anyio
async def test_what_a_caller_cancelled_while_connecting_asked_for_ends_with_the_writer(
    proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    """Fact 23. Until then the next caller may get the connection (test_openings)."""
    async with AsyncWriter(Database(proxy.url), QUICK, hooks=[facts]) as writer:
        with proxy.swallow_server():
            event = workload_s.car_created()
            task = asyncio.create_task(writer.write(event))
            await until(lambda: proxy.opened == 1)
            assert await cancel(task) < SOON
    await asyncio.to_thread(nothing_is_left, proxy, tables)
    assert facts.of(WriteEnded) == [WriteEnded(event.id, "failed", 1, 0, "CancelledError")]


@pytest.mark.anyio
async def test_a_cancelled_caller_gives_its_place_to_the_next(
    proxy: PostgresProxy, tables: Tables
) -> None:
    """Fact 23: with one connection in all, a place lost would be noticed."""
    one = replace(QUICK, max_connections=1)
    async with AsyncWriter(Database(proxy.url), one) as writer:
        for _ in range(3):
            proxy.reset_counts()
            proxy.stall()
            task = asyncio.create_task(writer.write(workload_s.car_created()))
            await until(lambda: any("INSERT" in sql for sql in proxy.statements))
            queued = asyncio.create_task(writer.write(workload_s.car_created()))
            await asyncio.sleep(0)
            await cancel(task)
            receipt = await asyncio.wait_for(queued, TIMEOUT)
            assert receipt.attempts == 1
    tables.assert_consistent()


@pytest.mark.anyio
@pytest.mark.parametrize("coalesce", [0, 1])
async def test_a_caller_cancelled_while_the_backlog_is_looked_at_is_told_of_as_committed(
    proxy: PostgresProxy, tables: Tables, facts: Facts, coalesce: int
) -> None:
    """Its write was settled by then; only the look is cut short."""
    settings = replace(QUICK, backlog_check=1e-9, coalesce=coalesce)
    writer = AsyncWriter(Database(proxy.url), settings, hooks=[facts])
    await writer.write(workload_s.car_created())
    proxy.stall(matching="outbox_backlog")
    event = workload_s.car_created()
    task = asyncio.create_task(writer.write(event))
    await until(lambda: any("outbox_backlog" in sql for sql in proxy.statements))
    if coalesce:  # the look is the lane's: what cuts it is the end of the writer
        closing = asyncio.create_task(writer.close())
        await asyncio.sleep(0)
        await cancel(closing)
        outcome = await task
        assert outcome.status == "committed"
    else:
        assert await cancel(task) < SOON
    await writer.close()
    assert facts.of(WriteEnded, event.id) == [WriteEnded(event.id, "committed", 1, 0)]
    await asyncio.to_thread(nothing_is_left, proxy, tables)
    assert len(tables.events(event.id)) == 1


@pytest.mark.anyio
async def test_of_a_batch_that_is_cancelled_while_the_backlog_is_looked_at_the_rest_is_not_sent(
    proxy: PostgresProxy, facts: Facts
) -> None:
    writer = AsyncWriter(Database(proxy.url), replace(QUICK, backlog_check=1e-9), hooks=[facts])
    await writer.write(workload_s.car_created())
    proxy.stall(matching="outbox_backlog")
    event = workload_s.car_created()
    again = Event.new("CarSold", event.entities, id=event.id)
    async with writer:
        task = asyncio.create_task(writer.write_many([event, again]))
        await until(lambda: any("outbox_backlog" in sql for sql in proxy.statements))
        await cancel(task)
    ended = [(fact.status, fact.attempts) for fact in facts.of(WriteEnded, event.id)]
    assert ended == [("committed", 1), ("failed", 0)]


@pytest.fixture
def _ctrl_c_interrupts() -> Iterator[None]:
    """It does not in a process that a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_interrupts")
def test_an_interrupted_thread_leaves_nothing_open(
    proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    """Fact 23: Ctrl-C during an attempt."""
    proxy.stall()
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        wait_until(lambda: any("INSERT" in sql for sql in proxy.statements))
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with Writer(Database(proxy.url), QUICK, hooks=[facts]) as writer:
        thread.start()
        began = monotonic()
        with pytest.raises(KeyboardInterrupt):
            writer.write(workload_s.car_created())
        assert monotonic() - began < SOON
        thread.join()
        nothing_is_left(proxy, tables)
    assert facts.of(RetryScheduled) == []
    assert [fact.status for fact in facts.of(WriteEnded)] == ["unknown"]


class Alarm(Exception):
    """Raised by a signal handler."""


@pytest.fixture
def _alarm() -> Iterator[None]:
    def handler(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("_alarm")
@pytest.mark.parametrize("fault", ["stall", "refuse"])
def test_what_a_signal_handler_raises_reaches_the_caller_and_is_not_retried(
    proxy: PostgresProxy, tables: Tables, facts: Facts, fault: str
) -> None:
    """While the call waits for an answer (stall) or for its next attempt (refuse)."""
    main = threading.main_thread().ident
    assert main is not None

    def is_waiting() -> bool:
        if fault == "refuse":
            return facts.of(RetryScheduled) != []
        return sum("INSERT" in sql for sql in proxy.statements) == 1

    def ring() -> None:
        wait_until(is_waiting)
        signal.pthread_kill(main, signal.SIGALRM)

    with Writer(Database(proxy.url), SLOW, hooks=[facts]) as writer:
        writer.write(workload_s.car_created())
        if fault == "stall":
            proxy.stall()
        else:
            proxy.refuse(9)
        proxy.reset_counts()
        thread = threading.Thread(target=ring)
        thread.start()
        with pytest.raises(Alarm):
            writer.write(workload_s.car_created())
        thread.join()
        if fault == "stall":
            nothing_is_left(proxy, tables)
    nothing_is_left(proxy, tables)
    assert len(facts.of(RetryScheduled)) == (fault == "refuse")
    status = "unknown" if fault == "stall" else "failed"
    assert [fact.status for fact in facts.of(WriteEnded)] == ["committed", status]


def test_a_caller_whose_time_is_up_gets_the_truth_at_once(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    """Fact 23: the answer never comes, so the outcome is unknown."""
    proxy.stall()
    event = workload_s.car_created()
    began = monotonic()
    error = outcome_of(partial(open_writer(proxy.url, hooks=[facts]).write, event, timeout=0.3))
    assert 0.3 <= monotonic() - began < 0.3 + SOON
    assert isinstance(error, OutcomeUnknown)
    assert facts.of(RetryScheduled) == []
    nothing_is_left(proxy, tables)
    tables.assert_true_to({event.id: error})


def test_the_time_of_a_caller_ends_the_retries_too(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    """Fact 23: a wait that cannot end in time is not begun."""
    proxy.refuse(None)
    event = workload_s.car_created()
    settings = replace(QUICK, base=1.0, cap=5.0, max_retries=10)
    error = outcome_of(partial(open_writer(proxy.url, settings, [facts]).write, event, timeout=2.9))
    assert isinstance(error, psycopg.errors.SerializationFailure)
    assert facts.waits() == [1.0], "the next one, of two seconds, would end too late"
    nothing_is_left(proxy, tables)
    tables.assert_true_to({event.id: error})


def test_a_deadline_does_not_outlive_its_call(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    """The connection is kept; its next user has its own time, or none."""
    caller = open_writer(proxy.url)
    caller.write(workload_s.car_created(), timeout=1.0)
    proxy.before(lambda: wait_until(lambda: monotonic() > began + 1.1))
    began = monotonic()
    receipt = caller.write(workload_s.car_created())
    assert receipt.attempts == proxy.opened == 1
    tables.assert_consistent()


def test_a_caller_who_waits_for_a_connection_in_vain_has_certainly_stored_nothing(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    """Fact 23."""
    held = proxy.hold()
    caller = open_writer(proxy.url, replace(QUICK, max_connections=1))
    first = in_background(partial(caller.write, workload_s.car_created("CAR-1")))
    held.arrived()
    event = workload_s.car_created("CAR-2")
    began = monotonic()
    error = outcome_of(partial(caller.write, event, timeout=0.2))
    assert monotonic() - began < 0.2 + SOON
    assert isinstance(error, psycopg.OperationalError)
    assert "all 1 connections of the writer are in use" in str(error)
    assert http_status(error) == HttpAnswer(503, retry_after=5)
    held.release()
    outcomes = {event.id: error}
    receipt = first.result(TIMEOUT)
    assert not isinstance(receipt, Exception)
    tables.assert_true_to({**outcomes, receipt.event_id: receipt})


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_server_that_does_not_answer_while_connecting_takes_no_more_than_its_time(
    proxy: PostgresProxy, kind: Literal["threads", "asyncio"]
) -> None:
    """Fact 23: also less than libpq's own limit, which is 2 s at the least."""
    database = Database(proxy.url)
    event = workload_s.car_created()
    began = monotonic()
    with proxy.swallow_server():
        if kind == "threads":
            with Writer(database) as writer:
                error = outcome_of(partial(writer.write, event, timeout=0.3))
        else:
            error = asyncio.run(_write_async(database, event))
    assert isinstance(error, psycopg.OperationalError)
    assert 0.3 <= monotonic() - began < 1.9


async def _write_async(database: Database, event: Event) -> Exception:
    async with AsyncWriter(database) as writer:
        try:
            await writer.write(event, timeout=0.3)
        except psycopg.OperationalError as error:
            return error
    raise AssertionError("stored without an answer")
