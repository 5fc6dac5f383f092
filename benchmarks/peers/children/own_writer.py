"""The library's writers: ``own_writer URL async``, ``rung`` and ``sync``."""

import asyncio
import logging
import sys
from collections.abc import Iterator, Sequence

from dsql_outbox import AsyncWriter, Database, Writer, WriterSettings

from .apart import sending
from .loop import Task, in_batches, serve

CONNECTIONS = 8


async def by_async_writer(url: str) -> None:
    """Serve with an `AsyncWriter` on one connection, and one on eight."""
    database = Database(url)
    one, eight = WriterSettings(max_connections=1), WriterSettings(max_connections=CONNECTIONS)
    async with AsyncWriter(database, one) as writer, AsyncWriter(database, eight) as wide:

        async def single(events: Sequence[bytes]) -> None:
            for event in events:
                await writer.write(event)

        async def batch(batches: Sequence[Sequence[bytes]]) -> None:
            for each in batches:
                await writer.write_many(each)

        async def large(events: Sequence[bytes]) -> None:
            await writer.write_many(events)

        async def eight_at_once(events: Sequence[bytes]) -> None:
            todo = iter(events)  # shared: a free task takes the next event
            await asyncio.gather(*(_write_all(wide, todo) for _ in range(CONNECTIONS)))

        async def write(event: bytes) -> None:
            await wide.write(event)

        await serve(
            send=sending(write),
            single=Task(single),
            batch=Task(batch, in_batches),
            large=Task(large),
            eight=Task(eight_at_once),
        )


async def by_rung_writer(url: str) -> None:
    """Serve with an `AsyncWriter` that rings after each commit."""
    settings = WriterSettings(max_connections=CONNECTIONS, doorbell=True)
    async with AsyncWriter(Database(url), settings) as writer:

        async def write(event: bytes) -> None:
            await writer.write(event)

        await serve(send=sending(write))


async def by_writer(url: str) -> None:
    """Serve with a `Writer` on one connection."""
    with Writer(Database(url), WriterSettings(max_connections=1)) as writer:

        async def single(events: Sequence[bytes]) -> None:
            for event in events:
                writer.write(event)

        async def batch(batches: Sequence[Sequence[bytes]]) -> None:
            for each in batches:
                writer.write_many(each)

        await serve(single=Task(single), batch=Task(batch, in_batches))


async def _write_all(writer: AsyncWriter, events: Iterator[bytes]) -> None:
    for event in events:
        await writer.write(event)


if __name__ == "__main__":
    logging.getLogger("dsql_outbox").setLevel(logging.ERROR)
    served = {"async": by_async_writer, "rung": by_rung_writer, "sync": by_writer}
    asyncio.run(served[sys.argv[2]](sys.argv[1]))
