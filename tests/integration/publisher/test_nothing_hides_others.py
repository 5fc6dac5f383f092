"""Nothing that cannot be sent hides what can, however much of it there is."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import anyio
import pytest
from msgspec import structs
from tests.support.publisher.running_relays import event, in_order, quick_settings, until

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
from dsql_outbox.publisher.relay import sender
from dsql_outbox.publisher.relay.memory import breaker, shares
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = [pytest.mark.anyio, pytest.mark.client]

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
        self.calls = 0
        self.keys: list[str] = []

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        self.calls += 1
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
    async with Publisher(database, sink):
        await until(lambda: sink.good() == 10)


async def test_rows_that_fill_the_memory_hide_no_others(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def decide(messages: Sequence[Message]) -> list[Outcome]:
        return [NotAttempted() if "bad-" in m.key else Delivered() for m in messages]

    monkeypatch.setattr(shares, "MAX_ROWS", 1_000)
    writer.write_many([*(event(f"bad-{n}") for n in range(1_200)), *good(10)])
    sink = Answering(decide)
    async with Publisher(database, sink):
        await until(lambda: sink.good() == 10)


class SilentTopics:
    """A sink that answers for messages of topic ``t`` only."""

    system = "memory"

    def __init__(self) -> None:
        self.good: list[str] = []

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        for index, message in enumerate(messages):
            if message.topic == "t":
                self.good.append(message.key)
                answer(index, Delivered())
        if any(message.topic != "t" for message in messages):
            await anyio.sleep_forever()


async def test_rows_of_dozens_of_silent_topics_hide_no_others(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "MAX_ROWS", 500)
    monkeypatch.setattr(sender, "MAX_IN_FLIGHT", 200)
    silent = [structs.replace(event(f"bad-{n}"), topic=f"silent.{n // 30}") for n in range(40 * 30)]
    writer.write_many(silent)
    writer.write_many([structs.replace(each, topic="t") for each in good(500)])
    sink = SilentTopics()
    async with Publisher(database, sink, PublisherSettings(drain=0.1)):
        await until(lambda: len(sink.good) == 500)
        writer.write(structs.replace(event("good-new"), topic="t"))
        await until(lambda: len(sink.good) == 501)


async def test_a_long_queue_of_one_subject_lets_those_behind_it_pass(
    database: Database, writer: Writer
) -> None:
    async def decide(messages: Sequence[Message]) -> list[Outcome]:
        await anyio.sleep(0.005)
        return [Delivered() for _ in messages]

    writer.write_many([*(event("hot", n) for n in range(3_000)), *good(10)])
    sink = Answering(decide)
    async with Publisher(database, sink):
        await until(lambda: sink.good() == 10)
    assert len(sink.keys) < 2_000


async def test_a_probe_is_not_always_the_message_that_no_part_of_the_broker_takes(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def decide(messages: Sequence[Message]) -> list[Outcome]:
        outcomes = [NotAttempted() if "bad" in m.key else Delivered() for m in messages]
        if Delivered() not in outcomes:
            raise SinkUnavailable("nothing was delivered")
        return outcomes

    writer.write(event("bad"))
    sink = Answering(decide)
    monkeypatch.setattr(breaker, "FAILURES", 1)
    monkeypatch.setattr(breaker, "OPEN_FOR", 0.05)
    async with Publisher(database, sink):
        await until(lambda: sink.calls >= 3)
        writer.write_many(good(10))
        await until(lambda: sink.good() == 10)


async def test_an_event_of_another_subject_passes_a_hot_one(
    database: Database, writer: Writer
) -> None:
    async def decide(messages: Sequence[Message]) -> list[Outcome]:
        await anyio.sleep(0.02)
        return [Delivered() for _ in messages]

    writer.write_many([event("hot", n) for n in range(200)])
    sink = Answering(decide)
    async with Publisher(database, sink, quick_settings()):
        await until(lambda: len(sink.keys) > 3)
        before = len(sink.keys)
        await asyncio.to_thread(writer.write, event("good-1"))
        await until(lambda: sink.good() == 1)
        assert len(sink.keys) - before < 10
        await until(lambda: len(sink.keys) == 201)


async def test_a_poison_message_delays_its_own_subject_only(
    database: Database, writer: Writer
) -> None:
    poison = event("bad")
    rest = [event(f"car-{n % 50}", n) for n in range(1_000)]
    writer.write_many([poison, event("bad", 1), *rest])
    sink = MemorySink()
    sink.fail(poison.id, *[Retry("no")] * 100)
    async with Publisher(database, sink, quick_settings(backoff_base=30.0, batch_rows=100)):
        await sink.published(1_000, timeout=20.0)
    assert in_order(sink.messages)
    assert not any(message.key == "Car/bad" for message in sink.messages)


@pytest.mark.parametrize("refusals", [10, 43])
async def test_a_message_that_is_refused_for_long_still_arrives_before_its_successors(
    database: Database, writer: Writer, refusals: int
) -> None:
    """With the default number of attempts; the waits between them are short here."""
    left, order = refusals, list[str]()

    async def decide(messages: Sequence[Message]) -> list[Outcome]:
        nonlocal left
        if left:
            left -= 1
            return [Retry("not now")] * len(messages)
        order.extend(message.dedupe_id for message in messages)
        return [Delivered()] * len(messages)

    receipts = [writer.write(event("one")) for _ in range(3)]
    settings = PublisherSettings(backoff_base=0.001, backoff_cap=0.002)
    async with Publisher(database, Answering(decide), settings):
        await until(lambda: len(order) == len(receipts))
    assert order == [str(receipt.event_id) for receipt in receipts]
