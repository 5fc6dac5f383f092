"""A publisher whose sink has not been open yet takes no shards, and says that it waits."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import anyio
import psycopg
import pytest
from tests.support.publisher.running_relays import event, running, until

from dsql_outbox.observability.facts import Fact, RelayProgress
from dsql_outbox.operations import Health, StatusReader
from dsql_outbox.operations.status import Seen
from dsql_outbox.outbox import Database, Message, SinkUnavailable
from dsql_outbox.publisher import Answer, Publisher, PublisherSettings, Sink
from dsql_outbox.publisher.publisher import UntilEmpty
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = [pytest.mark.anyio, pytest.mark.client]


class Broker:
    """Opens sinks that deliver to `memory`, unless it is `away`; counts the attempts."""

    def __init__(self) -> None:
        self.memory = MemorySink()
        self.away = True
        self.attempts = 0

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Sink]:
        self.attempts += 1
        if self.away:
            raise SinkUnavailable("nobody is at nats://127.0.0.1:5999")
        yield self

    system = "test"

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        if self.away:
            raise SinkUnavailable("lost")
        await self.memory.publish(messages, answer)


def quick(**others: object) -> PublisherSettings:
    return PublisherSettings(**({"lease": 1.0, "idle_max": 0.05} | others))  # type: ignore[arg-type]


def owned(sql: psycopg.Connection) -> list[int]:
    """How many shards each publisher owns."""
    found = sql.execute(
        "SELECT count(*) FROM outbox.outbox_leases WHERE owner IS NOT NULL GROUP BY owner"
    ).fetchall()
    return sorted(number for (number,) in found)


async def publishers(database: Database) -> Sequence[Seen]:
    async with StatusReader(database) as reader:
        return (await reader.read()).publishers


async def beats(sql: psycopg.Connection, number: int) -> None:
    """Wait until the publisher that waits for its broker has announced that so many times."""
    seen = set[object]()

    def enough() -> bool:
        seen.update(
            sql.execute(
                "SELECT seen_at FROM outbox.outbox_publishers WHERE waiting_since IS NOT NULL"
            ).fetchall()
        )
        return len(seen) > number

    await until(enough)


async def test_a_publisher_that_has_never_reached_its_broker_takes_no_shard_from_others(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    healthy, broker = MemorySink(), Broker()
    first, second = Publisher(database, healthy, quick()), Publisher(database, broker.open, quick())
    async with running(first):
        await until(lambda: owned(sql) == [4])
        async with running(second):
            await beats(sql, 8)
            assert owned(sql) == [4], "the typo in a URL stops nothing"
            writer.write_many([event(f"car-{n}") for n in range(20)])
            await until(lambda: len(healthy.messages) == 20)
            waiting = {seen.owner: seen.waiting_seconds for seen in await publishers(database)}
            assert sorted(waiting.values(), key=str) == [pytest.approx(2, abs=60), None]
            broker.away = False
            await until(lambda: owned(sql) == [2, 2])
            assert [seen.relays for seen in await publishers(database)] == [True, True]
        await until(lambda: owned(sql) == [4])
    assert await publishers(database) == ()


async def test_a_publisher_whose_broker_fails_later_is_listed_as_waiting_too(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    broker = Broker()
    broker.away = False
    async with Publisher(database, broker.open, quick()):
        assert [seen.waiting_seconds for seen in await publishers(database)] == [None]
        broker.away = True
        writer.write(event("car"))
        await beats(sql, 2)
        (first,) = await publishers(database)
        await beats(sql, 1)
        (later,) = await publishers(database)
        broker.away = False
        await broker.memory.published(1)
    assert first.alive
    assert not first.relays
    assert (first.waiting_seconds or 0.0) < (later.waiting_seconds or 0.0), "since the first"


@pytest.mark.parametrize("until_empty", [True, "own"])
async def test_a_run_until_empty_waits_for_a_broker_that_comes_late(
    database: Database, writer: Writer, until_empty: UntilEmpty
) -> None:
    broker = Broker()
    writer.write(event("car"))
    async with anyio.create_task_group() as tasks:

        async def come() -> None:
            await until(lambda: broker.attempts >= 3)
            broker.away = False

        tasks.start_soon(come)
        publisher = Publisher(database, broker.open, quick())
        relayed = await publisher.run(until_empty=until_empty, max_wait=60)
    assert relayed.delivered == len(broker.memory.messages) == 1


async def test_a_run_until_empty_gives_a_broker_up_that_never_comes(
    database: Database, writer: Writer
) -> None:
    broker = Broker()
    writer.write(event("car"))
    with anyio.fail_after(60):
        relayed = await Publisher(database, broker.open, quick()).run(
            until_empty="own", max_wait=0.3
        )
    assert relayed.delivered == 0
    assert broker.attempts >= 2


async def test_a_publisher_that_waits_for_its_broker_is_not_ready(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    broker, health, told = Broker(), Health(), list[bool]()
    health.database = health.broker = "ok"

    def hear(fact: Fact, /) -> None:
        health(fact)
        if isinstance(fact, RelayProgress):
            told.append(fact.sink_available)

    async with Publisher(database, broker.open, quick(), hooks=[hear]):
        await until(lambda: told != [])
        assert not health.ready().ready
        assert health.ready().broker == "cannot be reached"
        await until(lambda: broker.attempts >= 3)
        broker.away = False
        await until(lambda: health.ready().ready)
    assert told[0] is False
    assert "Cannot open the sink, the next attempt is in 0.1 s: nobody is at" in caplog.text
    assert "opens its sink again" not in caplog.text


async def test_a_publisher_that_is_stopped_during_an_attempt_has_not_reached_its_broker(
    database: Database,
) -> None:
    """It says so at its end, and takes no shard."""
    facts: list[Fact] = []

    class Hanging(Broker):
        @asynccontextmanager
        async def open(self) -> AsyncGenerator[Sink]:
            if self.attempts:
                publisher.stop()
                await anyio.sleep_forever()
            async with super().open() as sink:
                yield sink

    publisher = Publisher(database, Hanging().open, quick(), hooks=[facts.append])
    with anyio.fail_after(30):
        await publisher.run()
    (*_, last) = [fact for fact in facts if isinstance(fact, RelayProgress)]
    assert not last.sink_available
