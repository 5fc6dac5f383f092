"""A topic that is silent or slow takes its share, and what another topic has goes on."""

import math
from collections.abc import Sequence
from functools import partial

import anyio
import pytest
from tests.support.publisher.given_rows import row
from tests.support.publisher.virtual_relay import (
    Answering,
    MemoryOutbox,
    in_virtual_time,
    relay_until,
)

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import PublisherSettings
from dsql_outbox.publisher.outbox_rows import OutboxRow
from dsql_outbox.publisher.relay import sender
from dsql_outbox.publisher.relay.memory import queues
from dsql_outbox.publisher.relay.relay import Relay

ROWS, IN_FLIGHT = 2_000, 800
SETTINGS = PublisherSettings(batch_rows=50)
"""A tenth of the defaults, so that small numbers reach the limits."""


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MAX_ROWS", ROWS)
    monkeypatch.setattr(queues, "MAX_BYTES", 100 * ROWS)
    monkeypatch.setattr(sender, "MAX_IN_FLIGHT", IN_FLIGHT)


relay = partial(relay_until, settings=SETTINGS)


def rows_of(topic: str, first: int, number: int, subjects: int = 10_000) -> list[OutboxRow]:
    """Rows of as many subjects, one after the other."""
    return [
        row(
            f"{topic}-{n % subjects}",
            n,
            topic=topic,
            previous=n - subjects if n - subjects >= first else 0,
        )
        for n in range(first, first + number)
    ]


def seconds_for(healthy: int, *others: OutboxRow, slow: float) -> float:
    """The time in which so many healthy rows behind others are delivered."""
    store = MemoryOutbox()
    sink = Answering(lambda message: 0.005 if message.topic == "healthy" else slow)
    store.insert([*others, *rows_of("healthy", 1_000_000, healthy)])

    def done() -> bool:
        return sum(message.topic == "healthy" for message in sink.delivered) == healthy

    return in_virtual_time(relay(store, sink, done))


@pytest.mark.parametrize("slow", [math.inf, 60.0, 1.0])
@pytest.mark.parametrize("topics", [1, 2])
def test_healthy_rows_go_on_beside_topics_that_are_silent_or_slow(slow: float, topics: int) -> None:
    alone = seconds_for(5_000, slow=0)
    others = [each for n in range(topics) for each in rows_of(f"slow{n}", 1 + 5_000 * n, 2_000)]
    first = 0.1 * topics  # the others are read first, up to their shares
    assert seconds_for(5_000, *others, slow=slow) < alone / 0.8 + first


def test_a_new_row_leaves_at_once_beside_a_silent_topic() -> None:
    store = MemoryOutbox()
    sink = Answering(lambda message: math.inf if message.topic == "silent" else 0.005)
    store.insert(rows_of("silent", 1, 6_000))
    waits: list[float] = []

    async def write(_relay: Relay) -> None:
        await anyio.sleep(5)
        for number in range(20):
            began = anyio.current_time()
            position = round(began * 1e6)
            store.insert([row("new", position, topic="new")])
            while len(sink.delivered) <= number:  # noqa: ASYNC110 - the time is virtual
                await anyio.sleep(0.01)
            waits.append(anyio.current_time() - began)

    in_virtual_time(relay(store, sink, lambda: len(waits) == 20, beside=write))
    assert max(waits) < 1.2  # idle_max, since nothing wakes the relay


@pytest.mark.parametrize("subjects", [7, 40, 10_000])
def test_all_rows_of_topics_that_fill_the_memory_arrive_once_and_in_order(subjects: int) -> None:
    store = MemoryOutbox()
    sink = Answering(lambda message: 0.02 if message.topic == "a" else 0.3)
    written = [*rows_of("a", 1, 3_000, subjects), *rows_of("b", 10_001, 3_000, subjects)]
    store.insert(written)
    in_virtual_time(relay(store, sink, lambda: not store.rows))
    assert len(sink.delivered) == len(written)
    assert in_order(sink.delivered)


def in_order(messages: Sequence[Message]) -> bool:
    last: dict[str, int] = {}
    for message in messages:
        position = int(message.headers["position"])
        if last.get(message.key, 0) > position:
            return False
        last[message.key] = position
    return True


def test_the_memory_and_the_messages_on_their_way_are_shared() -> None:
    store = MemoryOutbox()
    sink = Answering(lambda _: math.inf)
    for n in range(4):
        store.insert(rows_of(f"silent{n}", 1 + 10_000 * n, 3_000))
    store.insert(rows_of("last", 100_000, 100))
    silent = [f"silent{n}" for n in range(4)]

    async def look(running: Relay) -> None:
        await anyio.sleep(10)
        uses = running._state.queues._uses
        assert sum(use.rows for use in uses.values()) < ROWS
        assert all(uses[topic].rows > ROWS / 20 for topic in silent)
        assert all(uses[topic].busy >= IN_FLIGHT / 20 for topic in silent)
        assert uses["last"].busy >= IN_FLIGHT / 20
        seen.append(1)

    seen: list[int] = []
    in_virtual_time(relay(store, sink, lambda: bool(seen), beside=look))
