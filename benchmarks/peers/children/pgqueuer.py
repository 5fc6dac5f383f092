"""pgqueuer: `enqueue` of one job, and of a list of jobs; a queue manager runs them, 100 a batch."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
from pgqueuer import QueueManager
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from .apart import LANES, receiving, sending
from .loop import BATCH, serve, writing
from .relayed import CountingSink, relaying

ENTRYPOINT = "events"


async def main(url: str) -> None:
    connection, other = await asyncpg.connect(url), await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))
    if await connection.fetchval("SELECT to_regclass('pgqueuer')") is None:
        await queries.install()

    pool = await asyncpg.create_pool(url, min_size=LANES, max_size=LANES)
    wide = Queries(AsyncpgPoolDriver(pool))

    async def write(event: bytes) -> None:
        await queries.enqueue(ENTRYPOINT, event)

    async def write_wide(event: bytes) -> None:
        await wide.enqueue(ENTRYPOINT, event)

    async def store(events: Sequence[bytes]) -> None:
        n = len(events)
        await queries.enqueue([ENTRYPOINT] * n, list(events), [0] * n)

    @asynccontextmanager
    async def relay(sink: CountingSink) -> AsyncIterator[None]:
        manager = QueueManager(Queries(AsyncpgDriver(other)))

        @manager.entrypoint(ENTRYPOINT)
        async def publish(job: Job) -> None:
            sink.take(job.payload or b"")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(manager.run(batch_size=BATCH))
            yield
            manager.shutdown.set()

    await serve(
        **writing(write, store),
        relay=relaying(store, relay),
        send=sending(write_wide),
        receive=receiving(relay),
    )
    await connection.close()
    await other.close()
    await pool.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
