"""txoutbox: `insert` in a transaction; a batch is as many inserts in one transaction."""

import asyncio
import sys
from collections.abc import Sequence

import asyncpg
from txoutbox.adapters.postgres import PostgresStorage

from .loop import Task, in_batches, serve

TOPIC, KEY = "events.CarMoved", "Car/CAR-1"


async def main(url: str) -> None:
    pool = await asyncpg.create_pool(url, min_size=1, max_size=1)
    storage = PostgresStorage(pool)
    await storage.create_schema()

    async def single(events: Sequence[bytes]) -> None:
        async with pool.acquire() as connection:
            for event in events:  # its own transaction each
                await storage.insert(connection, TOPIC, event, key=KEY)

    async def batch(batches: Sequence[Sequence[bytes]]) -> None:
        async with pool.acquire() as connection:
            for events in batches:
                async with connection.transaction():
                    for event in events:
                        await storage.insert(connection, TOPIC, event, key=KEY)

    await serve(single=Task(single), batch=Task(batch, in_batches))
    await pool.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
