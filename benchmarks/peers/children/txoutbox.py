"""txoutbox: `insert` in a transaction; a batch is as many inserts in one transaction.

Its relay claims 500 rows at a time and deletes them afterwards: loosely, and with strict
order per key. NOTIFY wakes it.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
from txoutbox import OutboxMessage, Relay, RelayConfig
from txoutbox.adapters.postgres import PostgresStorage

from .apart import receiving, sending
from .loop import serve, writing
from .relayed import CountingSink, RelayDuring, key_of, ordered, relaying

TOPIC = "events.CarMoved"
CONFIG = RelayConfig(batch_size=500, concurrency=100)
LISTENED = "events"


async def main(url: str) -> None:
    pool = await asyncpg.create_pool(url, min_size=1, max_size=4)
    storage = PostgresStorage(pool)
    await storage.create_schema()
    strict = PostgresStorage(pool, delete_on_ack=True)
    loose = PostgresStorage(pool, delete_on_ack=True, strict_ordering=False)
    told = PostgresStorage(pool, delete_on_ack=True, notify_channel=LISTENED)

    async def insert(connection: asyncpg.Connection, event: bytes) -> None:
        await storage.insert(connection, TOPIC, event, key=key_of(event).decode())

    async def write(event: bytes) -> None:
        async with pool.acquire() as connection:
            await insert(connection, event)

    async def store(events: Sequence[bytes]) -> None:
        async with pool.acquire() as connection, connection.transaction():
            for event in events:
                await insert(connection, event)

    def relay_of(source: PostgresStorage) -> RelayDuring:
        @asynccontextmanager
        async def relay(sink: CountingSink) -> AsyncIterator[None]:
            async def publish(message: OutboxMessage) -> None:
                sink.take(message.payload)

            async with Relay(source, publish, config=CONFIG) as running:
                if source.notify_channel is None:
                    yield
                    return
                await source.create_schema()  # adds the trigger; the write lines have none
                async with await source.listen(running.wake):
                    yield
                await pool.execute("DROP TRIGGER outbox_notify ON outbox")

        return relay

    await serve(
        **writing(write, store),
        relay=relaying(store, relay_of(loose)),
        ordered=ordered(store, relay_of(strict)),
        send=sending(write),
        receive=receiving(relay_of(told)),
    )
    await pool.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
