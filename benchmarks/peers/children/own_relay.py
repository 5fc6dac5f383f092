"""The library's publisher, with metrics: ``own_relay URL beside``, ``apart``, ``polls``, ``rung``.

Apart, events are written by the bare statement, so that nothing in the process wakes the
publisher: it finds them as it finds those of other processes. The last two need a writer in
another process: one polls, with a third word for `idle_max`, and one hears its doorbell.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psycopg
from benchmarks.telemetry import metered
from benchmarks.writer.statement_parameters import single

from dsql_outbox import AsyncWriter, Database, Publisher, PublisherSettings
from dsql_outbox.observability.facts import Fact
from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer, Delivered
from dsql_outbox.schema.named_statements import statement

from .apart import receiving
from .loop import serve
from .relayed import CountingSink, RelayDuring, latency, ordered, relaying

_DELIVERED = Delivered()


class _Sink:
    """Acknowledges every message after `sink` has it, in their order: so it takes runs."""

    system = "null"
    keeps_prefix = True

    def __init__(self, sink: CountingSink) -> None:
        self._sink = sink

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        for index, message in enumerate(messages):
            self._sink.take(message.payload)
            answer(index, _DELIVERED)


async def beside(url: str) -> None:
    """Serve with an `AsyncWriter` in the process."""
    database = Database(url)
    running: list[Publisher] = []
    relay = _relay(database, running)

    def ring(fact: Fact) -> None:
        running[-1].doorbell(fact)

    async with AsyncWriter(database) as filler, AsyncWriter(database, hooks=[ring]) as writer:

        async def store(events: Sequence[bytes]) -> None:
            await filler.write_many(events)

        async def write(event: bytes) -> None:
            await writer.write(event)

        await serve(
            relay=relaying(store, relay),
            ordered=ordered(store, relay),
            latency=latency(write, relay),
        )


async def apart(url: str) -> None:
    """Serve with events that another process might have written."""
    one = statement("event_write_one", "outbox")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:

        async def write(event: bytes) -> None:
            await connection.execute(one, single(event), prepare=True)

        relay = _relay(Database(url), [])
        await serve(latency=latency(write, relay))


async def receive(url: str, *, idle_max: float | None = None, doorbell: bool = False) -> None:
    """Serve with events of a writer in another process."""
    settings = PublisherSettings(idle_max=idle_max, doorbell=doorbell)
    await serve(receive=receiving(_relay(Database(url), [], settings)))


def _relay(
    database: Database, running: list[Publisher], settings: PublisherSettings | None = None
) -> RelayDuring:
    @asynccontextmanager
    async def relay(sink: CountingSink) -> AsyncIterator[None]:
        with metered() as metrics:
            running.append(Publisher(database, _Sink(sink), settings, hooks=[metrics]))
            async with running[-1]:
                yield

    return relay


if __name__ == "__main__":
    logging.getLogger("dsql_outbox").setLevel(logging.ERROR)
    served: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
        "beside": beside,
        "apart": apart,
        "polls": partial(receive, idle_max=float(sys.argv[3]) if sys.argv[3:] else None),
        "rung": partial(receive, doorbell=True),
    }
    asyncio.run(served[sys.argv[2]](sys.argv[1]))
