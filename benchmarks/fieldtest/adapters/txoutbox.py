"""txoutbox: `insert` in the caller's transaction, and a `Relay` with strict ordering.

It follows https://github.com/OsmnvAslan/txoutbox#readme ("Quick start", "Delivery semantics"):
events have a key, strict ordering is on, `visibility_delay` is longer than the longest
transaction, and the longest round fits into the lease.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
from benchmarks.fieldtest.schedule import Event
from txoutbox import OutboxMessage, Relay, RelayConfig
from txoutbox.adapters.postgres import PostgresStorage

from .broker import Broker
from .program import LEASE, Adapter, Append, Begin, run

_DELAY = timedelta(seconds=1)
_CONFIG = RelayConfig(lease=timedelta(seconds=LEASE), publish_timeout=LEASE / 6, max_attempts=1_000)


async def prepare(url: str) -> None:
    storage = await PostgresStorage.connect(url)
    await storage.create_schema()
    await storage.close()


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Begin]:
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
        storage = PostgresStorage(pool)

        @asynccontextmanager
        async def begin() -> AsyncIterator[Append]:
            async with pool.acquire() as connection, connection.transaction():

                async def append(event: Event) -> None:
                    await storage.insert(connection, event.topic, event.payload, key=event.key)

                yield append

        yield begin


async def relay(url: str, broker: Broker) -> None:
    async def publish(message: OutboxMessage) -> None:
        await broker.asend(message.payload)

    storage = await PostgresStorage.connect(url, visibility_delay=_DELAY)
    await Relay(storage, publish, config=_CONFIG).run(handle_signals=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    run(Adapter(prepare, connect, relay))
