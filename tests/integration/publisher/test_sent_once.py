"""Each message is sent once and in order, and in few statements, while all goes well."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import anyio
import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.running_relays import count, event, in_order, quick_settings

from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import Answer, Publisher, Rejected, Retry, tuned_settings
from dsql_outbox.publisher.relay.memory import scans
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.outbox_rows import RowId
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio


async def test_everything_is_sent_once_and_in_order(
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


async def test_a_batch_costs_about_a_read_and_a_delete_where_statements_cost_money(
    outbox_url: str, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted at the wire, while there is more to read; leases have a connection of their own."""
    monkeypatch.setattr(tuned_settings, "GATHER", tuned_settings.LONG_GATHER)  # as on Aurora DSQL
    writer.write_many([event(f"car-{n}") for n in range(2_000)])
    with PostgresProxy(outbox_url) as proxy:
        publisher = Publisher(Database(proxy.url), MemorySink(), quick_settings(batch_rows=100))
        done = await publisher.run(until_empty=True)
        sent = Counter(
            "DELETE FROM" in text
            for text in proxy.statements
            if "set_config('plan_cache_mode'" not in text  # in the round trip of a read
        )
    assert done.delivered == 2_000
    batches = 2_000 / 100
    assert sent[True] <= 1.5 * batches + 5, "deletes"
    assert sent[False] <= 1.5 * batches + 15, "reads, and what a start costs"


async def test_the_database_fails_beside_the_publishing_and_nothing_is_sent_twice(
    outbox_url: str, writer: Writer
) -> None:
    events = [event(f"car-{n}", n) for n in range(400)]
    writer.write_many(events)
    sink = MemorySink()
    with PostgresProxy(outbox_url) as proxy:
        proxy.cut("after_sent", 3, matching="DELETE FROM")
        publisher = Publisher(Database(proxy.url), sink, quick_settings(batch_rows=40))
        await publisher.run(until_empty=True)
    assert Counter(message.event_id for message in sink.messages) == Counter(e.id for e in events)


async def test_a_dead_letter_lets_the_rest_of_its_subject_go(
    database: Database, writer: Writer
) -> None:
    events = [event("car", n) for n in range(5)]
    writer.write_many(events)
    sink = MemorySink()
    sink.fail(events[0].id, Rejected("never"))
    done = await Publisher(database, sink, quick_settings()).run(until_empty=True)
    assert (done.dead, done.delivered) == (1, 4)
    assert [m.event_id for m in sink.messages] == [e.id for e in events[1:]]


async def test_what_died_while_the_next_rows_were_read_is_not_sent_once_more(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []

    class Slow(MemorySink):
        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            await anyio.sleep(0.02)
            attempts.extend(m.attempt for m in messages if m.event_id == dead.id)
            await super().publish(messages, answer)

    dead = event("dead")
    writer.write_many([dead, *(event(f"good-{n}") for n in range(2_000))])
    sink = Slow()
    sink.fail(dead.id, *[Retry("no")] * 10)
    monkeypatch.setattr(scans, "_REST", 0.001)
    quick = TunedSettings(batch_rows=50, attempts=3, backoff_base=0.05, backoff_cap=0.05)
    done = await Publisher(database, sink, quick).run(until_empty=True)
    assert (done.delivered, done.dead) == (2_000, 1)
    assert attempts == [1, 2, 3]
    assert sql.execute("SELECT count(*) FROM outbox.dead_letters").fetchone() == (1,)


async def test_what_was_acknowledged_is_deleted_before_another_may_send_it(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(MemorySink):
        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            await anyio.sleep(0.03)
            await super().publish(messages, answer)

    writer.write_many([event(f"good-{n}") for n in range(3_000)])
    sink = Slow()
    publisher = Publisher(database, sink, TunedSettings(batch_rows=200))
    delete, release = publisher._store.delete, publisher._leases._table.release
    left: list[object] = []
    released: set[int] = set()

    async def slow(rows: Collection[RowId]) -> int:
        await anyio.sleep(0.1)
        return await delete(rows)

    async def noted(owner: str, epochs: Mapping[int, int]) -> set[int]:
        acknowledged = [message.event_id for message in sink.messages]
        left.extend(
            sql.execute(
                "SELECT event_id FROM outbox.outbox WHERE shard = ANY(%s) AND event_id = ANY(%s)",
                (list(epochs), acknowledged),
            )
        )
        released.update(epochs)
        return await release(owner, epochs)

    async with publisher:
        monkeypatch.setattr(publisher._store, "delete", slow)
        monkeypatch.setattr(publisher._leases._table, "release", noted)
        await sink.published(800)
    assert (left, len(released)) == ([], count(sql, "outbox_leases"))
    assert count(sql, "outbox") == 3_000 - len(sink.messages)
