"""faststream-outbox: `publish` and `publish_batch` in a session's transaction, as documented.

Its subscriber has eight workers, fetches 500 rows at a time and deletes 100 at a time.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from faststream_outbox import OutboxBroker, make_outbox_table
from faststream_outbox.annotations import OutboxMessage
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from .apart import receiving, sending
from .loop import serve, writing
from .relayed import CountingSink, relaying

QUEUE = "events"


async def main(url: str) -> None:
    tables = MetaData()
    table = make_outbox_table(tables, table_name="outbox")
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=20
    )
    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)
    broker = OutboxBroker(engine, outbox_table=table, logger=None)
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def write(event: bytes) -> None:
        async with sessions() as session, session.begin():
            await broker.publish(event, queue=QUEUE, session=session)

    async def store(events: Sequence[bytes]) -> None:
        async with sessions() as session, session.begin():
            await broker.publish_batch(*events, queue=QUEUE, session=session)

    @asynccontextmanager
    async def relay(sink: CountingSink) -> AsyncIterator[None]:
        reader = OutboxBroker(engine, outbox_table=table, logger=None)

        @reader.subscriber(
            QUEUE, max_workers=8, fetch_batch_size=500, terminal_flush_batch_size=100,
            min_fetch_interval=0.01,
        )  # fmt: skip
        async def publish(message: OutboxMessage) -> None:
            sink.take(message.body)

        await reader.start()
        yield
        await reader.stop()

    await serve(
        **writing(write, store),
        relay=relaying(store, relay),
        send=sending(write),
        receive=receiving(relay),
    )
    await engine.dispose()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    asyncio.run(main(sys.argv[1]))
