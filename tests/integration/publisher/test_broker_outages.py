"""A broker that fails, wholly or in part: no attempt is burnt, and nothing is asked in a hurry."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import anyio
import psycopg
import pytest
from tests.support.publisher.running_relays import count, event, quick_settings, relayed, until
from tests.support.writer.refused_topics import writer_of_any_topic

from dsql_outbox.observability.facts import Fact, RelayProgress, WriteEnded
from dsql_outbox.operations import Health, StatusReader
from dsql_outbox.outbox import Database, Entity, Event, Message
from dsql_outbox.publisher import Answer, Publisher, Retry, Unavailable
from dsql_outbox.publisher.relay.memory import breaker
from dsql_outbox.publisher.relay.memory.topics import TopicPauses
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = [pytest.mark.anyio, pytest.mark.client]

SHARDS = 4


class FlakySink(MemorySink):
    """Cannot be reached at first; counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.down = True
        self.asked: list[int] = []

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        self.asked.append(len(messages))
        await super().publish(messages, answer)


async def test_an_outage_of_the_broker_burns_no_attempt_and_ends_with_one_probe(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FAILURES", 3)
    monkeypatch.setattr(breaker, "OPEN_FOR", 0.5)
    writer.write_many([event(f"car-{n}", n) for n in range(30)])
    sink = FlakySink()
    available: list[bool] = []
    quick = quick_settings(attempts=2)

    def watch(fact: Fact, /) -> None:
        if isinstance(fact, RelayProgress):
            available.append(fact.sink_available)

    async with Publisher(database, sink, quick, hooks=[watch]) as publisher:
        await until(lambda: len(sink.asked) >= 4)
        publisher.doorbell(WriteEnded(UUID(int=1), "committed", 1, 0))
        await until(lambda: available[-1:] == [False])
        await until(lambda: len(sink.asked) >= 6)
        assert sql.execute("SELECT count(*) FROM outbox.outbox_failures").fetchone() == (0,)
        sink.down = False
        await until(lambda: len(sink.messages) == 30)
    assert available[-1]
    assert sink.asked[0] == 30
    assert set(sink.asked[1:6]) == {1}, "one message is the probe"
    assert sql.execute("SELECT count(*) FROM outbox.dead_letters").fetchone() == (0,)
    assert [m.attempt for m in sink.messages] == [1] * 30


async def test_what_a_broker_leaves_unsent_is_not_asked_for_without_a_pause(
    database: Database, writer: Writer
) -> None:
    class Idle(MemorySink):
        asked = 0

        async def publish(self, _messages: Sequence[Message], _answer: Answer, /) -> None:
            self.asked += 1

    writer.write(event("car"))
    sink = Idle()
    began = anyio.current_time()
    async with Publisher(database, sink, quick_settings()):
        await until(lambda: sink.asked >= 4)
    assert anyio.current_time() - began >= 0.3, "a tenth of a second between two calls"


async def test_a_sink_whose_own_task_was_cancelled_is_an_outage_of_its_broker(
    database: Database, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the pool of its client is closed: nobody has asked the publisher to end."""

    class Cancelled(MemorySink):
        times = 2

        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            if self.times:
                self.times -= 1
                inner = asyncio.create_task(anyio.sleep(60))
                inner.cancel()
                await inner
            await super().publish(messages, answer)

    writer.write_many([event(f"car-{n}", n) for n in range(3)])
    sink = Cancelled()
    with anyio.fail_after(30):
        done = await Publisher(database, sink, quick_settings()).run(until_empty=True)
    assert (done.delivered, done.failed, sink.times) == (3, 0, 0)
    assert "awaited something that was cancelled" in caplog.text


async def test_a_failure_goes_on_with_the_new_owner(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    bad = event("car")
    writer.write(bad)
    sink = MemorySink()
    sink.fail(bad.id, Retry("no"), Retry("no"))
    for _ in range(2):
        await relayed(database, sink, backoff_base=300.0)
        sql.execute("UPDATE outbox.outbox_failures SET retry_at = now()")
    found = sql.execute("SELECT event_id, attempts FROM outbox.outbox_failures").fetchall()
    assert found == [(bad.id, 2)]


async def test_a_topic_that_takes_nothing_is_tried_with_one_message_and_hides_no_other(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TopicPauses, "PAUSE", 0.1)

    class Missing(MemorySink):
        """A broker that lacks the stream of one topic."""

        asked = 0
        is_missing = True

        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            refused = [n for n, m in enumerate(messages) if m.topic == "bad" and self.is_missing]
            self.asked += len(refused)
            for index in refused:
                answer(index, Unavailable("no stream takes it"))
            rest = [n for n in range(len(messages)) if n not in refused]
            await super().publish([messages[n] for n in rest], lambda n, o: answer(rest[n], o))

    writer.write_many([event(f"bad-{n}", n) for n in range(30)])
    sql.execute("UPDATE outbox.outbox SET topic = 'bad'")
    writer.write_many([event(f"good-{n}", n) for n in range(30)])
    sink = Missing()
    async with Publisher(database, sink, quick_settings(attempts=1)):
        await sink.published(30)
        assert {message.topic for message in sink.messages} == {"events.CarCreated"}
        first = sink.asked
        await until(lambda: sink.asked >= first + 3)
        sink.is_missing = False
        await sink.published(60)
    assert count(sql, "outbox") == count(sql, "outbox_failures") == count(sql, "dead_letters") == 0
    assert {message.attempt for message in sink.messages} == {1}


async def test_topics_that_nobody_takes_lengthen_no_row_no_answer_and_no_status(
    database: Database,
    sql: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topics = [f"{'bad.' * 30}{n}" for n in range(700)]
    with writer_of_any_topic(database) as writer:
        writer.write_many(
            [Event.new("CarCreated", [Entity("Car", topic)], topic=topic) for topic in topics]
        )
    health, refused = Health(), set[str]()
    health.database = health.broker = "ok"

    class Stream(MemorySink):
        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            for index, message in enumerate(messages):
                refused.add(message.topic)
                answer(index, Unavailable("no stream takes it"))

    def row() -> str:
        ((paused,),) = sql.execute("SELECT paused FROM outbox.outbox_publishers").fetchall()
        return str(paused)

    monkeypatch.setattr(TopicPauses, "PAUSE", 60.0)
    quick = quick_settings(lease=1.0)
    async with Publisher(database, Stream(), quick, hooks=[health]):
        await until(lambda: len(refused) == len(topics))
        await until(lambda: row().endswith(",650]"))
        await until(lambda: health.ready().paused_more == 650)
        async with StatusReader(database) as reader:
            (seen,) = (await reader.read()).publishers
        assert [t.topic for t in seen.paused] == health.ready().paused == sorted(topics)[:50]
        assert {t.by for t in seen.paused} == {"broker"}
        assert seen.paused_more == 650
        assert len(row()) < 50 * (len(topics[-1]) + 60)
    lines = [r.getMessage() for r in caplog.records if "takes no messages" in r.getMessage()]
    assert len(lines) == 10
