"""Outbox rows that can be no message: each is given up alone, whatever the broker."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

import anyio
import psycopg
import pytest
from tests.support.brokers.running_broker import BROKERS
from tests.support.publisher.running_relays import count, event, running, until

from dsql_outbox.operations import Messages, Selection
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Publisher, PublisherSettings, Rejected
from dsql_outbox.testing import MemorySink
from dsql_outbox.testing.sink_contract import ReadableBroker
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

SHARDS: Final = 8
INNOCENTS: Final = 20
ALIKE: Final = {"eventbridge", "sns", "sns_fifo", "sqs", "stdout"}


class Bad(NamedTuple):
    """Columns of one row; `dies`: it can be no message of any broker."""

    headers: str = '{"id":"1","datacontenttype":"application/json"}'
    created_at: str = "2026-01-02 03:04:05+00"
    position: int | None = None
    """None: of this moment."""
    previous: int = 0
    topic: str = "events.CarMoved"
    payload: str | None = "{}"
    dies: bool = True


BAD: Final = {
    "headers that are a list": Bad("[]"),
    "headers that are a text": Bad('"id"'),
    "headers that are null": Bad("null"),
    "a header that is a number": Bad('{"id":1}'),
    "a header that is an object": Bad('{"id":{"id":"1"}}'),
    "half a character": Bad(r'{"id":"\ud800"}'),
    "a name with a blank": Bad('{"x user":"v"}'),
    "a name with a line break": Bad(r'{"x\r\nuser":"v"}'),
    "a name with NUL": Bad(r'{"x\u0000":"v"}'),
    "a name that is not ASCII": Bad('{"naïve":"v"}'),
    "no name": Bad('{"":"v"}'),
    "a replay that is no number": Bad('{"id":"1","replay":"one"}'),
    "a replay over any number": Bad('{"id":"1","replay":"99999999999999999999"}'),
    "a position below 0": Bad(position=-7),
    "the position 0": Bad(position=0),
    "the lowest position": Bad(position=-(2**63)),
    "a row that waits for itself": Bad(position=5, previous=5),
    "a row that waits for a later one": Bad(position=5, previous=6),
    "no topic": Bad(topic="", dies=False),
    "an odd topic": Bad(topic="$SYS. >\t", dies=False),
    "an empty payload": Bad(payload="", dies=False),
    "no payload": Bad(payload=None),
    "a value with NUL": Bad(r'{"id":"1","datacontenttype":"","note":"\u0000"}', dies=False),
    "created in no time": Bad(created_at="infinity", dies=False),
    "created before all time": Bad(created_at="-infinity", dies=False),
    "created in a year of five digits": Bad(created_at="29426-01-01", dies=False),
    "created before Christ": Bad(created_at="0044-03-15 BC", dies=False),
}


@pytest.fixture(
    params=[
        # What SNS and EventBridge refuse is refused by the code that SQS shares, and what
        # stdout refuses by that of jsonl.
        pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name
        for name in BROKERS
    ]
)
def broker(request: pytest.FixtureRequest) -> ReadableBroker:
    """Each sink's broker in turn."""
    found: ReadableBroker = request.getfixturevalue(f"{request.param}_broker")
    return found


@pytest.fixture
def shards() -> int:
    return SHARDS


@pytest.fixture
def database(outbox_url: str) -> Database:
    return Database(outbox_url)


@pytest.fixture
def sql(outbox_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(outbox_url, autocommit=True) as connection:
        yield connection


def insert(sql: psycopg.Connection, bad: Bad, subject: str, shard: int = 0) -> UUID:
    """What anybody can do who has a writer's rights."""
    event_id = uuid4()
    sql.execute(
        "INSERT INTO outbox.outbox (shard, position, event_id, previous_position, subject_type,"
        " subject_id, subject_version, topic, headers, payload, created_at, payload_size)"
        " VALUES (%s, coalesce(%s, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint), %s,"
        " %s, 'Car', %s, 1, %s, %s, %s, %s::timestamptz, 2)",
        [
            shard,
            bad.position,
            event_id,
            bad.previous,
            subject,
            bad.topic,
            bad.headers,
            bad.payload,
            bad.created_at,
        ],
    )
    return event_id


def dead(sql: psycopg.Connection) -> dict[UUID, str]:
    """The error of each dead letter."""
    return dict(sql.execute("SELECT event_id, error FROM outbox.dead_letters").fetchall())


async def test_one_bad_row_of_each_kind_stops_none_of_three_publishers(
    broker: ReadableBroker, database: Database, sql: psycopg.Connection
) -> None:
    rows = {insert(sql, bad, f"bad-{n}", n % SHARDS): bad for n, bad in enumerate(BAD.values())}
    with Writer(database) as writer:
        events = [event(f"car-{n}") for n in range(INNOCENTS)]
        written = writer.write_many(events)
    assert len(written) == INNOCENTS
    async with AsyncExitStack() as stack:
        sinks = [await stack.enter_async_context(broker.open()) for _ in range(3)]
        settings = PublisherSettings(attempts=1)  # NATS knows no stream of some odd topics
        async with running(*(Publisher(database, sink, settings) for sink in sinks)):
            await until(lambda: count(sql, "outbox") == 0)
        arrived = [stored.headers["id"] for stored in await broker.stored()]
    assert {str(each.id) for each in events} <= set(arrived)
    buried = dead(sql)
    assert {row for row, bad in rows.items() if bad.dies} <= buried.keys()
    assert buried.keys() <= rows.keys()
    assert arrived.count("1") == len(rows) - len(buried)


async def relay(database: Database, sink: MemorySink, **settings: Any) -> None:
    with anyio.fail_after(60):
        await Publisher(database, sink, PublisherSettings(**settings)).run(until_empty=True)


async def test_the_dead_letter_names_the_rule_and_its_subject_goes_on(
    database: Database, sql: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with Writer(database) as writer:
        first = writer.write(event("a")).event_id
        shard, position = sql.execute("SELECT shard, position FROM outbox.outbox").fetchall()[0]
        bad = Bad('{"x user":"secret"}', position=position + 1, previous=position)
        bad_id = insert(sql, bad, "a", shard)
        sql.execute("UPDATE outbox.entities SET position = %s", (position + 1,))
        last = writer.write(event("a")).event_id
    sink = MemorySink()
    await relay(database, sink)
    assert sink.ids == [first, last]
    (error,) = dead(sql).values()
    assert list(dead(sql)) == [bad_id]
    assert "'x user'" in error
    assert (
        f"Row of shard {shard}, position {position + 1}, event {bad_id} is not a valid"
        in caplog.text
    )
    assert "secret" not in error + caplog.text


async def test_a_blocked_row_at_a_position_below_0_is_found_by_its_subject_and_given_up(
    database: Database, sql: psycopg.Connection
) -> None:
    bad_id = insert(sql, Bad(position=-7), "a")
    await relay(database, MemorySink(), on_dead_letter="block")
    async with Messages(database) as messages:
        selected = Selection(state="failing", subject="Car/a")
        found = [each async for each in messages.drop(selected)]
    assert [each.position for each in found] == [-7]
    assert list(dead(sql)) == [bad_id]


async def test_a_bad_row_that_blocks_holds_what_comes_behind_it_and_nothing_else(
    database: Database, sql: psycopg.Connection
) -> None:
    with Writer(database) as writer:
        before = writer.write(event("a")).event_id
        shard, position = sql.execute("SELECT shard, position FROM outbox.outbox").fetchall()[0]
        bad_id = insert(sql, Bad("[]", position=position + 1, previous=position), "a", shard)
        sql.execute("UPDATE outbox.entities SET position = %s", (position + 1,))
        writer.write(event("a"))
        other = writer.write(event("b")).event_id
    sink = MemorySink()
    await relay(database, sink, on_dead_letter="block")
    assert sorted(sink.ids) == sorted([before, other])
    failed = sql.execute(
        "SELECT event_id, attempts, retry_at = 'infinity' FROM outbox.outbox_failures"
    )
    assert failed.fetchall() == [(bad_id, 1, True)]
    assert count(sql, "outbox") == 2


async def test_a_bad_row_waits_for_a_failure_before_it(
    database: Database, sql: psycopg.Connection
) -> None:
    """Else its failure would take the place of the earlier one, and let its subject go on."""
    with Writer(database) as writer:
        first = writer.write(event("a")).event_id
    shard, position = sql.execute("SELECT shard, position FROM outbox.outbox").fetchall()[0]
    insert(sql, Bad("[]", position=position + 1, previous=position), "a", shard)
    sink = MemorySink()
    sink.fail(first, Rejected("never"))
    await relay(database, sink, on_dead_letter="block")
    assert sql.execute("SELECT event_id FROM outbox.outbox_failures").fetchall() == [(first,)]
    assert sink.messages == []
