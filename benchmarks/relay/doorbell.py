"""Writer and publisher in one process: from the commit to the broker's acknowledgement."""

import asyncio
from collections.abc import Sequence
from time import perf_counter
from uuid import UUID

import psycopg
from benchmarks.sample_event import event
from benchmarks.telemetry import metered

from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import Answer, Delivered, Outcome, Publisher, Sink, open_sink
from dsql_outbox.testing import EmbeddedPostgres, NatsServer
from dsql_outbox.writer import AsyncWriter

from .drain import SETTINGS
from .nats import PATIENCE, STREAM, part
from .rows import Rows, fill, new_database

_BLOCK = """
INSERT INTO outbox.outbox_failures (event_id, position, shard, attempts, last_error, retry_at)
SELECT event_id, position, shard, 10, 'no', 'infinity' FROM outbox.outbox ORDER BY position LIMIT 1
"""

_SWEEP = 5.0  # seconds until the publisher has read what waited at its start

Times = dict[UUID, float]
"""The time of an occurrence per event, in seconds of `perf_counter`."""


def held_p99(
    server: EmbeddedPostgres, broker: NatsServer, rows: int, a_second: int, seconds: float
) -> tuple[float, float]:
    """The p99 in seconds without and with `rows` rows behind a blocked one."""
    p99: list[float] = []
    for waiting in (0, rows):
        url = new_database(server, "held")
        if waiting:
            hold(url, waiting)
        delays = sorted(asyncio.run(_write_and_relay(url, broker.url, a_second, seconds)))
        p99.append(part(delays, 0.99))
    return p99[0], p99[1]


def hold(url: str, rows: int) -> None:
    """Insert rows of one subject, the first of which waits for an operator."""
    fill(url, Rows(rows, per_key=rows, together=True, name="HELD-"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_BLOCK)


class _Timed:
    """A sink that notes when each message was acknowledged."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.system = sink.system
        self.acknowledged = Times()

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        def note(index: int, outcome: Outcome) -> None:
            if isinstance(outcome, Delivered):
                self.acknowledged[messages[index].event_id] = perf_counter()
            answer(index, outcome)

        await self._sink.publish(messages, note)


async def _write_and_relay(url: str, broker: str, a_second: int, seconds: float) -> list[float]:
    async with open_sink(f"{broker}?{STREAM}") as opened:
        sink = _Timed(opened)
        with metered() as hook:
            publisher = Publisher(Database(url), sink, SETTINGS, hooks=[hook])
            return await _written(url, publisher, sink, a_second, seconds)


async def _written(
    url: str, publisher: Publisher, sink: _Timed, a_second: int, seconds: float
) -> list[float]:
    async with publisher, AsyncWriter(Database(url), hooks=[publisher.doorbell]) as writer:
        await asyncio.sleep(_SWEEP)
        committed = Times()
        began = perf_counter()
        for n in range(round(a_second * seconds)):
            await asyncio.sleep(max(0.0, began + n / a_second - perf_counter()))
            receipt = await writer.write(event(f"CAR-{n % 50}", n))
            committed[receipt.event_id] = perf_counter()
        async with asyncio.timeout(PATIENCE):
            while committed.keys() - sink.acknowledged.keys():  # noqa: ASYNC110 - a poll is enough
                await asyncio.sleep(0.05)
    # An event can be acknowledged before the writer gets the answer to its commit: that is 0.
    return [max(0.0, sink.acknowledged[each] - at) for each, at in committed.items()]
