"""procrastinate: a job per event with the lock of its key, deferred on the caller's connection.

It follows, below https://procrastinate.readthedocs.io/en/stable/howto/:
`advanced/locks.html` (jobs of a lock run one at a time and in order),
`production/external_connection.html` (the job in the caller's transaction),
`advanced/retry.html` (retries without end, a second apart), and
`production/retry_stalled_jobs.html`, whose function runs every second here.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from benchmarks.fieldtest.schedule import Event
from procrastinate import App, PsycopgConnector, RetryStrategy

from .broker import Broker
from .program import LEASE, Adapter, Append, Begin, run

_BEAT = 1.0  # seconds between two heartbeats of a worker


def _app(url: str) -> App:
    return App(connector=PsycopgConnector(conninfo=url))


async def prepare(url: str) -> None:
    app = _app(url)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Begin]:
    app = _app(url)
    async with (
        app.open_async(),
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
    ):

        async def append(event: Event) -> None:
            job = app.configure_task("publish", lock=event.key, connection=connection)
            await job.defer_async(payload=event.payload.decode())

        @asynccontextmanager
        async def begin() -> AsyncIterator[Append]:
            async with connection.transaction():
                yield append

        yield begin


async def relay(url: str, broker: Broker) -> None:
    app = _app(url)

    @app.task(name="publish", retry=RetryStrategy(wait=1))
    async def publish(payload: str) -> None:
        await broker.asend(payload)

    async def retry_stalled_jobs() -> None:
        while True:
            await asyncio.sleep(_BEAT)
            for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=LEASE):
                await app.job_manager.retry_job(job)

    async with app.open_async(), asyncio.TaskGroup() as tasks:
        tasks.create_task(retry_stalled_jobs())
        await app.run_worker_async(
            concurrency=10,
            delete_jobs="successful",
            fetch_job_polling_interval=1.0,
            update_heartbeat_interval=_BEAT,
            stalled_worker_timeout=LEASE,
        )


if __name__ == "__main__":
    logging.getLogger("procrastinate").setLevel(logging.CRITICAL)
    run(Adapter(prepare, connect, relay))
