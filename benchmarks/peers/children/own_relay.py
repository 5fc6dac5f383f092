"""The library's publisher, with metrics: ``own_relay URL stored``, ``polls`` and ``rung``.

The last two need a writer in another process: one polls, with a third word for `idle_max`, and
one hears its doorbell.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from benchmarks.telemetry import metered

from dsql_outbox import AsyncWriter, Database, Publisher, PublisherSettings
from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer, Delivered

from .apart import receiving
from .loop import serve
from .relayed import CountingSink, RelayDuring, ordered, relaying

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


async def stored(url: str) -> None:
    """Serve with events that were stored before."""
    database = Database(url)
    relay = _relay(database)
    async with AsyncWriter(database) as writer:

        async def store(events: Sequence[bytes]) -> None:
            await writer.write_many(events)

        await serve(relay=relaying(store, relay), ordered=ordered(store, relay))


async def receive(url: str, *, idle_max: float | None = None, doorbell: bool = False) -> None:
    """Serve with events of a writer in another process."""
    settings = PublisherSettings(idle_max=idle_max, doorbell=doorbell)
    await serve(receive=receiving(_relay(Database(url), settings)))


def _relay(database: Database, settings: PublisherSettings | None = None) -> RelayDuring:
    @asynccontextmanager
    async def relay(sink: CountingSink) -> AsyncIterator[None]:
        with metered() as metrics:
            async with Publisher(database, _Sink(sink), settings, hooks=[metrics]):
                yield

    return relay


if __name__ == "__main__":
    logging.getLogger("dsql_outbox").setLevel(logging.ERROR)
    served: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
        "stored": stored,
        "polls": partial(receive, idle_max=float(sys.argv[3]) if sys.argv[3:] else None),
        "rung": partial(receive, doorbell=True),
    }
    asyncio.run(served[sys.argv[2]](sys.argv[1]))
