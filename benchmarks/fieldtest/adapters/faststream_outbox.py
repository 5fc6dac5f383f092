"""faststream-outbox: `publish` in a session's transaction, and a subscriber that relays.

It follows https://faststream-outbox.modern-python.org/usage/relay/ and
https://faststream-outbox.modern-python.org/usage/subscriber/: one worker, batches of ten, the
default retries without a last attempt, and a table of dead letters
(https://faststream-outbox.modern-python.org/usage/dlq/).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.fieldtest.schedule import Event
from faststream_outbox import ExponentialRetry, OutboxBroker, make_dlq_table, make_outbox_table
from faststream_outbox.annotations import OutboxMessage
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from .broker import Broker
from .program import LEASE, Adapter, Append, Begin, run

_QUEUE = "events"
_TABLES = MetaData()
_OUTBOX, _DEAD = make_outbox_table(_TABLES, table_name="outbox"), make_dlq_table(_TABLES)


def _engine(url: str) -> AsyncEngine:
    return create_async_engine(url.replace("://", "+asyncpg://", 1))


async def prepare(url: str) -> None:
    engine = _engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(_TABLES.create_all)
    await engine.dispose()


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Begin]:
    engine = _engine(url)
    broker = OutboxBroker(engine, outbox_table=_OUTBOX, logger=None)
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    @asynccontextmanager
    async def begin() -> AsyncIterator[Append]:
        async with sessions() as session, session.begin():

            async def append(event: Event) -> None:
                await broker.publish(event.payload, queue=_QUEUE, session=session)

            yield append

    yield begin
    await engine.dispose()


async def relay(url: str, broker: Broker) -> None:
    reader = OutboxBroker(_engine(url), outbox_table=_OUTBOX, dlq_table=_DEAD, logger=None)

    @reader.subscriber(
        _QUEUE, max_workers=1, fetch_batch_size=10, min_fetch_interval=0.01,
        max_fetch_interval=1.0, lease_ttl_seconds=LEASE,
        retry_strategy=ExponentialRetry(
            initial_delay_seconds=1.0, multiplier=2.0, max_delay_seconds=300.0, jitter_factor=0.2
        ),
    )  # fmt: skip
    async def publish(message: OutboxMessage) -> None:
        await broker.asend(message.body)

    await reader.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(Adapter(prepare, connect, relay))
