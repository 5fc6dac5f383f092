"""The scenarios of the harness, with an embedded server in place of Docker.

Each one is a context that does harm inside its block. They follow `bench_harness/hooks.py` and
`phases.py` of the harness: five of chaos, four of pressure.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from dsql_outbox.testing import EmbeddedPostgres

from .replicas import Replica

_KILLS = 2.0  # calls of pg_terminate_backend per second
_IDLE = 300  # connections that are held
_READERS = 4
_MORE = 1.5  # the rate under high load

_TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND state IN ('active', 'idle in transaction')"
)


class Stage(NamedTuple):
    """What a scenario may harm. `seconds` is the length of a phase."""

    server: EmbeddedPostgres
    url: str
    replicas: list[Replica]
    rate: float
    rate_file: Path
    seconds: float

    def offer(self, rate: float) -> None:
        """Set the rate of all producers together."""
        self.rate_file.write_text(str(rate / len(self.replicas)))


Harm = Callable[[Stage], AbstractAsyncContextManager[None]]


class Scenario(NamedTuple):
    harm: Harm
    phases: int = 1
    """The length of the stress, in phases."""


@asynccontextmanager
async def crash_recovery(stage: Stage) -> AsyncGenerator[None]:
    await stage.replicas[0].kill()
    yield
    await stage.replicas[0].start()
    await stage.replicas[0].works()


@asynccontextmanager
async def postgres_restart(stage: Stage) -> AsyncGenerator[None]:
    async def away() -> None:
        await asyncio.to_thread(stage.server.stop)
        try:
            await asyncio.sleep(stage.seconds / 2)
        finally:
            await asyncio.to_thread(stage.server.start)

    task = asyncio.create_task(away())
    yield
    await task


@asynccontextmanager
async def repeated_kills(stage: Stage) -> AsyncGenerator[None]:
    async def kill() -> None:
        for _ in count():
            await stage.replicas[0].kill()
            await stage.replicas[0].start()
            await stage.replicas[0].works()
            await asyncio.sleep(stage.seconds / 3)

    async with _during(kill):
        yield
    await stage.replicas[0].kill()
    await stage.replicas[0].start()
    await stage.replicas[0].works()


@asynccontextmanager
async def pg_backend_kill(stage: Stage) -> AsyncGenerator[None]:
    async def kill() -> None:
        connection = await _connected(stage)
        async with connection:
            for _ in count():
                await connection.execute(_TERMINATE)
                await asyncio.sleep(1 / _KILLS)

    async with _during(kill):
        yield


@asynccontextmanager
async def pool_exhaustion(stage: Stage) -> AsyncGenerator[None]:
    async with AsyncExitStack() as held:
        with suppress(psycopg.OperationalError):  # the server has no more: that is the point
            for _ in range(_IDLE):
                await held.enter_async_context(await _connected(stage))
        yield


@asynccontextmanager
async def idle_in_transaction(stage: Stage) -> AsyncGenerator[None]:
    connection = await _connected(stage)
    async with connection:
        await connection.execute("BEGIN")
        await connection.execute("SELECT txid_current()")
        yield


@asynccontextmanager
async def high_load(stage: Stage) -> AsyncGenerator[None]:
    stage.offer(_MORE * stage.rate)
    yield
    stage.offer(stage.rate)


@asynccontextmanager
async def active_readers(stage: Stage) -> AsyncGenerator[None]:
    async def read() -> None:
        connection = await _connected(stage)
        async with connection:
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            for _ in count():
                await connection.execute("SELECT count(*) FROM outbox.outbox")
                await asyncio.sleep(0.1)

    async with AsyncExitStack() as readers:
        for _ in range(_READERS):
            await readers.enter_async_context(_during(read))
        yield


CHAOS = {
    "crash_recovery": Scenario(crash_recovery),
    "postgres_restart": Scenario(postgres_restart),
    "repeated_kills": Scenario(repeated_kills, 3),
    "pg_backend_kill": Scenario(pg_backend_kill),
    "pool_exhaustion": Scenario(pool_exhaustion),
}
PRESSURE = {
    "idle_in_tx": Scenario(idle_in_transaction, 2),
    "sustained_high_load": Scenario(high_load, 2),
    "active_readers": Scenario(active_readers),
    "event_burst": Scenario(high_load, 3),
}


async def _connected(stage: Stage) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(stage.url, autocommit=True)


@asynccontextmanager
async def _during(work: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
    """Do harm inside the block. A harm that has failed fails the scenario."""
    task = asyncio.ensure_future(work())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
