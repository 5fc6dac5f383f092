"""Rounds that overlap: each message once, in order, and few statements per batch."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import anyio
import anyio.lowlevel
import psycopg
import pytest
from tests.support.publisher.running_relays import event, in_order, quick_settings, running, until

from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import (
    Answer,
    Publisher,
    Rejected,
    Retry,
)
from dsql_outbox.testing import MemorySink, PostgresProxy
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

SHARDS = 4


async def test_rounds_that_overlap_deliver_everything_once_and_in_order(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    events = [event(f"car-{n % 40}", n) for n in range(1_000)]
    writer.write_many(events)
    sink = MemorySink()
    done = await Publisher(database, sink, quick_settings(batch_rows=50)).run(until_empty=True)
    assert [m.event_id for m in sink.messages if m.event_id == events[0].id] == [events[0].id]
    assert len(sink.messages) == done.delivered == done.deleted == 1_000
    assert in_order(sink.messages)
    assert sql.execute("SELECT count(*) FROM outbox.outbox").fetchone() == (0,)


async def test_a_batch_costs_a_read_and_a_delete(database_url: str, writer: Writer) -> None:
    """Counted at the wire, while there is more to read; leases are kept on another connection."""
    writer.write_many([event(f"car-{n % 100}", n) for n in range(2_000)])
    with PostgresProxy(database_url) as proxy:
        publisher = Publisher(Database(proxy.url), MemorySink(), quick_settings(batch_rows=100))
        done = await publisher.run(until_empty=True)
        ran = Counter(statement.split("--")[0][:40] for statement in proxy.statements)
        reads = sum(count for text, count in ran.items() if "outbox_leases" not in text)
    assert done.delivered == 2_000
    rounds = 2_000 / 100
    assert done.statements <= 2 * rounds + 10
    assert reads >= done.statements - 10


async def test_the_database_fails_beside_the_publishing_and_nothing_is_sent_twice(
    database_url: str, writer: Writer
) -> None:
    events = [event(f"car-{n}", n) for n in range(400)]
    writer.write_many(events)
    sink = MemorySink()
    with PostgresProxy(database_url) as proxy:
        proxy.cut("after_sent", 3, matching="DELETE FROM")
        publisher = Publisher(Database(proxy.url), sink, quick_settings(batch_rows=40))
        await publisher.run(until_empty=True)
    assert Counter(message.event_id for message in sink.messages) == Counter(e.id for e in events)


async def test_a_hot_subject_lets_the_others_in(database: Database, writer: Writer) -> None:
    """A round of waves ends after a while, so a new event of another subject is soon read."""

    class Slow(MemorySink):
        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            await anyio.sleep(0.02)
            await super().publish(messages, answer)

    writer.write_many([event("hot", n) for n in range(200)])
    sink = Slow()
    async with running(Publisher(database, sink, quick_settings())):
        await until(lambda: len(sink.messages) > 3)
        before = len(sink.messages)
        late = event("cold")
        await asyncio.to_thread(writer.write, late)
        await until(lambda: any(message.event_id == late.id for message in sink.messages))
        assert len(sink.messages) - before < 60
        await until(lambda: len(sink.messages) == 201)
    assert in_order(sink.messages)


async def test_a_poison_message_delays_its_own_subject_only(
    database: Database, writer: Writer
) -> None:
    poison = event("bad")
    rest = [event(f"car-{n % 50}", n) for n in range(1_000)]
    writer.write_many([poison, event("bad", 1), *rest])
    sink = MemorySink()
    sink.fail(poison.id, *[Retry("no")] * 100)
    async with running(
        Publisher(database, sink, quick_settings(backoff_base=30.0, batch_rows=100))
    ):
        await until(lambda: len(sink.messages) == 1_000)
    assert in_order(sink.messages)
    assert not any(message.key == "Car/bad" for message in sink.messages)


async def test_a_dead_letter_lets_the_rest_of_its_subject_go_in_the_next_round(
    database: Database, writer: Writer
) -> None:
    events = [event("car", n) for n in range(5)]
    writer.write_many(events)
    sink = MemorySink()
    sink.fail(events[0].id, Rejected("never"))
    done = await Publisher(database, sink, quick_settings()).run(until_empty=True)
    assert (done.dead, done.delivered) == (1, 4)
    assert [m.event_id for m in sink.messages] == [e.id for e in events[1:]]
