"""The relay as a Lambda function, in this process: what it answers, and what it leaves behind."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import psycopg
import pytest
from tests.support.dsql.server import ON_DSQL
from tests.support.lambda_functions import Context
from tests.support.publisher.running_relays import count, event, in_order
from tests.support.waiting import wait_until

from dsql_outbox import (
    Database,
    Entity,
    Event,
    Message,
    Publisher,
    PublisherSettings,
    SchemaError,
    SettingsError,
    Writer,
)
from dsql_outbox.aws_lambda import MARGIN, relay_handler
from dsql_outbox.publisher import Answer, Delivered, Rejected, Retry, Sink
from dsql_outbox.testing import MemorySink

SCHEDULED: dict[str, Any] = {}
LONG = Context(3_600.0)


@pytest.fixture
def shards() -> int:
    return 4


@pytest.fixture
def database(outbox_url: str) -> Database:
    return Database(outbox_url)


def opened(sink: Sink) -> Callable[[], Any]:
    """A function that opens a sink that is open."""

    @asynccontextmanager
    async def open_it() -> AsyncGenerator[Sink]:
        yield sink

    return open_it


class Slow(MemorySink):
    """Takes `seconds` for each message, one at a time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        for index, message in enumerate(messages):
            await anyio.sleep(self.seconds)
            self._messages.append(message)
            answer(index, Delivered())


def owners(sql: psycopg.Connection) -> int:
    ((found,),) = sql.execute("SELECT count(owner) FROM outbox.outbox_leases").fetchall()
    return int(found)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_it_relays_all_and_says_how_much(database: Database, writer: Writer) -> None:
    events = [event(f"car-{n % 10}", n) for n in range(200)]
    writer.write_many(events)
    sink = MemorySink()
    sink.fail(events[0].id, Retry("not yet"))
    sink.fail(events[1].id, Rejected("never"))
    handler = relay_handler(
        database, opened(sink), PublisherSettings(backoff_base=0.01), max_wait=5.0
    )
    assert handler(SCHEDULED, LONG) == {
        "ended": "empty",
        "shards": 4,
        "delivered": 199,
        "skipped": 0,
        "failed": 1,
        "dead": 1,
        "left": 0,
        "more": False,
    }
    assert handler(SCHEDULED, LONG)["delivered"] == 0


def test_a_map_makes_and_skips_messages(database: Database, writer: Writer) -> None:
    writer.write_many([event(f"car-{n % 10}", n) for n in range(200)])
    sink = MemorySink()
    handler = relay_handler(
        database, opened(sink), map=lambda m: b"x" if m.key == "Car/car-3" else None
    )
    answer = handler(SCHEDULED, LONG)
    assert (answer["delivered"], answer["skipped"], answer["left"]) == (20, 180, 0)
    assert {message.payload for message in sink.messages} == {b"x"}
    with pytest.raises(TypeError, match="relay_handler takes a function of a message as its map"):
        relay_handler(database, opened(sink), map="shop:to_message")  # type: ignore[arg-type]


def test_its_sink_may_be_a_url(database: Database, writer: Writer, nats_url: str) -> None:
    writer.write(event("car"))
    handler = relay_handler(database, f"{nats_url}?stream=EVENTS")
    assert handler({"time": "2026-11-25T08:00:00Z"}, LONG)["delivered"] == 1


def test_when_its_time_is_up_all_that_was_sent_is_settled_and_the_next_goes_on(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write_many([event(f"car-{n % 3}", n) for n in range(300)])
    sink = Slow(0.02)
    handler = relay_handler(database, opened(sink), margin=10.0)  # much for a busy machine
    began = monotonic()
    done = handler(SCHEDULED, Context(12.0))
    assert monotonic() - began < 12.0
    assert done["ended"] == "time"
    assert 0 < done["delivered"] == len(sink.messages) < 300
    assert done["left"] == 300 - done["delivered"] == count(sql, "outbox")
    assert owners(sql) == 0
    sink.seconds = 0.0
    assert handler(SCHEDULED, LONG)["ended"] == "empty"
    assert len(sink.messages) == 300
    assert in_order(sink.messages)


def test_a_sink_that_never_answers_is_given_up_within_the_margin(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write(event("car"))
    began = monotonic()
    done = relay_handler(database, opened(Slow(60)), margin=4.0)(SCHEDULED, Context(4.2))
    assert monotonic() - began < 4.2
    assert (done["ended"], done["left"], owners(sql)) == ("time", 1, 0)


def test_one_that_gets_no_shard_returns_at_once_and_says_so(
    database: Database, writer: Writer
) -> None:
    writer.write(event("car"))

    async def while_another_owns_all() -> dict[str, Any]:
        settings = PublisherSettings(drain=0.1, lease=60.0)
        async with Publisher(database, Slow(60), settings):
            handler = relay_handler(database, opened(MemorySink()), max_wait=30.0)
            return await anyio.to_thread.run_sync(handler, SCHEDULED, LONG)

    began = monotonic()
    done = asyncio.run(while_another_owns_all())
    assert monotonic() - began < 5
    assert (done["ended"], done["shards"], done["delivered"]) == ("no shard", 0, 0)
    assert done["left"] == 1


def test_what_is_written_until_the_leases_are_given_back_is_relayed(
    database: Database, writer: Writer
) -> None:
    """Its doorbell found no shard, and nobody else would come before the schedule."""
    sink = MemorySink()
    late = [event("late")]

    def write_at_the_end(fact: object, /) -> None:
        if type(fact).__name__ == "ShardsChanged" and not fact.owned and late:  # type: ignore[attr-defined]
            writer.write(late.pop())

    writer.write(event("car"))
    done = relay_handler(database, opened(sink), hooks=[write_at_the_end])(SCHEDULED, LONG)
    assert (done["delivered"], done["left"]) == (2, 0)


@pytest.mark.parametrize("is_open", [True, False])
def test_a_broker_that_is_down_keeps_it_for_max_wait_only(
    database: Database, writer: Writer, is_open: bool
) -> None:
    writer.write(event("car"))
    sink = MemorySink()
    sink.down = True
    way = opened(sink) if is_open else "nats://127.0.0.1:9?stream=EVENTS&timeout=0.2"
    began = monotonic()
    done = relay_handler(database, way, max_wait=0.2)(SCHEDULED, LONG)
    assert monotonic() - began < 5
    assert (done["ended"], done["failed"], done["left"]) == ("waiting", 0, 1)


@pytest.mark.skipif(ON_DSQL, reason="Aurora DSQL has no triggers")
def test_a_message_that_cannot_be_deleted_is_not_sent_until_the_time_is_up(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    sql.execute(
        """CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER keep BEFORE DELETE ON outbox.outbox
        FOR EACH ROW EXECUTE FUNCTION keep()"""
    )
    writer.write(event("car"))
    sink = MemorySink()
    done = relay_handler(database, opened(sink), max_wait=0.1)(SCHEDULED, Context(MARGIN + 20))
    assert (done["ended"], done["left"]) == ("waiting", 1)
    assert done["delivered"] == len(sink.messages)


class Quoting(MemorySink):
    """Raises what it got."""

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        del answer
        for message in messages:
            quote(message)


def quote(message: Message) -> bytes:
    raise ValueError(message.payload.decode(), message.headers)


@pytest.mark.parametrize(
    ("sink", "map_"), [(Quoting(), None), (MemorySink(), quote)], ids=["sink", "map"]
)
def test_an_error_that_quotes_a_message_puts_no_payload_into_the_log_of_the_function(
    database: Database,
    writer: Writer,
    caplog: pytest.LogCaptureFixture,
    sink: Sink,
    map_: Callable[[Message], bytes] | None,
) -> None:
    caplog.set_level(0)
    writer.write(Event.new("A", [Entity("Car", "1", {"owner": "canary"})]))
    done = relay_handler(database, opened(sink), max_wait=0.1, map=map_)(SCHEDULED, LONG)
    assert (done["ended"], done["left"]) == ("waiting", 1)
    assert "raised ValueError" in caplog.text
    assert "canary" not in caplog.text + str([vars(each) for each in caplog.records])


def test_nothing_is_left_when_it_has_answered(
    database: Database, writer: Writer, sql: psycopg.Connection, nats_url: str
) -> None:
    handler = relay_handler(database, f"{nats_url}?stream=EVENTS")
    handler(SCHEDULED, LONG)  # what is made once and kept, such as a cache
    writer.write_many([event(f"car-{n}") for n in range(50)])
    threads, files = set(threading.enumerate()), open_files()
    assert handler(SCHEDULED, LONG)["delivered"] == 50
    assert set(threading.enumerate()) <= threads
    # The conformance endpoint runs in this process and closes its side a moment later.
    wait_until(lambda: open_files() <= files)
    assert owners(sql) == count(sql, "outbox_publishers") == 0


def test_an_invocation_without_time_begins_nothing(database: Database, writer: Writer) -> None:
    writer.write(event("car"))
    sink = MemorySink()
    with pytest.raises(SettingsError, match=r"has 3 s left and keeps margin=3 s free: give the"):
        relay_handler(database, opened(sink))(SCHEDULED, Context(MARGIN))
    assert sink.messages == []


def test_what_is_missing_fails_the_invocation(outbox_url: str, database: Database) -> None:
    with pytest.raises(SchemaError, match="schema apply"):
        relay_handler(Database(outbox_url, schema="nowhere"), opened(MemorySink()))({}, LONG)
    with pytest.raises(SettingsError, match="no sink for"):
        relay_handler(database, "nowhere://h")
    with pytest.raises(TypeError, match="relay_handler takes the URL of a sink, or a function"):
        relay_handler(database, MemorySink())  # type: ignore[arg-type]
