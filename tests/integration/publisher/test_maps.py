"""Publishers with a map, on tables."""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import nats
import psycopg
import pytest
from msgspec import structs
from tests.support.publisher.given_up_messages import gathered
from tests.support.publisher.running_relays import (
    count,
    event,
    in_order,
    quick_settings,
    running,
    until,
)

from dsql_outbox.inbox import Inbox, from_nats
from dsql_outbox.observability.facts import Fact, PublishEnded, RelayProgress
from dsql_outbox.operations import Messages, Selection, Targets
from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import Answer, Publisher, Refuse, WireForm
from dsql_outbox.publisher.relay.relay import Relayed
from dsql_outbox.testing import MemorySink, NatsServer
from dsql_outbox.writer import Writer

pytestmark = [pytest.mark.anyio, pytest.mark.client]


def number(message: Message) -> int:
    return int(json.loads(message.payload)["entities"][0]["n"])


def flat(message: Message) -> dict[str, object]:
    """A consumer's own JSON."""
    entity = json.loads(message.payload)["entities"][0]
    return {"car": message.key, "n": entity["n"]}


async def drained(
    database: Database, sink: MemorySink, map_: Callable[[Message], object], **settings: object
) -> Relayed:
    chosen = quick_settings(**settings)
    publisher = Publisher(database, sink, chosen, map=map_)
    return await publisher.run(until_empty=True, max_wait=0.5)


async def test_the_broker_gets_what_the_map_makes(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write_many([event(f"c{n % 7}", n) for n in range(50)])
    sink = MemorySink()
    done = await drained(database, sink, flat)
    assert done == Relayed(read=50, delivered=50, deleted=50)
    assert sorted(json.loads(each.payload)["n"] for each in sink.messages) == [*range(50)]
    assert in_order(sink.messages)
    assert count(sql, "outbox") == 0


@pytest.mark.parametrize("events", [40, 700])
async def test_what_is_left_out_in_the_middle_of_a_hot_subject_is_counted_and_gone(
    database: Database, writer: Writer, sql: psycopg.Connection, events: int
) -> None:
    writer.write_many([event("hot", n) for n in range(events)])
    facts: list[Fact] = []
    sink = MemorySink()
    publisher = Publisher(
        database, sink, map=lambda m: None if number(m) % 3 else m, hooks=[facts.append]
    )
    done = await publisher.run(until_empty=True)
    kept = len(range(0, events, 3))
    assert done == Relayed(read=events, delivered=kept, skipped=events - kept, deleted=events)
    assert [number(each) for each in sink.messages] == [*range(0, events, 3)]
    progress = [each for each in facts if isinstance(each, RelayProgress)]
    assert sum(each.skipped for each in progress) == events - kept
    assert count(sql, "outbox") == 0


async def test_two_targets_have_a_contract_each(database: Database, writer: Writer) -> None:
    """A field is renamed: the new contract beside the old one."""
    async with Targets(database) as targets:
        await targets.add("cars_v2")
    writer.write_many([event(f"c{n % 5}", n) for n in range(60)])
    old, new = MemorySink(), MemorySink()
    settings = quick_settings()
    async with running(
        Publisher(database, old, settings, map=flat),
        Publisher(
            database,
            new,
            settings,
            map=lambda m: WireForm({"number": number(m)}, "application/vnd.cars.v2+json"),
            target="cars_v2",
        ),
    ):
        writer.write_many([event(f"c{n % 5}", n) for n in range(60, 100)])
        await old.published(100)
        await new.published(100)
    assert sorted(json.loads(each.payload)["n"] for each in old.messages) == [*range(100)]
    assert sorted(json.loads(each.payload)["number"] for each in new.messages) == [*range(100)]
    assert {each.content_type for each in new.messages} == {"application/vnd.cars.v2+json"}
    assert {each.key for each in new.messages} == {each.key for each in old.messages}
    assert in_order(new.messages)


@pytest.mark.parametrize("further", [1, 3])
async def test_targets_that_share_a_stream_lose_nothing_to_its_deduplication(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    nats_server: NatsServer,
    further: int,
) -> None:
    names = ["default", *(f"v{n}" for n in range(1, further + 1))]
    async with Targets(database) as targets:
        for name in names[1:]:
            await targets.add(name)
    events = [event(f"c{n % 3}", n) for n in range(17)]
    writer.write_many(events)
    sql.execute("CREATE TABLE kept AS SELECT * FROM outbox.outbox")
    sink = f"{nats_server.url}?stream=EVENTS"

    async def relayed(target: str) -> int:
        settings = quick_settings()
        publisher = Publisher(
            database, sink, settings, target=target, map=lambda m: {"to": target, "n": number(m)}
        )
        return (await publisher.run(until_empty=True)).delivered

    assert [await relayed(name) for name in names] == [17] * len(names)
    sql.execute("INSERT INTO outbox.outbox SELECT * FROM kept")
    assert [await relayed(name) for name in names] == [17] * len(names), "each is sent twice"
    async with Messages(database) as messages:
        await gathered(messages.replay(Selection(ids=(events[4].id,)), target=names[-1]))
    await relayed(names[-1])

    client: Any = await nats.connect(nats_server.url)  # pyright: ignore[reportUnknownMemberType]
    try:
        subscription = await client.jetstream().pull_subscribe(">", stream="EVENTS")
        found = await subscription.fetch(1_000, timeout=1)
    finally:
        await client.close()
    sent = Counter((body["to"], body["n"]) for body in (json.loads(each.data) for each in found))
    once = Counter((name, n) for name in names for n in range(17))
    assert sent == once + Counter({(names[-1], 4): 1})
    with Inbox(database, "billing") as inbox:
        ran = [inbox.once(from_nats(each), lambda _: None).ran for each in found]
    assert ran.count(True) == 17, "of all messages of an event, an inbox handles one"


async def test_an_error_is_recorded_told_and_mended_by_the_next_map(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    writer.write_many([event("bad", 1), event("bad", 2), *(event(f"c{n}", n) for n in range(20))])

    def broken(message: Message) -> object:
        if message.key == "Car/bad":
            raise ValueError(message.payload)
        return flat(message)

    facts: list[Fact] = []
    sink = MemorySink()
    publisher = Publisher(database, sink, quick_settings(), map=broken, hooks=[facts.append])
    with caplog.at_level(logging.DEBUG, "dsql_outbox"):
        await publisher.run(until_empty=True, max_wait=0.1)
    ended = [each for each in facts if isinstance(each, PublishEnded) and each.error]
    assert {(each.result, each.error, each.leads_to) for each in ended} == {
        ("retry", "the map raised ValueError", "retry")
    }
    ((error, attempts),) = sql.execute("SELECT last_error, attempts FROM outbox.outbox_failures")
    assert error.startswith(f"the map raised ValueError\n  {__file__}:")
    assert error.endswith("broken")
    assert attempts >= 1
    assert "failed (retry): the map raised ValueError" in caplog.text
    assert "entities" not in caplog.text
    assert len(sink.messages) == 20

    sql.execute("UPDATE outbox.outbox_failures SET retry_at = now()")
    await drained(database, sink, flat)
    assert [json.loads(each.payload)["n"] for each in sink.messages[20:]] == [1, 2]
    assert count(sql, "outbox_failures") == 0


async def test_a_refused_message_is_a_dead_letter_with_the_reason(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write_many([event("a", n) for n in range(4)])
    sink = MemorySink()
    done = await drained(
        database, sink, lambda m: Refuse("no such car") if number(m) == 2 else m.payload
    )
    assert (done.delivered, done.dead) == (3, 1)
    assert sql.execute("SELECT error FROM outbox.dead_letters").fetchall() == [
        ("the map refused it: no such car",)
    ]


async def test_after_a_broken_deploy_no_attempt_is_counted(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write_many([event(f"c{n}", n) for n in range(300)])
    writer.write_many([structs.replace(event(f"g{n}", n), topic="good") for n in range(20)])

    def broken(message: Message) -> object:
        return message if message.topic == "good" else {}["gone"]

    sink = MemorySink()
    publisher = Publisher(database, sink, quick_settings(), map=broken)
    async with publisher:
        await sink.published(20)
        await until(lambda: count(sql, "outbox") == 300)
    assert count(sql, "outbox_failures") == 0
    await drained(database, sink, flat)
    assert len(sink.messages) == 320


class Registry:
    """A map that asks a registry before it works."""

    def __init__(self, sql: psycopg.Connection, error: Exception | None = None) -> None:
        self._sql = sql
        self._error = error
        self.opened: list[tuple[bool, int]] = []

    def open(self) -> None:
        owned = self._sql.execute("SELECT FROM outbox.outbox_leases WHERE owner IS NOT NULL")
        in_main = threading.current_thread() is threading.main_thread()
        self.opened.append((in_main, len(owned.fetchall())))
        if self._error is not None:
            raise self._error

    def __call__(self, _message: Message) -> bytes:
        return b"7" if self.opened else b""


@pytest.mark.parametrize(("subjects", "rows"), [(60, 60), (2, 60)])
async def test_a_map_that_is_slow_cuts_the_calls_and_no_subject_out_of_its_order(
    database: Database, writer: Writer, subjects: int, rows: int
) -> None:
    """Else leases and health checks would wait for hundreds of messages."""
    writer.write_many([event(f"c{n % subjects}", n) for n in range(rows)])
    calls: list[int] = []

    class Counting(MemorySink):
        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            calls.append(len(messages))
            await super().publish(messages, answer)

    def slow(message: Message) -> Message:
        time.sleep(0.03)
        return message

    sink = Counting()
    done = await Publisher(database, sink, map=slow).run(until_empty=True)

    assert done == Relayed(read=rows, delivered=rows, deleted=rows)
    assert max(calls) <= 3, "each takes a twentieth of a second at most"
    assert in_order(sink.messages)


async def test_a_map_is_opened_once_in_a_thread_before_the_leases(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write_many([event(f"c{n}") for n in range(5)])
    sink, registry = MemorySink(), Registry(sql)
    await drained(database, sink, registry)
    assert registry.opened == [(False, 0)]
    assert {each.payload for each in sink.messages} == {b"7"}


async def test_a_map_that_cannot_be_opened_ends_the_start(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write(event("c"))
    with pytest.raises(ConnectionRefusedError):
        await drained(database, MemorySink(), Registry(sql, ConnectionRefusedError()))
    assert count(sql, "outbox") == 1
