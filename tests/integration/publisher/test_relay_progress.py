"""Nothing that cannot be sent hides what can, and nothing that is done is done again."""

from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Mapping,
    Sequence,
)

import anyio
import psycopg
import pytest
from tests.support.publisher.running_relays import event, running, until

from dsql_outbox.outbox import Database, Event, Message, SinkUnavailable
from dsql_outbox.publisher import (
    Answer,
    Delivered,
    NotAttempted,
    Outcome,
    Publisher,
    PublisherSettings,
    Retry,
)
from dsql_outbox.publisher.outbox_rows import RowId
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

Decide = Callable[[Sequence[Message]], Awaitable[list[Outcome]]]


@pytest.fixture
def shards() -> int:
    """One shard, so that every message is in the way of every other."""
    return 1


class Answering:
    """A sink that answers as a function says; keeps what was delivered."""

    system = "memory"

    def __init__(self, decide: Decide) -> None:
        self._decide = decide
        self.keys: list[str] = []

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        for index, outcome in enumerate(await self._decide(messages)):
            if outcome == Delivered():
                self.keys.append(messages[index].key)
            answer(index, outcome)

    def good(self) -> int:
        return sum(key.startswith("Car/good-") for key in self.keys)


def good(count: int) -> list[Event]:
    return [event(f"good-{n}") for n in range(count)]


async def test_rows_of_a_part_of_the_broker_that_is_away_hide_no_others(
    database: Database, writer: Writer
) -> None:
    async def decide(messages: Sequence[Message]) -> list[Outcome]:
        return [NotAttempted() if "bad-" in m.key else Delivered() for m in messages]

    writer.write_many([*(event(f"bad-{n}") for n in range(1_200)), *good(10)])
    sink = Answering(decide)
    async with running(Publisher(database, sink)):
        await until(lambda: sink.good() == 10)


async def test_a_long_queue_of_one_subject_lets_those_behind_it_pass(
    database: Database, writer: Writer
) -> None:
    async def decide(messages: Sequence[Message]) -> list[Outcome]:
        await anyio.sleep(0.005)
        return [Delivered() for _ in messages]

    writer.write_many([*(event("hot", n) for n in range(3_000)), *good(10)])
    sink = Answering(decide)
    async with running(Publisher(database, sink)):
        await until(lambda: sink.good() == 10)
    assert len(sink.keys) < 2_000


async def test_a_probe_is_not_always_the_message_that_no_part_of_the_broker_takes(
    database: Database, writer: Writer
) -> None:
    async def decide(messages: Sequence[Message]) -> list[Outcome]:
        outcomes = [NotAttempted() if "bad" in m.key else Delivered() for m in messages]
        if Delivered() not in outcomes:
            raise SinkUnavailable("nothing was delivered")
        return outcomes

    writer.write(event("bad"))
    sink = Answering(decide)
    quick = PublisherSettings(breaker_failures=2, breaker_open=0.05)
    async with running(publisher := Publisher(database, sink, quick)):
        await until(lambda: publisher._breaker.state(float("inf")) == "half_open")
        writer.write_many(good(10))
        await until(lambda: sink.good() == 10)


async def test_what_died_while_the_next_rows_were_read_is_not_sent_once_more(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    attempts: list[int] = []

    async def decide(messages: Sequence[Message]) -> list[Outcome]:
        await anyio.sleep(0.02)
        attempts.extend(m.attempt for m in messages if "dead" in m.key)
        return [Retry("no") if "dead" in m.key else Delivered() for m in messages]

    writer.write_many([event("dead"), *good(2_000)])
    sink = Answering(decide)
    quick = PublisherSettings(
        batch_rows=50, attempts=3, backoff_base=0.05, backoff_cap=0.05, head_interval=0.001
    )
    async with running(Publisher(database, sink, quick)):
        await until(lambda: sink.good() == 2_000)
    assert attempts == [1, 2, 3]
    assert sql.execute("SELECT count(*) FROM outbox.dead_letters").fetchone() == (1,)


async def test_what_was_acknowledged_is_deleted_before_another_may_send_it(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def decide(messages: Sequence[Message]) -> list[Outcome]:
        await anyio.sleep(0.03)
        return [Delivered() for _ in messages]

    writer.write_many(good(3_000))
    sink = Answering(decide)
    publisher = Publisher(database, sink, PublisherSettings(batch_rows=200))
    delete, release = publisher._store.delete, publisher._leases._table.release
    left: list[int] = []

    async def slow(rows: Collection[RowId]) -> None:
        await anyio.sleep(0.1)
        await delete(rows)

    async def noted(owner: str, epochs: Mapping[int, int]) -> set[int]:
        left.append(len(sql.execute("SELECT FROM outbox.outbox").fetchall()))
        return await release(owner, epochs)

    async with running(publisher):
        await until(lambda: len(sink.keys) >= 800)
        monkeypatch.setattr(publisher._store, "delete", slow)
        monkeypatch.setattr(publisher._leases._table, "release", noted)
    assert left == [3_000 - len(sink.keys)]
