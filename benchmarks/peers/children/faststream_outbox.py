"""faststream-outbox: `publish` and `publish_batch` in a session's transaction, as documented."""

import asyncio
import sys
from collections.abc import Sequence

from faststream_outbox import OutboxBroker, make_outbox_table
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from .loop import Task, in_batches, serve

QUEUE = "events"


async def main(url: str) -> None:
    tables = MetaData()
    table = make_outbox_table(tables, table_name="outbox")
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)
    broker = OutboxBroker(engine, outbox_table=table)
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def single(events: Sequence[bytes]) -> None:
        for event in events:
            async with sessions() as session, session.begin():
                await broker.publish(event, queue=QUEUE, session=session)

    async def batch(batches: Sequence[Sequence[bytes]]) -> None:
        for events in batches:
            async with sessions() as session, session.begin():
                await broker.publish_batch(*events, queue=QUEUE, session=session)

    await serve(single=Task(single), batch=Task(batch, in_batches))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
