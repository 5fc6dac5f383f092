"""pgqueuer: `enqueue` of one job, and of a list of jobs."""

import asyncio
import sys
from collections.abc import Sequence

import asyncpg
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from .loop import Task, in_batches, serve

ENTRYPOINT = "events"


async def main(url: str) -> None:
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()

    async def single(events: Sequence[bytes]) -> None:
        for event in events:
            await queries.enqueue(ENTRYPOINT, event)

    async def batch(batches: Sequence[Sequence[bytes]]) -> None:
        for events in batches:
            n = len(events)
            await queries.enqueue([ENTRYPOINT] * n, list(events), [0] * n)

    await serve(single=Task(single), batch=Task(batch, in_batches))
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
