"""Orders and their events, each pair in one retried transaction of an AsyncSession on asyncpg.

Reads orders as JSON lines from standard input, and prints a line per order that is stored.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dsql_outbox import AsyncWriter, Database, DuplicateEvent, Entity, Event, Receipt, transact
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres


class Base(DeclarativeBase):
    """The tables of this program."""


class Order(Base):
    """An order. Its id comes from the client, which sends the same one when it tries again."""

    __tablename__ = "orders"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    item: Mapped[str]
    quantity: Mapped[int]


async def main(url: str) -> None:
    await asyncio.to_thread(apply, Database(url))
    engine = create_async_engine(url.replace("://", "+asyncpg://", 1))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine)
    async with AsyncWriter(Database(url)) as writer:
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            try:
                receipt = await place(
                    writer, sessions, UUID(order["id"]), order["item"], order["quantity"]
                )
                print(order["id"], receipt.status, f"attempt {receipt.attempts}", flush=True)
            except DuplicateEvent:
                print(order["id"], "stored before", flush=True)
    await engine.dispose()


async def place(
    writer: AsyncWriter,
    sessions: async_sessionmaker[AsyncSession],
    order_id: UUID,
    item: str,
    quantity: int,
) -> Receipt:
    async def run(session: AsyncSession) -> Receipt:
        state = Entity("Order", str(order_id), {"item": item, "quantity": quantity})
        event = Event.new("OrderPlaced", [state], id=order_id)
        receipt = await writer.append_to(session, event)
        session.add(Order(id=order_id, item=item, quantity=quantity))
        return receipt

    return await transact(writer, sessions, run)


if url := os.environ.get("DSQL_OUTBOX_DATABASE"):
    asyncio.run(main(url))
else:
    with EmbeddedPostgres(Path("outbox-data")) as server:
        asyncio.run(main(server.url))
