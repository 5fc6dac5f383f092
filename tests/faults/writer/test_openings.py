"""A connection that is being opened belongs to the writer, and outlives the call that asked."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from time import monotonic, time
from typing import Any

import psycopg
import pytest
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import (
    QUICK,
    TIMEOUT,
    Caller,
    Facts,
    OpenWriter,
    formed,
    in_background,
    outcome_of,
)
from tests.support.writer.checked_tables import Tables
from tests.support.writer.forked_call import in_child
from tests.support.writer.slow_openings import SlowOpenings

from dsql_outbox.observability.facts import WriteEnded
from dsql_outbox.outbox import Database, OutcomeUnknown, Receipt
from dsql_outbox.outbox.unit_of_work.connections import shelf
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings

pytestmark = pytest.mark.client

HASTY = 0.15
"""The timeout of a call that does not wait for an opening, in seconds."""


@pytest.fixture
def proxy(url: str) -> Iterator[SlowOpenings]:
    """Holds up all connections until the test lets them go."""
    with SlowOpenings(url) as proxy:
        yield proxy


def with_limit(limit: int, **settings: Any) -> WriterSettings:
    return replace(QUICK, max_connections=limit, **settings)


def hasty(caller: Caller) -> Receipt | Exception:
    return outcome_of(partial(caller.write, workload_s.car_created(), timeout=HASTY))


def openings() -> int:
    """How many threads open a connection."""
    return sum("connection of" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("calls", [1, 4])
def test_the_next_call_gets_the_connection_that_an_earlier_one_asked_for(
    open_writer: OpenWriter, proxy: SlowOpenings, tables: Tables, facts: Facts, calls: int
) -> None:
    caller = open_writer(proxy.url, with_limit(10), [facts])
    for _ in range(calls):
        error = hasty(caller)
        assert isinstance(error, psycopg.OperationalError)
        assert "1 of at most 10 connections of the writer (max_connections) are being" in str(error)
    late = in_background(partial(caller.write, event := workload_s.car_created()))
    proxy.let_go()
    receipt = late.result(TIMEOUT)
    assert isinstance(receipt, Receipt)
    assert (receipt.attempts, proxy.begun) == (1, 1)
    assert [row["id"] for row in tables.events()] == [event.id]
    assert [fact.status for fact in facts.of(WriteEnded)] == ["failed"] * calls + ["committed"]


CALLERS, CALLS = 16, 3


@pytest.mark.pairs
@pytest.mark.postgres_only("a call of the endpoint takes longer than these have")
@pytest.mark.parametrize(
    ("limit", "delay", "timeout"),
    [(1, 0.8, 0.5), pytest.param(3, 1.2, 0.8, marks=pytest.mark.slow), (8, 1.2, 0.9)],
)
@pytest.mark.parametrize("kind", ["write", "transact", "lanes"])
@pytest.mark.parametrize("mode", ["threads", "asyncio"])
def test_slow_openings_serve_callers_that_have_less_time(
    url: str, tables: Tables, limit: int, delay: float, timeout: float, kind: str, mode: str
) -> None:
    """As a pool does. Each caller calls until it was served three times."""
    if (kind, mode) == ("lanes", "threads"):
        pytest.skip("a Writer has no lanes")
    settings = formed(with_limit(limit, coalesce=2 if kind == "lanes" else 0))
    run = _with_tasks if mode == "asyncio" else _with_threads
    with SlowOpenings(url, delay) as proxy:
        outcomes = run(Database(proxy.url), settings, kind, timeout)
        proxy.wait_until_closed(proxy.opened)
    stored = sum(isinstance(outcome, Receipt) for outcome in outcomes)
    unknown = sum(isinstance(outcome, OutcomeUnknown) for outcome in outcomes)
    assert stored == CALLERS * CALLS
    assert stored <= len(tables.events()) <= stored + unknown
    tables.assert_consistent()


def _is_over(own: list[Any], ends: float) -> bool:
    return sum(isinstance(outcome, Receipt) for outcome in own) == CALLS or monotonic() > ends


def _call(writer: Any, kind: str, place: int) -> Any:
    event = workload_s.car_created(f"CAR-{place}")
    if kind == "transact":
        return partial(writer.transact, lambda transaction: transaction.append(event))
    return partial(writer.write, event)


def _with_threads(
    database: Database, settings: WriterSettings, kind: str, timeout: float
) -> list[Any]:
    ends = monotonic() + TIMEOUT

    def caller(place: int) -> list[Any]:
        own: list[Any] = []
        while not _is_over(own, ends):
            own.append(outcome_of(partial(_call(writer, kind, place), timeout=timeout)))
        return own

    with Writer(database, settings) as writer, ThreadPoolExecutor(CALLERS) as threads:
        return list(chain.from_iterable(threads.map(caller, range(CALLERS))))


def _with_tasks(
    database: Database, settings: WriterSettings, kind: str, timeout: float
) -> list[Any]:
    ends = monotonic() + TIMEOUT

    async def caller(writer: AsyncWriter, place: int) -> list[Any]:
        own: list[Any] = []
        while not _is_over(own, ends):
            call = _call(writer, kind, place)(timeout=timeout)
            own += await asyncio.gather(call, return_exceptions=True)
        return own

    async def run() -> list[Any]:
        async with AsyncWriter(database, settings) as writer:
            each = await asyncio.gather(*(caller(writer, n) for n in range(CALLERS)))
        return list(chain.from_iterable(each))

    return asyncio.run(run())


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_openings_are_never_more_than_the_limit(
    open_writer: OpenWriter, proxy: SlowOpenings, limit: int
) -> None:
    caller = open_writer(proxy.url, with_limit(limit))
    calls = [in_background(partial(hasty, caller)) for _ in range(12)]
    for call in calls:
        assert isinstance(call.result(TIMEOUT), psycopg.OperationalError)
    assert proxy.begun == limit
    proxy.let_go()
    for _ in range(5):
        assert isinstance(caller.write(workload_s.car_created()), Receipt)
    assert proxy.begun == limit


def test_a_call_that_waits_for_an_opening_takes_what_comes_back_first(
    open_writer: OpenWriter, proxy: SlowOpenings, tables: Tables
) -> None:
    """The one connection that is open serves all, while the others are being opened."""
    caller = open_writer(proxy.url, with_limit(4))
    proxy.let_go()
    caller.write(workload_s.car_created())
    proxy.hold_up()
    with tables.locked("CAR-1"):  # no transaction ends before all calls wait
        calls = [
            in_background(partial(caller.write, workload_s.car_created("CAR-1"))) for _ in range(8)
        ]
        wait_until(lambda: proxy.begun == 4)
    for call in calls:
        assert isinstance(call.result(TIMEOUT), Receipt)
    assert (proxy.begun, proxy.opened) == (4, 1)
    proxy.let_go()


def test_after_a_conflict_the_failed_connection_is_closed_and_the_next_is_a_new_one(
    open_writer: OpenWriter, proxy: SlowOpenings, tables: Tables
) -> None:
    """The call leaves while the next one is opened; another call uses it, and none of the old."""
    proxy.let_go()
    caller = open_writer(proxy.url, with_limit(1))
    caller.write(workload_s.car_created())
    proxy.hold_up()
    proxy.refuse(1)
    # It must meet its conflict, also on a machine that stands still for a while.
    error = outcome_of(partial(caller.write, workload_s.car_created(), timeout=1.5))
    assert isinstance(error, psycopg.Error)
    proxy.wait_until_closed(1)
    wait_until(lambda: proxy.begun == 2)
    proxy.let_go()
    proxy.refuse(2)
    receipt = caller.write(workload_s.car_created())
    assert (receipt.attempts, proxy.begun) == (3, 4)
    tables.assert_consistent()


def test_an_unused_connection_of_another_call_is_new_enough_for_a_retry(
    open_writer: OpenWriter, proxy: SlowOpenings
) -> None:
    caller = open_writer(proxy.url, with_limit(2))
    calls = [in_background(partial(hasty, caller)) for _ in range(2)]
    assert all(isinstance(call.result(TIMEOUT), psycopg.Error) for call in calls)
    proxy.let_go()
    wait_until(lambda: proxy.opened == 2)
    proxy.refuse(1)
    receipt = caller.write(workload_s.car_created())
    assert (receipt.attempts, proxy.begun) == (2, 2)


def test_an_opening_that_fails_is_told_to_a_call_that_waits(
    open_writer: OpenWriter, proxy: SlowOpenings, facts: Facts
) -> None:
    """It says why, and the call tries again; with no call waiting, nothing is told."""
    caller = open_writer(proxy.url, with_limit(2), [facts])
    assert isinstance(hasty(caller), psycopg.OperationalError)
    proxy.refuse_connections(1)
    late = in_background(partial(caller.write, workload_s.car_created()))
    proxy.let_go()
    receipt = late.result(TIMEOUT)
    assert isinstance(receipt, Receipt)
    assert (receipt.attempts, proxy.begun) in {(1, 2), (2, 2)}
    assert isinstance(caller.write(workload_s.car_created()), Receipt)


@pytest.mark.parametrize("limit", [1, 2])
def test_beside_an_opening_that_may_never_end_another_one_begins_if_there_is_room(
    open_writer: OpenWriter, proxy: SlowOpenings, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """As after a lost packet, or in a Lambda function that was frozen: by the wall clock."""
    caller = open_writer(proxy.url, with_limit(limit))
    assert isinstance(hasty(caller), psycopg.OperationalError)
    monkeypatch.setattr(shelf, "time", lambda: time() + 5.5)
    proxy.delay = 0.0
    if limit == 1:
        assert isinstance(hasty(caller), psycopg.OperationalError)
    else:
        assert caller.write(workload_s.car_created()).attempts == 1
    assert proxy.begun == limit
    proxy.let_go()


@pytest.mark.parametrize("waits", [False, True])
def test_a_writer_closes_while_connections_are_being_opened(
    open_writer: OpenWriter, proxy: SlowOpenings, tables: Tables, *, waits: bool
) -> None:
    """An opening that no call waits for ends with the writer, the others with their calls."""
    caller = open_writer(proxy.url, with_limit(4))
    calls = [in_background(partial(hasty, caller)) for _ in range(3)]
    for call in calls:
        call.result(TIMEOUT)
    late = in_background(partial(caller.write, workload_s.car_created())) if waits else None
    began = monotonic()
    caller.close()
    assert monotonic() - began < 1.0
    wait_until(lambda: openings() <= waits)
    proxy.let_go()
    if late is not None:
        with suppress(Exception):
            late.result(TIMEOUT)
    proxy.wait_until_closed(proxy.opened)
    wait_until(lambda: openings() == 0)
    wait_until(lambda: tables.others() == 0)


def test_an_async_writer_leaves_no_task_behind_its_close(proxy: SlowOpenings) -> None:
    async def run() -> None:
        writer = AsyncWriter(Database(proxy.url), formed(with_limit(3)))
        calls = [writer.write(workload_s.car_created(), timeout=HASTY) for _ in range(3)]
        await asyncio.gather(*calls, return_exceptions=True)
        assert len(asyncio.all_tasks()) == 4
        await writer.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
    proxy.let_go()


def test_an_event_loop_that_ends_ends_its_openings(proxy: SlowOpenings, tables: Tables) -> None:
    """Without a close; the next loop begins anew."""
    writer = AsyncWriter(Database(proxy.url), formed(with_limit(1)))

    async def hasty_write() -> None:
        with pytest.raises(psycopg.OperationalError):
            await writer.write(workload_s.car_created(), timeout=HASTY)

    async def write() -> Receipt:
        async with writer:
            return await writer.write(workload_s.car_created())

    asyncio.run(hasty_write())
    proxy.let_go()
    assert asyncio.run(write()).attempts == 1
    tables.assert_consistent()


def test_a_cancelled_call_leaves_its_opening_to_the_next(proxy: SlowOpenings) -> None:
    async def run() -> Receipt:
        async with AsyncWriter(Database(proxy.url), formed(with_limit(1))) as writer:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(HASTY):
                    await writer.write(workload_s.car_created())
            proxy.let_go()
            return await writer.write(workload_s.car_created())

    assert asyncio.run(run()).attempts == 1
    assert proxy.begun == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on fork
def test_a_forked_child_has_no_part_in_its_parents_openings(
    proxy: SlowOpenings, tables: Tables
) -> None:
    with Writer(Database(proxy.url), formed(with_limit(1))) as writer:
        with pytest.raises(psycopg.OperationalError):
            writer.write(workload_s.car_created(), timeout=HASTY)
        held, proxy.delay = proxy.begun, 0.0
        status = in_child(lambda: writer.write(workload_s.car_created()).status)
        assert (status, held, proxy.begun) == ("committed", 1, 2)
        proxy.let_go()
        assert writer.write(workload_s.car_created()).status == "committed"
        assert proxy.begun == 2
    tables.assert_consistent()


def test_without_a_thread_the_call_opens_its_connection_itself(
    proxy: SlowOpenings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the end of Python 3.12, in a function of atexit."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    proxy.let_go()
    with Writer(Database(proxy.url), formed(with_limit(1))) as writer:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert writer.write(workload_s.car_created()).attempts == 1


def test_openings_that_wait_for_their_turn_take_no_more_turns_than_they_use(
    open_writer: OpenWriter, proxy: SlowOpenings
) -> None:
    """The limit of new connections per second counts an opening once, however many call for it."""
    proxy.let_go()
    database = Database(proxy.url, opens_per_second=0.5)
    for _ in range(100):
        database._opens.reserve(monotonic())  # the burst is used
    caller = open_writer(database, with_limit(2))
    for _ in range(4):
        hasty(caller)
    assert isinstance(caller.write(workload_s.car_created()), Receipt)
    assert proxy.begun == 1
