"""procrastinate: jobs are deferred alone and in batches; a worker runs ten at a time.

In the line `ordered` each job has the lock of its key, so that two of a key never run at
once, and the older one first.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby

from procrastinate import App, PsycopgConnector

from .apart import receiving, sending
from .loop import serve, writing
from .relayed import CountingSink, key_of, ordered, relaying

CONCURRENCY = 10


async def main(url: str) -> None:
    app = App(connector=PsycopgConnector(conninfo=url))
    sinks: list[CountingSink] = []

    @app.task(name="publish")
    async def publish(event: str) -> None:
        sinks[-1].take(event.encode())

    async def write(event: bytes) -> None:
        await publish.defer_async(event=event.decode())

    async def store(events: Sequence[bytes]) -> None:
        await publish.batch_defer_async(*({"event": event.decode()} for event in events))

    async def store_locked(events: Sequence[bytes]) -> None:
        for key, of_key in groupby(events, key_of):
            locked = publish.configure(lock=key.decode())
            await locked.batch_defer_async(*({"event": event.decode()} for event in of_key))

    @asynccontextmanager
    async def relay(sink: CountingSink) -> AsyncIterator[None]:
        sinks.append(sink)
        worker = asyncio.create_task(
            app.run_worker_async(
                concurrency=CONCURRENCY, install_signal_handlers=False, delete_jobs="always"
            )
        )
        yield
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        await serve(
            **writing(write, store),
            relay=relaying(store, relay),
            ordered=ordered(store_locked, relay),
            send=sending(write),
            receive=receiving(relay),
        )


if __name__ == "__main__":
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    asyncio.run(main(sys.argv[1]))
