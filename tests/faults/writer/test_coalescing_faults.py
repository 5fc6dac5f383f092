"""Group commit when something breaks: each caller gets its own truth, and nobody hangs."""

import asyncio
import threading
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from time import monotonic
from typing import Any

import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer.callers import QUICK, Facts, formed
from tests.support.writer.checked_tables import Outcome, Tables

from dsql_outbox.observability.facts import AttemptEnded, BatchEnded, WriteEnded
from dsql_outbox.observability.hooks import Hook
from dsql_outbox.outbox import Database, Entity, Event, OutcomeUnknown, Receipt
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.writer import AsyncWriter, WriterSettings
from dsql_outbox.writer.coalesce import coalescer

pytestmark = [pytest.mark.anyio, pytest.mark.client]

ONE_LANE = replace(QUICK, coalesce=1)


@asynccontextmanager
async def open_writer(
    url: str, settings: WriterSettings = ONE_LANE, *hooks: Hook
) -> AsyncIterator[AsyncWriter]:
    database = Database(url, isolation="repeatable read")
    async with AsyncWriter(database, formed(settings), hooks=hooks) as writer:
        yield writer


def on(*cars: str) -> Event:
    return Event.new("CarSold", [Entity("Car", car, {"owner": "me"}) for car in cars])


async def until(state: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, state)


async def endings(writer: AsyncWriter) -> set[type]:
    calls = started(writer, on("CAR-1"), on("CAR-1"), on("CAR-1"))
    return {type(end) for end in await asyncio.gather(*calls, return_exceptions=True)}


def started(
    writer: AsyncWriter, *events: Event, timeout: float | None = None
) -> "list[asyncio.Task[Receipt]]":
    return [asyncio.create_task(writer.write(event, timeout=timeout)) for event in events]


@pytest.mark.parametrize("where", ["before", "after_commit", "mid_answer"])
async def test_every_caller_of_a_batch_in_doubt_gets_its_true_receipt(
    proxy: PostgresProxy, tables: Tables, facts: Facts, where: str
) -> None:
    proxy.cut(where)  # type: ignore[arg-type]
    events = [on(f"CAR-{n % 7}") for n in range(30)]
    async with open_writer(proxy.url, ONE_LANE, facts) as writer:
        receipts = await asyncio.gather(*map(writer.write, events))
    assert {receipt.attempts for receipt in receipts} == {2}
    assert facts.of(BatchEnded)[0].outcome == "in_doubt"
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})


async def test_a_batch_that_is_lost_is_one_log_line(
    proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.cut("before")
    async with open_writer(proxy.url) as writer:
        await asyncio.gather(*(writer.write(on(f"CAR-{n}")) for n in range(30)))
    (record,) = caplog.records
    assert " and 29 more, attempt 1 at 127.0.0.1:" in record.getMessage()


async def test_a_conflicted_batch_is_split_and_each_event_counts_its_own_attempts(
    proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    proxy.refuse(2)
    events = [on(f"CAR-{n}") for n in range(8)]
    async with open_writer(proxy.url, ONE_LANE, facts) as writer:
        receipts = await asyncio.gather(*map(writer.write, events))
    assert [receipt.attempts for receipt in receipts] == [3, 3, 3, 3, 2, 2, 2, 2]
    assert len(facts.of(AttemptEnded)) == 20
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})


async def test_others_pass_a_batch_that_waits_for_its_retry_and_its_own_entities_rest(
    proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    proxy.refuse(1)
    settings = replace(ONE_LANE, base=0.5, cap=0.5)
    async with open_writer(proxy.url, settings, facts) as writer:
        (first,) = started(writer, on("CAR-1"))
        await until(lambda: bool(facts.waits()))
        (second,) = started(writer, on("CAR-1"))
        other = await writer.write(on("CAR-2"))
        assert not first.done()
        assert not second.done()
        receipts = [other, await first, await second]
    assert [r.attempts for r in receipts] == [1, 2, 1]
    assert [r.entities[0].version for r in receipts] == [1, 1, 2]
    tables.assert_consistent()


async def test_a_foreign_writer_of_one_entity_costs_the_others_no_failure(
    url: str, tables: Tables
) -> None:
    stop = threading.Event()

    def hammer() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute(
                    "UPDATE outbox.entities SET updated_at = now() WHERE entity_id = 'HOT'"
                )

    hot: list[Outcome] = []
    cold: list[Receipt] = []

    async def hot_caller(writer: AsyncWriter) -> None:
        for _ in range(10):
            with suppress(psycopg.Error):
                hot.append(await writer.write(on("HOT")))

    async def cold_caller(writer: AsyncWriter, n: int) -> None:
        cold.extend([await writer.write(on(f"CAR-{n}")) for _ in range(10)])

    async with open_writer(url, replace(ONE_LANE, coalesce=4)) as writer:
        await writer.write(on("HOT"))
        thread = threading.Thread(target=hammer)
        thread.start()
        try:
            await asyncio.gather(
                *(hot_caller(writer) for _ in range(4)),
                *(cold_caller(writer, n) for n in range(40)),
            )
        finally:
            stop.set()
            await asyncio.to_thread(thread.join)
    assert len(cold) == 400
    assert sum(receipt.attempts == 1 for receipt in cold) > 200
    tables.assert_consistent()


async def test_a_caller_whose_time_is_over_leaves_alone(
    proxy: PostgresProxy, tables: Tables
) -> None:
    async with open_writer(proxy.url) as writer:
        await writer.write(on("CAR-2"))  # the connection is open, so the time is the statement's
        held = proxy.hold()
        (hasty,) = started(writer, late := on("CAR-1"), timeout=1)
        (patient,) = started(writer, on("CAR-1"))
        await asyncio.to_thread(held.arrived)
        with pytest.raises(OutcomeUnknown) as raised:
            await hasty
        assert raised.value.event_id == late.id
        await asyncio.to_thread(held.release)
        receipt = await patient
    assert receipt.entities[0].version == 2
    assert len(tables.events(late.id)) == 1


async def test_a_lost_answer_ends_with_the_last_callers_time_and_the_lane_goes_on(
    proxy: PostgresProxy, tables: Tables
) -> None:
    proxy.stall()
    async with open_writer(proxy.url) as writer:
        calls = started(writer, on("CAR-1"), on("CAR-2"), timeout=0.3)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown] * 2
        assert (await writer.write(on("CAR-1"))).attempts == 1
    tables.assert_consistent()


async def test_what_is_not_sent_when_its_caller_leaves_is_not_written(
    proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    held = proxy.hold()
    async with open_writer(proxy.url, ONE_LANE, facts) as writer:
        (first,) = started(writer, on("CAR-1"))
        await asyncio.to_thread(held.arrived)
        (cancelled,) = started(writer, gone := on("CAR-1"))
        (hasty,) = started(writer, late := on("CAR-1"), timeout=0.05)
        (last,) = started(writer, on("CAR-1"))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(psycopg.OperationalError, match="its turn did not come"):
            await hasty
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await asyncio.to_thread(held.release)
        await first
        assert (await last).entities[0].version == 2
    assert tables.events(gone.id) == tables.events(late.id) == []
    assert [fact.status for fact in facts.of(WriteEnded, gone.id)] == ["failed"]


@asynccontextmanager
async def waiting_transactions(
    proxy: PostgresProxy, writer: AsyncWriter, why: str
) -> AsyncIterator[None]:
    """Inside the block, what the lanes have taken cannot be sent yet."""
    free = asyncio.Event()
    inside = asyncio.Event()

    async def occupy(_: object) -> None:
        inside.set()
        await free.wait()

    if why == "outage":
        proxy.refuse_connections()
        yield
        proxy.refuse_connections(0)
    else:
        busy = asyncio.create_task(writer.transact(occupy))
        await inside.wait()
        yield
        free.set()
        await busy


@pytest.mark.pairs
@pytest.mark.parametrize("why", ["busy connection", "outage"])
@pytest.mark.parametrize("companion", [None, 20.0, "cancelled", "absent"])
@pytest.mark.parametrize("lanes", [1, 3])
async def test_a_call_that_was_never_sent_is_not_stored_and_never_in_doubt(
    proxy: PostgresProxy,
    tables: Tables,
    facts: Facts,
    why: str,
    companion: float | str | None,
    lanes: int,
) -> None:
    """Nor is it sent later, whatever the timeout of those that share its transaction."""
    settings = replace(QUICK, coalesce=lanes, max_connections=1, max_outage=20.0)
    hasty = [on(f"CAR-{n % 7}") for n in range(20)]
    last = [on(f"CAR-{n}") for n in range(3)]
    async with open_writer(proxy.url, settings, facts) as writer:
        async with waiting_transactions(proxy, writer, why):
            calls = started(writer, *hasty, timeout=0.2)
            patient: list[asyncio.Task[Receipt]] = []
            if companion != "absent":
                limit = None if companion == "cancelled" else companion
                patient = started(writer, *last, timeout=limit)  # type: ignore[arg-type]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            if companion == "cancelled":
                for call in patient:
                    call.cancel()
                await asyncio.gather(*patient, return_exceptions=True)
        if companion not in {"absent", "cancelled"}:
            for receipt in await asyncio.gather(*patient):
                assert receipt.entities[0].version == 1
        assert (await writer.write(on("CAR-1"))).status == "committed"
    assert {type(outcome) for outcome in outcomes} <= {psycopg.OperationalError}
    for event, outcome in zip(hasty, outcomes, strict=True):
        assert tables.events(event.id) == []
        assert "was not stored by this call" in outcome.__notes__[0]
        assert [fact.status for fact in facts.of(WriteEnded, event.id)] == ["failed"]
    stored = 0 if companion in {"absent", "cancelled"} else 3
    assert len(tables.events()) == stored + 1
    tables.assert_consistent()


@pytest.mark.postgres_only("an opening of the endpoint takes longer than these calls have")
@pytest.mark.parametrize("times", [1, 2])
async def test_after_a_conflict_an_event_whose_time_is_over_is_not_sent_again(
    proxy: PostgresProxy, tables: Tables, times: int
) -> None:
    """The conflict is certain, so the event is not stored; its companions are."""
    proxy.refuse(times)
    settings = replace(ONE_LANE, base=0.4, cap=0.4)
    hasty, patient = [on(f"CAR-{n}") for n in range(5)], [on(f"CAR-{n}") for n in range(5, 8)]
    async with open_writer(proxy.url, settings) as writer:
        quick = started(writer, *hasty, timeout=0.2)
        slow = started(writer, *patient)
        outcomes = await asyncio.gather(*quick, return_exceptions=True)
        receipts = await asyncio.gather(*slow)
    assert not any(isinstance(outcome, (OutcomeUnknown, Receipt)) for outcome in outcomes)
    assert all(tables.events(event.id) == [] for event in hasty)
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})


async def test_an_event_in_doubt_whose_time_is_over_is_not_sent_again(
    proxy: PostgresProxy, tables: Tables
) -> None:
    """The first attempt is lost before the server gets it; its answer can only be unknown."""
    settings = replace(ONE_LANE, base=1.0, cap=1.0)
    async with open_writer(proxy.url, settings) as writer:
        await writer.write(on("CAR-0"))
        proxy.cut("before")
        (hasty,) = started(writer, late := on("CAR-1"), timeout=0.5)
        (patient,) = started(writer, on("CAR-1"))
        with pytest.raises(OutcomeUnknown):
            await hasty
        assert (await patient).entities[0].version == 1
    assert tables.events(late.id) == []


async def test_the_time_of_one_event_ends_while_the_gate_is_reached(
    proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    """The event loop is busy over the deadline, so no timer tells; the gate itself looks."""
    async with open_writer(proxy.url, ONE_LANE, facts) as writer:
        await writer.write(on("CAR-0"))
        (hasty,) = started(writer, late := on("CAR-1"), timeout=0.05)
        (patient,) = started(writer, on("CAR-1"))
        ends = monotonic() + 0.2
        await asyncio.sleep(0)  # both are queued
        while monotonic() < ends:
            pass
        with pytest.raises(psycopg.OperationalError, match="is not stored"):
            await hasty
        assert (await patient).entities[0].version == 1
    assert tables.events(late.id) == []
    assert facts.of(BatchEnded) == []


async def test_what_is_sent_when_its_caller_is_cancelled_goes_on(
    proxy: PostgresProxy, tables: Tables
) -> None:
    held = proxy.hold()
    async with open_writer(proxy.url) as writer:
        cancelled, other = started(writer, event := on("CAR-1"), on("CAR-1"))
        await asyncio.to_thread(held.arrived)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await asyncio.to_thread(held.release)
        assert (await other).entities[0].version == 2
    assert len(tables.events(event.id)) == 1


@pytest.mark.parametrize("lanes", [1, 2])
async def test_after_all_tasks_were_cancelled_the_lanes_take_new_calls(
    proxy: PostgresProxy, tables: Tables, lanes: int
) -> None:
    held, before = proxy.hold(), asyncio.all_tasks()
    async with open_writer(proxy.url, replace(QUICK, coalesce=lanes)) as writer:
        calls = started(writer, on("CAR-1"), on("CAR-2"), on("CAR-1"))
        await asyncio.to_thread(held.arrived)
        for task in asyncio.all_tasks() - before:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.to_thread(held.release)
        events = [on(f"CAR-{n}") for n in range(4)]
        async with asyncio.timeout(10):
            receipts = await asyncio.gather(*started(writer, *events))
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})


@pytest.mark.postgres_only("DSQL has no locks")
@pytest.mark.parametrize("cars", [["CAR-1"], ["CAR-1", "CAR-2", "CAR-3"]])
async def test_a_transaction_that_waits_for_a_foreign_lock_leaves_its_lane(
    url: str, tables: Tables, cars: list[str]
) -> None:
    """The lock blocks the events of its transaction and the later ones of the same entities."""
    async with open_writer(url) as writer:
        await writer.write(on("CAR-1"))
        async with await psycopg.AsyncConnection.connect(url) as other:
            await other.execute(
                "SELECT * FROM outbox.entities WHERE entity_id = 'CAR-1' FOR UPDATE"
            )
            blocked = started(writer, *(on(car) for car in cars))
            await until(lambda: tables.blocked() == 1)
            behind = started(writer, on("CAR-1"))
            async with asyncio.timeout(10):
                receipts = await asyncio.gather(
                    *started(writer, *(on(f"B-{n}") for n in range(50)))
                )
            assert not any(task.done() for task in (*blocked, *behind))
        receipts += await asyncio.gather(*blocked, *behind)
    assert receipts[-1].entities[0].version == 3
    tables.assert_consistent()


async def test_a_caller_that_finds_no_room_in_time_is_told_so(
    proxy: PostgresProxy, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coalescer, "MOST_QUEUED", 1)
    held = proxy.hold()
    async with open_writer(proxy.url, ONE_LANE) as writer:
        first, *_ = started(writer, on("CAR-1"))
        await asyncio.to_thread(held.arrived)
        (second,) = started(writer, on("CAR-1"))
        await asyncio.sleep(0)
        with pytest.raises(psycopg.OperationalError, match="1 events were queued"):
            await writer.write(late := on("CAR-1"), timeout=0.05)
        await asyncio.to_thread(held.release)
        await asyncio.gather(first, second)
    assert tables.events(late.id) == []


async def test_a_caller_that_leaves_its_queue_makes_room_for_the_next(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coalescer, "MOST_QUEUED", 1)
    held = proxy.hold()
    async with open_writer(proxy.url) as writer:
        (first,) = started(writer, on("CAR-1"))
        await asyncio.to_thread(held.arrived)
        (gone,) = started(writer, on("CAR-1"))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(CancelledError):
            await gone
        (last,) = started(writer, on("CAR-1"), timeout=5)
        await asyncio.to_thread(held.release)
        await first
        assert (await last).entities[0].version == 2


async def test_a_defect_in_a_lane_fails_its_callers_and_no_later_ones(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_writer(url) as writer:
        with monkeypatch.context() as broken:
            broken.setattr(coalescer, "chunks", lambda *_: 1 / 0)
            assert await endings(writer) == {ZeroDivisionError}
        with monkeypatch.context() as broken:
            broken.setattr(writer._connections, "perform", lambda *_: 1 / 0)
            assert await endings(writer) == {ZeroDivisionError}
        with monkeypatch.context() as broken:

            def broken_gate(_: object, __: str, ___: object, ____: object, batch: Any) -> None:
                for pending in batch:
                    pending.is_sent = True
                raise CancelledError

            broken.setattr(Gate, "admit", broken_gate)
            assert await endings(writer) == {OutcomeUnknown}
        with monkeypatch.context() as broken:  # what the database answered is known by then
            broken.setattr(coalescer, "_batch_ended", lambda *_: 1 / 0)
            assert await endings(writer) == {Receipt}
        assert (await writer.write(on("CAR-1"))).attempts == 1


async def test_a_writer_left_while_busy_ends_its_retries_first(
    proxy: PostgresProxy, tables: Tables
) -> None:
    proxy.refuse(3)
    async with open_writer(proxy.url) as writer:
        calls = started(writer, *(on(f"CAR-{n}") for n in range(6)))
        await asyncio.sleep(0)
    receipts = await asyncio.gather(*calls)
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})
