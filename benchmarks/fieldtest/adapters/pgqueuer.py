"""pgqueuer: a job per event, enqueued in the caller's transaction; one job runs at a time.

It follows, below https://pgqueuer.readthedocs.io/en/latest/guides/: `concurrency-control`
(`concurrency_limit=1`), `retry` (`DatabaseRetryEntrypointExecutor`), `hold-failed-jobs`, and
`deployment` (`shutdown_on_listener_failure`, and a supervisor that starts it again).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
from benchmarks.fieldtest.schedule import Event
from pgqueuer import QueueManager
from pgqueuer.db import AsyncpgDriver
from pgqueuer.executors import DatabaseRetryEntrypointExecutor, EntrypointExecutorParameters
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from .broker import Broker
from .program import LEASE, Adapter, Append, Begin, run

_ENTRYPOINT = "publish"


async def prepare(url: str) -> None:
    connection = await asyncpg.connect(url)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Begin]:
    connection = await asyncpg.connect(url)
    queries = Queries(AsyncpgDriver(connection))

    async def append(event: Event) -> None:
        await queries.enqueue(_ENTRYPOINT, event.payload)

    @asynccontextmanager
    async def begin() -> AsyncIterator[Append]:
        async with connection.transaction():
            yield append

    yield begin
    await connection.close()


def _retried(parameters: EntrypointExecutorParameters) -> DatabaseRetryEntrypointExecutor:
    return DatabaseRetryEntrypointExecutor(parameters=parameters, max_attempts=1_000)


async def relay(url: str, broker: Broker) -> None:
    manager = QueueManager(Queries(AsyncpgDriver(await asyncpg.connect(url))))

    @manager.entrypoint(
        _ENTRYPOINT, concurrency_limit=1, on_failure="hold", executor_factory=_retried
    )
    async def publish(job: Job) -> None:
        await broker.asend(job.payload or b"")

    await manager.run(
        batch_size=1,  # else the next job waits until the log of the last one is flushed
        dequeue_timeout=timedelta(seconds=1),
        heartbeat_timeout=timedelta(seconds=LEASE),
        shutdown_on_listener_failure=True,
    )


if __name__ == "__main__":
    run(Adapter(prepare, connect, relay))
