"""A topic that is silent or slow takes its share, and what another topic has goes on."""

import asyncio
import math
from collections.abc import Sequence
from functools import cache, partial

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
from dsql_outbox.publisher.relay import sender
from dsql_outbox.publisher.relay.memory import shares
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.outbox_rows import OutboxRow

ROWS, IN_FLIGHT = 2_000, 800
HEALTHY = 2_000
SETTINGS = TunedSettings(batch_rows=50)
"""A tenth of the defaults, so that small numbers reach the limits."""


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "MAX_ROWS", ROWS)
    monkeypatch.setattr(shares, "MAX_BYTES", 100 * ROWS)
    monkeypatch.setattr(sender, "MAX_IN_FLIGHT", IN_FLIGHT)


relay = partial(relay_until, settings=SETTINGS)
later = partial(in_virtual_time, now=100.0)  # the rows are old, and not in the tail


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


def seconds(message: Message) -> float:
    """From 1 to 4 seconds, by the message's position."""
    return 1 + int(message.headers["position"]) % 7 / 2


@cache
def seconds_alone(healthy: int) -> float:
    """The time in which so many healthy rows are delivered if there are no others."""
    return seconds_for(healthy, slow=0)


def seconds_for(healthy: int, *others: OutboxRow, slow: float) -> float:
    """The time in which so many healthy rows behind others are delivered."""
    store = MemoryOutbox()
    sink = Answering(lambda message: 0.005 if message.topic == "healthy" else slow)
    store.insert([*others, *rows_of("healthy", 1_000_000, healthy)])

    def done() -> bool:
        return sum(message.topic == "healthy" for message in sink.delivered) == healthy

    return later(relay(store, sink, done))


@pytest.mark.parametrize("slow", [math.inf, 1.0])
@pytest.mark.parametrize("topics", [1, 2])
def test_healthy_rows_go_on_beside_topics_that_are_silent_or_slow(slow: float, topics: int) -> None:
    alone = seconds_alone(HEALTHY)
    others = [each for n in range(topics) for each in rows_of(f"slow{n}", 1 + 5_000 * n, ROWS)]
    first = 0.1 * topics  # the others are read first, up to their shares
    assert seconds_for(HEALTHY, *others, slow=slow) < alone / 0.8 + first


@pytest.mark.parametrize(
    ("topics", "each", "slow"),
    [
        (12, 1_000, math.inf),
        pytest.param(100, 90, math.inf, marks=pytest.mark.slow),
        (40, 150, 4.0),
    ],
)
def test_healthy_rows_go_on_beside_dozens_of_topics(topics: int, each: int, slow: float) -> None:
    alone = seconds_alone(HEALTHY)
    others = [row for n in range(topics) for row in rows_of(f"slow{n}", 1 + each * n, each)]
    first = 0.03 * topics  # the others are read first, up to their shares
    assert seconds_for(HEALTHY, *others, slow=slow) < alone / 0.8 + first


def test_healthy_rows_go_on_beside_topics_that_worked_and_fell_silent() -> None:
    topics = 6
    store = MemoryOutbox()
    starts = asyncio.Event()

    def answers(message: Message) -> float:
        return 0.005 if message.topic == "healthy" or not starts.is_set() else math.inf

    sink = Answering(answers)
    store.insert([row for n in range(topics) for row in rows_of(f"slow{n}", 1 + 2_000 * n, 1_000)])
    took: list[float] = []

    async def write(_relay: Relay) -> None:
        while len(sink.delivered) < 100 * topics:  # noqa: ASYNC110 - the time is virtual
            await anyio.sleep(0.01)
        starts.set()
        await anyio.sleep(2)
        began = anyio.current_time()
        store.insert(rows_of("healthy", round(began * 1e6), 2_000))
        while sum(each.topic == "healthy" for each in sink.delivered) < 2_000:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        took.append(anyio.current_time() - began)

    later(relay(store, sink, lambda: bool(took), beside=write))
    assert took[0] < seconds_alone(2_000) / 0.8 + 1.2  # idle_max, since nothing wakes the relay


@pytest.mark.parametrize("topics", [pytest.param(1, marks=pytest.mark.slow), 12, 40])
def test_a_new_row_leaves_at_once_beside_silent_topics(topics: int) -> None:
    store = MemoryOutbox()
    sink = Answering(lambda message: 0.005 if message.topic == "new" else math.inf)
    for n in range(topics):
        store.insert(rows_of(f"silent{n}", 1 + 10_000 * n, 6_000 // topics))
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

    later(relay(store, sink, lambda: len(waits) == 20, beside=write))
    assert max(waits) < 1.2  # idle_max, since nothing wakes the relay


@pytest.mark.parametrize("subjects", [7, 40, 10_000])
def test_all_rows_of_topics_that_fill_the_memory_arrive_once_and_in_order(subjects: int) -> None:
    store = MemoryOutbox()
    sink = Answering(lambda message: 0.02 if message.topic == "a" else 0.3)
    written = [*rows_of("a", 1, 1_200, subjects), *rows_of("b", 10_001, 1_200, subjects)]
    store.insert(written)
    later(relay(store, sink, lambda: not store.rows))
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


def test_topics_that_want_more_than_there_is_get_equal_parts_and_silent_ones_little() -> None:
    topics = 5
    store = MemoryOutbox()
    sink = Answering(lambda message: math.inf if message.topic == "silent" else seconds(message))
    store.insert(rows_of("silent", 1, 1_000))
    for n in range(topics):
        store.insert(rows_of(f"slow{n}", 10_000 * (n + 1), 3_000))
    seen: list[dict[str, tuple[int, int]]] = []

    async def look(running: Relay) -> None:
        await anyio.sleep(15)
        uses = running._state.rows.shares.uses
        seen.append({topic: (use.rows, use.busy) for topic, use in uses.items()})

    later(relay(store, sink, lambda: bool(seen), beside=look))
    (uses,) = seen
    assert sum(rows for rows, _ in uses.values()) <= ROWS
    rows, busy = uses.pop("silent")
    assert rows <= ROWS / 16
    assert busy <= IN_FLIGHT / 64
    assert len(uses) == topics
    for rows, busy in uses.values():
        assert ROWS / (topics + 2) / 3 < rows <= ROWS / topics + SETTINGS.batch_rows
        assert IN_FLIGHT / (topics + 2) / 3 < busy <= IN_FLIGHT / topics + 1
