"""The relay on real PostgreSQL: presence is the state, order is per subject."""

from time import monotonic
from uuid import UUID

import psycopg
import pytest
from tests.support.publisher.running_relays import count, event

from dsql_outbox.outbox import (
    Database,
    Entity,
    Event,
    SchemaError,
    parse_event,
)
from dsql_outbox.publisher import (
    Publisher,
    PublisherSettings,
    Rejected,
    Retry,
)
from dsql_outbox.schema import statement
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer
from dsql_outbox.writer.statement.parameters import one_parameters, prepare

pytestmark = pytest.mark.anyio

ONE_SHARD = 1


@pytest.fixture
def shards() -> int:
    """One shard, so that every message is in the way of every other."""
    return 1


def changes_of(sql: psycopg.Connection, *, inserts: int, deletes: int) -> tuple[int, int, int]:
    """Inserts, deletes and updates of the outbox, once PostgreSQL has counted the expected."""
    until = monotonic() + 10
    while True:
        row = sql.execute(
            "SELECT n_tup_ins, n_tup_del, n_tup_upd FROM pg_stat_all_tables"
            " WHERE schemaname = 'outbox' AND relname = 'outbox'"
        ).fetchone()
        assert row is not None
        if (row[0] >= inserts and row[1] >= deletes) or monotonic() > until:
            return row[0], row[1], row[2]


async def relay(database: Database, sink: MemorySink, **settings: object) -> Publisher:
    return Publisher(database, sink, PublisherSettings(**settings))  # type: ignore[arg-type]


async def test_committed_events_arrive_once_in_order_and_leave_the_outbox(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    events = [event(f"car-{n % 3}", n) for n in range(12)]
    for e in events:
        writer.write(e)
    sink = MemorySink()
    async with Publisher(database, sink) as publisher:
        done = await publisher.run_once()
    assert (done.read, done.delivered, done.failed) == (12, 12, 0)
    assert sorted(sink.ids) == sorted(e.id for e in events)
    for subject in range(3):
        mine = [e.id for n, e in enumerate(events) if n % 3 == subject]
        assert [i for i in sink.ids if i in mine] == mine
    assert count(sql, "outbox") == 0


async def test_a_message_says_what_its_event_is(database: Database, writer: Writer) -> None:
    entities = [Entity("Loan", "L 1"), Entity("Car", "C@1,2")]
    source = Event.new("Loan Created", "LoanCreated", entities)
    text = source.to_json()
    receipt = writer.write(text)
    sink = MemorySink()
    async with Publisher(database, sink) as publisher:
        await publisher.run_once()
    (message,) = sink.messages
    assert message.payload == text
    assert message.topic == "events.LoanCreated"
    assert message.key == "Loan/L%201"
    assert message.dedupe_id == str(source.id)
    assert message.headers["entities"] == "Loan/L%201@1,Car/C%401%2C2@1"
    assert message.headers["id"] == str(source.id)
    assert message.headers["type"] == "LoanCreated"
    assert message.headers["subject"] == message.headers["partitionkey"] == "Loan/L%201"
    assert message.headers["position"] == str(receipt.position)


async def test_a_row_costs_one_insert_one_delete_and_no_update(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    for n in range(20):
        writer.write(event(f"car-{n}"))
    writer.close()
    async with Publisher(database, MemorySink()) as publisher:
        await publisher.run_once()
    assert changes_of(sql, inserts=20, deletes=20) == (20, 20, 0)


async def test_a_commit_behind_the_cursor_is_delivered_and_before_its_successor(
    database: Database, writer: Writer, sql: psycopg.Connection, database_url: str
) -> None:
    """Positions come from a clock, commits in any order: a cursor alone would lose the row."""
    late = event("late", 1)
    prepared = prepare(parse_event(late), UUID(int=1).hex, "t", "/test", {})
    write_one = statement("event_write_one", "outbox")
    for n in range(2):
        writer.write(event(f"filler-{n}"))
    with psycopg.connect(database_url) as slow:
        slow.execute(write_one, one_parameters(prepared, ONE_SHARD))
        for n in range(2, 12):
            writer.write(event(f"filler-{n}"))
        sink = MemorySink()
        publisher = await relay(database, sink, batch_rows=3, head_interval=3600.0)
        async with publisher:
            await publisher.run_once()
            assert len(sink.messages) == 3, "the cursor is behind the late row now"
            slow.commit()
            successor = event("late", 2)
            writer.write(successor)
            for n in range(12, 20):
                writer.write(event(f"filler-{n}"))
            while not (await publisher.run_once()).held:
                assert late.id not in sink.ids, "the successor was never out of its turn"
            await publisher.run_once()
            assert late.id in sink.ids, "the round after that reads the shard from its head"
            while (await publisher.run_once()).read:
                pass
    assert [i for i in sink.ids if i in (late.id, successor.id)] == [late.id, successor.id]
    assert len(sink.messages) == 22
    assert count(sql, "outbox") == 0


async def test_a_failed_message_holds_its_subject_only(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    bad, next_of_bad, other = event("a", 1), event("a", 2), event("b")
    for e in (bad, next_of_bad, other):
        writer.write(e)
    sink = MemorySink()
    sink.fail(bad.id, Retry("no"))
    async with await relay(database, sink, backoff_base=0.001) as publisher:
        first = await publisher.run_once()
        assert sink.ids == [other.id]
        assert (first.failed, first.delivered) == (1, 1)
        assert count(sql, "outbox_failures") == 1
        while count(sql, "outbox"):
            await publisher.run_once()
    assert sink.ids == [other.id, bad.id, next_of_bad.id]
    assert sink.messages[1].attempt == 2
    assert count(sql, "outbox_failures") == 0


async def test_the_wait_after_a_failure_outlives_the_publisher(
    database: Database, writer: Writer
) -> None:
    bad = event("a")
    writer.write(bad)
    sink = MemorySink()
    sink.fail(bad.id, Retry("no"))
    async with await relay(database, sink, backoff_base=300.0) as publisher:
        await publisher.run_once()
    async with await relay(database, sink, backoff_base=300.0) as restarted:
        done = await restarted.run_once()
    assert (done.read, done.held, sink.ids) == (1, 1, [])


async def test_a_rejected_message_becomes_a_dead_letter_and_its_subject_goes_on(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    poison, good = event("a", 1), event("a", 2)
    writer.write(poison)
    writer.write(good)
    sink = MemorySink()
    sink.fail(poison.id, Rejected("not for me"))
    async with Publisher(database, sink) as publisher:
        first = await publisher.run_once()
        await publisher.run_once()
    assert first.dead == 1
    assert sink.ids == [good.id]
    dead = sql.execute(
        "SELECT event_id, error, attempts, payload FROM outbox.dead_letters"
    ).fetchall()
    assert dead == [(poison.id, "not for me", 1, poison.to_json().decode())]


async def test_a_message_dies_after_its_last_attempt(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    bad = event("a")
    writer.write(bad)
    sink = MemorySink()
    sink.fail(bad.id, Retry("1"), Retry("2"), Retry("3"))
    settings = {"attempts": 3, "backoff_base": 0.001}
    async with await relay(database, sink, **settings) as publisher:
        while count(sql, "outbox"):
            await publisher.run_once()
    assert sql.execute("SELECT attempts, error FROM outbox.dead_letters").fetchall() == [(3, "3")]
    assert count(sql, "outbox_failures") == 0
    assert sink.ids == []


async def test_block_keeps_the_subject_waiting_for_an_operator(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    poison, good = event("a", 1), event("a", 2)
    writer.write(poison)
    writer.write(good)
    sink = MemorySink()
    sink.fail(poison.id, Rejected("no"))
    async with await relay(database, sink, on_dead_letter="block") as publisher:
        for _ in range(3):
            await publisher.run_once()
    assert sink.ids == []
    assert count(sql, "outbox") == 2
    blocked = sql.execute("SELECT isfinite(retry_at) FROM outbox.outbox_failures").fetchall()
    assert blocked == [(False,)]


async def test_an_unreachable_broker_counts_against_no_message(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    written = event("a")
    writer.write(written)
    sink = MemorySink()
    sink.down = True
    async with Publisher(database, sink) as publisher:
        for _ in range(20):
            done = await publisher.run_once()
            assert done.unavailable is not None
        assert count(sql, "outbox_failures") == 0
        sink.down = False
        await publisher.run_once()
    assert sink.ids == [written.id]
    assert sink.messages[0].attempt == 1


async def test_what_was_acknowledged_is_not_sent_again_when_the_delete_fails(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    written = event("a")
    writer.write(written)
    sink = MemorySink()
    async with Publisher(database, sink) as publisher:
        sql.execute("CREATE RULE no_delete AS ON DELETE TO outbox.outbox DO INSTEAD SELECT 1/0")
        with pytest.raises(psycopg.DataError):
            await publisher.run_once()
        sql.execute("DROP RULE no_delete ON outbox.outbox")
        await publisher.run_once()
        assert publisher._relay is not None
        assert not publisher._relay._acknowledged, "what is deleted need not be remembered"
    assert sink.ids == [written.id]
    assert count(sql, "outbox") == 0


async def test_run_ends_when_nothing_is_left(database: Database, writer: Writer) -> None:
    for n in range(30):
        writer.write(event(f"car-{n % 4}", n))
    sink = MemorySink()
    total = await (await relay(database, sink, batch_rows=4)).run(until_empty=True)
    assert total.delivered == len(sink.messages) == 30


async def test_run_ends_when_told_to(database: Database) -> None:
    publisher = Publisher(database, MemorySink())
    publisher.stop()
    total = await publisher.run()
    assert total.delivered == 0


async def test_a_missing_schema_is_named(database_url: str) -> None:
    publisher = Publisher(Database(database_url), MemorySink())
    with pytest.raises(SchemaError, match="dsql-outbox schema apply"):
        await publisher.run()


async def test_rows_and_bytes_of_a_read_are_bounded_and_one_row_always_passes(
    database: Database, writer: Writer
) -> None:
    for n in range(4):
        writer.write(Event.new("Big", "Big", [Entity("Car", f"car-{n}", {"x": "y" * 10_000})]))
    sink = MemorySink()
    async with await relay(database, sink, batch_bytes=100) as publisher:
        first = await publisher.run_once()
        assert first.read == 1
        assert first.behind
        while (await publisher.run_once()).behind:
            pass
    assert len(sink.messages) == 4
