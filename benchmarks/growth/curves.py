"""How costs grow: one measurement per point of a curve."""

import asyncio
import json
from collections.abc import Callable, Sequence
from time import perf_counter, sleep
from typing import NamedTuple

import psycopg
from benchmarks.goals.distance import delayed
from benchmarks.relay.drain import drain_by_relay
from benchmarks.relay.rows import NullSink, Rows, arrive, fill, new_database
from benchmarks.sample_event import EVENT_BYTES, event, sample_events

from dsql_outbox import AsyncWriter, Database, Publisher, WriterSettings
from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer
from dsql_outbox.testing import EmbeddedPostgres

from .publisher_process import publishers

TAKEN = 8_000
"""Rows that are relayed at most while the backlog is measured."""

LIVE = 30_000
"""Rows that publishers share."""

BATCH = 100
Measure = Callable[[EmbeddedPostgres, float], dict[str, float]]


class Curve(NamedTuple):
    """A curve: its points, and what is measured at one of them, per name of a series."""

    name: str
    title: str
    across: str
    up: str
    points: Sequence[float]
    measure: Measure


def backlog(server: EmbeddedPostgres, rows: float) -> dict[str, float]:
    """Microseconds per relayed row while so many wait, of the `TAKEN` oldest at most."""
    url = _kept_backlog(server, int(rows))
    sink = _LimitedSink(min(int(rows), TAKEN))
    asyncio.run(_relay_some(url, sink))
    return {"relay": (sink.last - sink.first) / (sink.taken - sink.first_taken) * 1e6}


def entities(server: EmbeddedPostgres, number: float) -> dict[str, float]:
    """Microseconds per event with so many entities."""
    events = [wide_event(n, int(number)) for n in range(1_000)]
    return _of_writer(server, events[:200], events[200:])


def batches(server: EmbeddedPostgres, size: float) -> dict[str, float]:
    """Microseconds per event in batches of this size."""
    url = new_database(server, "growth_batches")
    events = sample_events(0, 200 if size == 1 else 4_000)
    return {"write_many": asyncio.run(_written(url, events, int(size))) / len(events) * 1e6}


def relayed_by(server: EmbeddedPostgres, number: float) -> dict[str, float]:
    """Rows per second that so many publishers deliver together, on this machine's cores."""
    url = new_database(server, "growth_publishers")
    with publishers(url, int(number), 500), psycopg.connect(url, autocommit=True) as connection:
        arrive(connection, Rows(LIVE))
        began = perf_counter()
        while connection.execute("SELECT FROM outbox.outbox LIMIT 1").fetchone() is not None:
            sleep(0.01)
        return {"publishers": LIVE / (perf_counter() - began)}


def distance(server: EmbeddedPostgres, delay: float) -> dict[str, float]:
    """Milliseconds per call at this distance, each way, and per batch of 500 relayed rows."""
    url = new_database(server, "growth_distance")
    with delayed(url, delay) as far:
        alone = asyncio.run(_written(far, sample_events(0, 100), 1)) / 100
        many = asyncio.run(_written(far, sample_events(100, 3_000), BATCH)) / 30
        fill(url, Rows(10_000))
        began = perf_counter()
        asyncio.run(drain_by_relay(far))
        relay = (perf_counter() - began) / 20
    return {
        "write": alone * 1000,
        f"write_many of {BATCH}": many * 1000,
        "500 rows relayed": relay * 1000,
    }


CURVES = (
    Curve(
        "backlog", "A relayed row beside a backlog", "rows that wait", "us per row",
        (1_000, 10_000, 100_000, 1_000_000), backlog,
    ),
    Curve(
        "entities", "An event with several entities", "entities per event", "us per event",
        (1, 2, 4, 8, 16), entities,
    ),
    Curve(
        "batch", "An event of a batch", "events per batch", "us per event",
        (1, 10, 100, 500), batches,
    ),
    Curve(
        "publishers", "Publishers that share the shards", "publishers", "rows per second",
        (1, 2, 4, 8), relayed_by,
    ),
    Curve(
        "distance", "The distance of the database", "ms each way", "ms",
        (0, 1, 2, 3, 4, 5), distance,
    ),
)  # fmt: skip


def wide_event(n: int, number: int) -> bytes:
    """An event of `EVENT_BYTES` bytes with one entity, and of more with several."""
    found = json.loads(event(f"CAR-{n}", n))
    (first,) = found["entities"]
    found["entities"] = [
        {**first, "entityHeader": {"entityType": "Car", "entityId": f"CAR-{n}-{part}"}}
        for part in range(number)
    ]
    for each in found["entities"][1:]:
        each["note"] = each["note"][: EVENT_BYTES // 10]
    return json.dumps(found, separators=(",", ":")).encode()


def _of_writer(
    server: EmbeddedPostgres, alone: Sequence[bytes], together: Sequence[bytes]
) -> dict[str, float]:
    url = new_database(server, "growth_writer")
    return {
        "write": asyncio.run(_written(url, alone, 1)) / len(alone) * 1e6,
        f"write_many of {BATCH}": asyncio.run(_written(url, together, BATCH)) / len(together) * 1e6,
    }


async def _written(url: str, events: Sequence[bytes], size: int) -> float:
    """The seconds of a writer on one connection, after the first statements are prepared."""
    warm = sample_events(500_000, 20 * size)
    async with AsyncWriter(Database(url), WriterSettings(max_connections=1)) as writer:
        await _write_all(writer, warm[: max(size, 20)] if size > 1 else warm, size)
        began = perf_counter()
        await _write_all(writer, events, size)
        return perf_counter() - began


async def _write_all(writer: AsyncWriter, events: Sequence[bytes], size: int) -> None:
    if size == 1:
        for each in events:
            await writer.write(each)
        return
    for start in range(0, len(events), size):
        await writer.write_many(events[start : start + size])


class _LimitedSink(NullSink):
    """A null sink that notes the time of its first and its last batch, and then calls `then`."""

    def __init__(self, most: int) -> None:
        self.taken = self.first_taken = 0
        self.first = self.last = 0.0
        self.then: Callable[[], None] = lambda: None
        self._most = most

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        await super().publish(messages, answer)
        if self.taken >= self._most:
            return
        self.taken += len(messages)
        self.last = perf_counter()
        if not self.first:
            self.first, self.first_taken = self.last, self.taken
        if self.taken >= self._most:
            self.then()


async def _relay_some(url: str, sink: _LimitedSink) -> None:
    publisher = Publisher(Database(url), sink)
    sink.then = publisher.stop
    await publisher.run(until_empty=True)


_backlogs: dict[int, str] = {}


def _kept_backlog(server: EmbeddedPostgres, rows: int) -> str:
    """The URL of a database in which so many rows wait; it is filled up again each time."""
    if rows not in _backlogs:
        _backlogs[rows] = new_database(server, f"growth_backlog_{rows}")
    url = _backlogs[rows]
    with psycopg.connect(url, autocommit=True) as connection:
        ((left,),) = connection.execute("SELECT count(*) FROM outbox.outbox").fetchall()
    if left < rows:
        fill(url, Rows(rows - left, name=f"CAR-{left}-"))
    return url
