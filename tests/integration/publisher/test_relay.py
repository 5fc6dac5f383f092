"""The relay on real PostgreSQL: presence is the state, order is per subject."""

from collections.abc import Iterator
from time import monotonic
from typing import Any
from uuid import UUID

import anyio
import psycopg
import pytest
from tests.support.publisher.given_rows import rows_in
from tests.support.publisher.running_relays import count, event, relayed

from dsql_outbox.outbox import Database, Entity, Event, OutboxError, SchemaError
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.publisher import Publisher, Rejected, Retry, Sink
from dsql_outbox.publisher.relay import relay as relay_module
from dsql_outbox.publisher.relay.memory import scans
from dsql_outbox.publisher.relay.relay import Relayed
from dsql_outbox.publisher.relay.sql_store import SqlStore
from dsql_outbox.publisher.relay.store import HEAD, PassedOver, Range, RowPlace
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.named_statements import statement
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


async def relay(database: Database, sink: Sink, **settings: Any) -> Relayed:
    """Relay until the outbox is empty."""
    with anyio.fail_after(60):
        publisher = Publisher(database, sink, TunedSettings(**settings))
        return await publisher.run(until_empty=True)


async def test_committed_events_arrive_once_in_order_and_leave_the_outbox(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    events = [event(f"car-{n % 3}", n) for n in range(12)]
    for e in events:
        writer.write(e)
    sink = MemorySink()
    done = await relay(database, sink)
    assert done == Relayed(read=12, delivered=12, deleted=12)
    assert sorted(sink.ids) == sorted(e.id for e in events)
    for subject in range(3):
        mine = [e.id for n, e in enumerate(events) if n % 3 == subject]
        assert [i for i in sink.ids if i in mine] == mine
    assert count(sql, "outbox") == 0


async def test_a_message_says_what_its_event_is(database: Database, writer: Writer) -> None:
    entities = [Entity("Loan", "L 1"), Entity("Car", "C@1,2")]
    source = Event.new("LoanCreated", entities)
    text = source.to_json()
    receipt = writer.write(text)
    sink = MemorySink()
    await relay(database, sink)
    (message,) = sink.messages
    assert message.payload == text
    assert message.topic == "events.LoanCreated"
    assert message.key == "Loan/L 1"
    assert message.dedupe_id == str(source.id)
    assert message.headers["entities"] == "Loan/L%201@1,Car/C%401%2C2@1"
    assert message.headers["id"] == str(source.id)
    assert message.headers["type"] == "LoanCreated"
    assert message.headers["subject"] == message.headers["partitionkey"] == "Loan/L 1"
    assert message.headers["position"] == str(receipt.position)


async def test_a_row_costs_one_insert_one_delete_and_no_update(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    for n in range(20):
        writer.write(event(f"car-{n}"))
    writer.close()
    await relay(database, MemorySink())
    assert changes_of(sql, inserts=20, deletes=20) == (20, 20, 0)


@pytest.fixture
def late(outbox_url: str) -> Iterator[tuple[psycopg.Connection, UUID]]:
    """A transaction that has not committed, with an event of a minute ago of the car ``late``."""
    written = event("late")
    prepared = prepare(parse_event(written), UUID(int=1).hex, "t", "/test", {})
    with psycopg.connect(outbox_url) as slow:
        slow.execute(statement("event_write_one", "outbox"), one_parameters(prepared, ONE_SHARD))
        for table in ("outbox", "entities"):
            slow.execute(f"UPDATE outbox.{table} SET position = position - 60000000")  # type: ignore[arg-type]
        yield slow, written.id


async def test_a_late_commit_is_found_behind_what_was_read(
    database: Database,
    writer: Writer,
    late: tuple[psycopg.Connection, UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Positions come from a clock, commits in any order: a cursor alone would lose the row."""
    monkeypatch.setattr(scans, "_REST", 0.05)
    slow, event_id = late
    sink = MemorySink()
    async with Publisher(database, sink):
        writer.write(event("other"))
        await sink.published(1)
        slow.commit()
        await sink.published(2)
    assert sink.ids[1] == event_id


async def test_a_late_commit_goes_before_its_successor_which_makes_it_found(
    database: Database,
    writer: Writer,
    late: tuple[psycopg.Connection, UUID],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scans, "_REST", 3600.0)
    slow, event_id = late
    sink = MemorySink()
    async with Publisher(database, sink):
        writer.write(event("other"))
        await sink.published(1)
        slow.commit()
        successor = writer.write(event("late", 2)).event_id
        await sink.published(3)
    assert sink.ids[1:] == [event_id, successor]


async def test_a_failed_message_holds_its_subject_only(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    bad, next_of_bad, other = event("a", 1), event("a", 2), event("b")
    for e in (bad, next_of_bad, other):
        writer.write(e)
    sink = MemorySink()
    sink.fail(bad.id, Retry("no"))
    done = await relayed(database, sink, backoff_base=300.0)
    assert sink.ids == [other.id]
    assert (done.failed, done.delivered) == (1, 1)
    assert count(sql, "outbox_failures") == 1
    sql.execute("UPDATE outbox.outbox_failures SET retry_at = now()")
    await relay(database, sink)
    assert sink.ids == [other.id, bad.id, next_of_bad.id]
    assert sink.messages[1].attempt == 2
    assert count(sql, "outbox_failures") == 0


async def test_the_wait_after_a_failure_outlives_the_publisher(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    bad = event("a")
    writer.write(bad)
    sink = MemorySink()
    sink.fail(bad.id, Retry("no"))
    await relayed(database, sink, backoff_base=300.0)
    done = await relayed(database, sink, backoff_base=300.0)
    assert done == Relayed()
    assert sql.execute("SELECT attempts FROM outbox.outbox_failures").fetchall() == [(1,)]


async def test_a_rejected_message_becomes_a_dead_letter_and_its_subject_goes_on(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    poison, good = event("a", 1), event("a", 2)
    writer.write(poison)
    writer.write(good)
    sink = MemorySink()
    sink.fail(poison.id, Rejected("not for me"))
    done = await relay(database, sink)
    assert (done.failed, done.dead, done.delivered) == (0, 1, 1)
    assert sink.ids == [good.id]
    dead = sql.execute(
        "SELECT event_id, error, attempts, payload_size FROM outbox.dead_letters"
    ).fetchall()
    assert dead == [(poison.id, "not for me", 1, len(poison.to_json()))]


async def test_a_message_dies_after_its_last_attempt(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    bad = event("a")
    writer.write(bad)
    sink = MemorySink()
    sink.fail(bad.id, Retry("1"), Retry("2"), Retry("3"))
    done = await relay(database, sink, attempts=3, backoff_base=0.001)
    assert (done.failed, done.dead) == (2, 1)
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
    for _ in range(2):
        await relayed(database, sink, on_dead_letter="block")
    assert sink.ids == []
    assert count(sql, "outbox") == 2
    blocked = sql.execute("SELECT isfinite(retry_at) FROM outbox.outbox_failures").fetchall()
    assert blocked == [(False,)]


async def test_run_ends_when_nothing_is_left(database: Database, writer: Writer) -> None:
    for n in range(30):
        writer.write(event(f"car-{n % 4}", n))
    sink = MemorySink()
    total = await relay(database, sink, batch_rows=4)
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


async def test_a_publisher_runs_once(database: Database) -> None:
    publisher = Publisher(database, MemorySink())
    await publisher.run(until_empty=True)
    with pytest.raises(OutboxError, match="create another one"):
        await publisher.run()


async def test_run_waits_no_longer_than_told_for_a_broker_that_is_away(
    database: Database, writer: Writer
) -> None:
    writer.write(event("a"))
    sink = MemorySink()
    sink.down = True
    with anyio.fail_after(60):
        done = await Publisher(database, sink).run(until_empty=True, max_wait=0.2)
    assert done == Relayed(read=1)


async def test_run_waits_no_longer_than_told_while_many_messages_fail(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at all of them takes several reads, and is no sign that one can be sent."""
    events = [event(f"{n}") for n in range(300)]
    writer.write_many(events)
    sink = MemorySink()
    for each in events:
        sink.fail(each.id, Retry("no"))
    monkeypatch.setattr(scans, "_REST", 0.1)
    settings = TunedSettings(batch_rows=50, backoff_base=60, backoff_cap=60)
    with anyio.fail_after(60):
        done = await Publisher(database, sink, settings).run(until_empty=True, max_wait=1)
    assert done.failed == len(events)


def refuse(sql: psycopg.Connection, change: str) -> None:
    """Have the database refuse a change, with an error that passes."""
    sql.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'not now' USING ERRCODE = '57P03'; END $$"
    )
    sql.execute(f"CREATE TRIGGER refuse BEFORE {change} FOR EACH ROW EXECUTE FUNCTION refuse()")


async def test_a_message_that_cannot_be_buried_keeps_no_other_in_the_outbox(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "_LAST", 0.5)
    bad = writer.write(event("bad"))
    writer.write_many([event(f"{n}") for n in range(20)])
    refuse(sql, "INSERT ON outbox.dead_letters")
    sink = MemorySink()
    sink.fail(bad.event_id, Rejected("no"))
    with anyio.fail_after(60):
        done = await Publisher(database, sink).run(until_empty=True, max_wait=0.5)
    assert (done.deleted, done.dead) == (20, 0)
    assert count(sql, "outbox") == 1


async def test_run_waits_no_longer_than_told_for_a_database_that_deletes_nothing(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "_LAST", 0.5)
    writer.write(event("a"))
    refuse(sql, "DELETE ON outbox.outbox")
    with anyio.fail_after(60):
        done = await Publisher(database, MemorySink()).run(until_empty=True, max_wait=0.5)
    assert (done.delivered, done.deleted) == (1, 0)


async def test_messages_over_the_limit_of_a_read_pass_one_by_one(
    database: Database, writer: Writer
) -> None:
    writer.write_many(big(4))
    sink = MemorySink()
    await relay(database, sink, batch_bytes=100)
    assert len(sink.messages) == 4


@pytest.mark.parametrize(("rows", "size", "found"), [(3, 1 << 20, 3), (9, 21_000, 2), (9, 1, 1)])
async def test_rows_and_bytes_of_a_read_are_bounded_and_one_row_always_passes(
    database: Database, writer: Writer, rows: int, size: int, found: int
) -> None:
    writer.write_many(big(4))
    store = SqlStore(database)
    reading = await store.read([Range(0, HEAD, rows, size, visits=9)], PassedOver({}, ()))
    await store.close()
    (read,) = reading.ranges
    assert (len(read.rows), read.is_cut) == (found, True)
    last = rows_in(read)[-1]
    assert read.end == RowPlace(last.position, last.event_id)


def big(count: int) -> list[Event]:
    """Events of 10 kB."""
    return [
        Event.new("Big", [Entity("Car", f"car-{n}", {"x": "y" * 10_000})]) for n in range(count)
    ]
