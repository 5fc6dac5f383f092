"""Group commit on a healthy database, in both forms: one transaction for the calls of many."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Literal
from uuid import uuid4

import psycopg
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, Facts
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import AttemptEnded, BatchEnded, WriteEnded
from dsql_outbox.observability.hooks import Hook
from dsql_outbox.observability.otel.spans import TraceFacts
from dsql_outbox.outbox import (
    Database,
    DuplicateEvent,
    Entity,
    Event,
    InvalidEvent,
    Receipt,
    StaleVersion,
    WriterClosed,
)
from dsql_outbox.writer import AsyncWriter, WriterSettings
from dsql_outbox.writer.coalesce import coalescer

pytestmark = [pytest.mark.anyio, pytest.mark.client]

ONE_LANE = replace(QUICK, coalesce=1)
FOUR_LANES = replace(QUICK, coalesce=4)
FORM: Literal["single", "plain"] = "single"


@pytest.fixture(autouse=True, params=["single", "plain"])
def _form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test comes once for each form of the writes."""
    monkeypatch.setitem(globals(), "FORM", request.param)


@asynccontextmanager
async def open_writer(
    url: str, settings: WriterSettings = ONE_LANE, *hooks: Hook
) -> AsyncIterator[AsyncWriter]:
    database = Database(url, isolation="repeatable read")
    settings = replace(settings, form=FORM)
    async with AsyncWriter(database, settings, hooks=hooks) as writer:
        yield writer
    left = [task for task in asyncio.all_tasks() if "Coalescer" in repr(task)]
    assert left == []


def on(*cars: str) -> Event:
    return Event.new("CarSold", [Entity("Car", car, {"owner": "me"}) for car in cars])


def versions(receipts: list[Receipt]) -> list[int]:
    return [receipt.entities[0].version for receipt in receipts]


async def test_callers_on_one_entity_all_succeed_in_the_order_of_their_calls(
    url: str, tables: Tables, facts: Facts
) -> None:
    events = [workload_s.car_created() for _ in range(64)]
    async with open_writer(url, FOUR_LANES, facts) as writer:
        receipts = await asyncio.gather(*map(writer.write, events))
    assert versions(receipts) == list(range(1, 65))
    assert {receipt.attempts for receipt in receipts} == {1}
    assert [batch.events for batch in facts.of(BatchEnded)] == [64]
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})


async def test_a_writer_is_never_in_conflict_with_itself(url: str, tables: Tables) -> None:
    """256 callers, 4 lanes, 80 entities; every tenth event has a second one."""
    random = Random(7)
    outcomes: list[Receipt] = []

    async def caller(writer: AsyncWriter) -> None:
        for _ in range(4):
            second = random.random() < 0.1
            cars = random.sample(range(80), 2 if second else 1)
            outcomes.append(await writer.write(on(*(f"CAR-{car}" for car in cars))))

    async with open_writer(url, FOUR_LANES) as writer:
        await asyncio.gather(*(caller(writer) for _ in range(256)))
    assert len(outcomes) == 1024
    assert {outcome.attempts for outcome in outcomes} == {1}
    tables.assert_consistent()


async def test_a_lone_caller_needs_one_round_trip_and_no_batch(url: str, facts: Facts) -> None:
    async with open_writer(url, ONE_LANE, facts) as writer:
        receipt = await writer.write(workload_s.three_entities())
    assert [touched.version for touched in receipt.entities] == [1, 1, 1]
    assert facts.of(BatchEnded) == []


async def test_calls_wait_for_the_transaction_in_flight_and_share_the_next(
    url: str, tables: Tables, facts: Facts
) -> None:
    async with open_writer(url, ONE_LANE, facts) as writer:
        with tables.locked("CAR-1"):
            first = asyncio.create_task(writer.write(on("CAR-1")))
            await until_blocked(url)
            others = [asyncio.create_task(writer.write(on(f"CAR-{n}"))) for n in range(2, 12)]
            await asyncio.sleep(0)
        await asyncio.gather(first, *others)
    assert [batch.events for batch in facts.of(BatchEnded)] == [10]


async def until_blocked(url: str) -> None:
    with Tables(url) as watch:
        await asyncio.to_thread(wait_until, lambda: watch.blocked() > 0)


async def test_a_batch_is_cut_at_its_limit(
    url: str, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coalescer, "MOST_TOGETHER", 10)
    async with open_writer(url, ONE_LANE, facts) as writer:
        await asyncio.gather(*(writer.write(on(f"CAR-{n}")) for n in range(25)))
    assert [batch.events for batch in facts.of(BatchEnded)] == [10, 10, 5]


async def test_one_bad_event_fails_alone(url: str, tables: Tables) -> None:
    tables.execute("ALTER TABLE outbox.entities ADD CONSTRAINT bad CHECK (entity_id <> 'CAR-5')")
    events = [on(f"CAR-{n}") for n in range(10)]
    async with open_writer(url) as writer:
        outcomes = await asyncio.gather(*map(writer.write, events), return_exceptions=True)
    failed = [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, Receipt)]
    assert failed == [5]
    assert isinstance(outcomes[5], psycopg.errors.CheckViolation)
    tables.assert_true_to({e.id: o for e, o in zip(events, outcomes, strict=True)})  # type: ignore[misc]


async def test_an_invalid_event_reaches_its_caller_and_takes_no_room(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coalescer, "MOST_QUEUED", 1)
    async with open_writer(url, ONE_LANE) as writer:
        for _ in range(3):
            with pytest.raises(InvalidEvent):
                await writer.write("{}")
        assert (await writer.write(on("CAR-1"))).attempts == 1


async def test_the_same_id_at_once_is_written_once(url: str, tables: Tables) -> None:
    event = workload_s.car_created(id=uuid4())
    other = workload_s.loan_created(id=event.id)
    async with open_writer(url) as writer:
        first, second, third, fourth = await asyncio.gather(
            writer.write(event),
            writer.write(event),
            writer.write(event, on_duplicate="return"),
            writer.write(other, on_duplicate="return"),
            return_exceptions=True,
        )
    assert isinstance(first, Receipt)
    assert isinstance(second, DuplicateEvent)
    assert second.same_content
    assert isinstance(third, Receipt)
    assert (first.status, third.status) == ("committed", "duplicate")
    assert isinstance(fourth, DuplicateEvent)
    assert not fourth.same_content
    tables.assert_true_to({event.id: first})


async def test_an_id_that_is_stored_fails_alone_in_its_batch(url: str, tables: Tables) -> None:
    stored = on("CAR-0")
    async with open_writer(url) as writer:
        await writer.write(stored)
        events = [stored, *(on(f"CAR-{n}") for n in range(1, 6))]
        outcomes = await asyncio.gather(*map(writer.write, events), return_exceptions=True)
    assert isinstance(outcomes[0], DuplicateEvent)
    assert [type(outcome) for outcome in outcomes[1:]] == [Receipt] * 5
    tables.assert_consistent()


async def test_an_expected_version_holds_in_a_batch(url: str, tables: Tables) -> None:
    async with open_writer(url) as writer:
        first, second, third = await asyncio.gather(
            writer.write(on("CAR-1"), expected_version=0),
            writer.write(on("CAR-1"), expected_version=1),
            writer.write(on("CAR-1"), expected_version=1),
            return_exceptions=True,
        )
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert isinstance(third, StaleVersion)
    assert (third.expected, third.actual) == (1, 2)
    tables.assert_consistent()


async def test_leaving_the_writer_ends_what_is_queued_and_in_flight(
    url: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coalescer, "MOST_TOGETHER", 4)
    async with open_writer(url, ONE_LANE) as writer:
        calls = [asyncio.create_task(writer.write(on(f"CAR-{n % 3}"))) for n in range(30)]
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert all(call.done() for call in calls)
    receipts = [call.result() for call in calls]
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})


async def test_a_writer_works_without_its_context_until_it_is_closed(url: str) -> None:
    writer = AsyncWriter(Database(url), replace(ONE_LANE, form=FORM))
    assert versions([await writer.write(on("CAR-1"))]) == [1]
    await writer.close()
    with pytest.raises(WriterClosed):
        await writer.write(on("CAR-1"))


async def test_callers_beyond_the_bound_wait_for_room_in_their_order(
    url: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coalescer, "_PATIENCE", 60.0)  # the transaction keeps its lane
    monkeypatch.setattr(coalescer, "MOST_QUEUED", 4)
    async with open_writer(url, ONE_LANE) as writer:
        with tables.locked("CAR-1"):
            calls = [asyncio.create_task(writer.write(on("CAR-1"))) for _ in range(20)]
            await until_blocked(url)
            assert writer._coalescer is not None
            assert len(writer._coalescer._lanes.queued(0)) == 4
        receipts = await asyncio.gather(*calls)
    assert versions(receipts) == list(range(1, 21))


async def test_each_caller_has_a_span_with_its_own_attempt_linked_from_the_batch(
    url: str,
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with open_writer(url, ONE_LANE, TraceFacts(provider)) as writer:
        await asyncio.gather(*(writer.write(on("CAR-1")) for _ in range(64)))
    spans = exporter.get_finished_spans()
    writes = [span.context.span_id for span in spans if span.name == "outbox.write"]
    attempts = [s.parent.span_id for s in spans if s.name == "outbox.write.attempt" and s.parent]
    (batch,) = [span for span in spans if span.name == "outbox.batch"]
    assert len(writes) == 64
    assert sorted(attempts) == sorted(writes)
    assert sorted(link.context.span_id for link in batch.links) == sorted(writes)
    assert batch.parent is None
    host, port, dbname = Database(url).endpoint
    assert dict(batch.attributes or {}) == {
        "db.system.name": "postgresql",
        "db.namespace": f"{dbname}.outbox",
        "server.address": host,
        "server.port": port,
        "outbox.batch.events": 64,
        "outbox.batch.outcome": "committed",
    }


async def test_a_batch_is_one_round_trip(proxy: PostgresProxy, tables: Tables) -> None:
    async with open_writer(proxy.url) as writer:
        await writer.write(on("CAR-0"))
        proxy.reset_counts()
        receipts = await asyncio.gather(*(writer.write(on(f"CAR-{n}")) for n in range(9)))
    assert proxy.round_trips == 1
    assert ("COMMIT" in proxy.statements) is (FORM == "plain")
    assert {receipt.attempts for receipt in receipts} == {1}
    tables.assert_consistent()


async def test_facts_of_a_batch_are_those_of_single_writes(url: str, facts: Facts) -> None:
    async with open_writer(url, ONE_LANE, facts) as writer:
        await asyncio.gather(*(writer.write(on("CAR-1")) for _ in range(5)))
    assert [fact.number for fact in facts.of(AttemptEnded)] == [1] * 5
    assert [fact.status for fact in facts.of(WriteEnded)] == ["committed"] * 5
