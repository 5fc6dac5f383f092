"""A producer: a row of its own table and the event about it, in one transaction."""

import asyncio
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from dsql_outbox import AsyncWriter, Database, Entity, Event, Receipt
from dsql_outbox.testing import EmbeddedPostgres


async def pay(outbox: AsyncWriter, session: AsyncSession, loan: str, amount: int) -> Receipt:
    paid = {"loan": loan, "amount": amount}
    await session.execute(text("INSERT INTO payments VALUES (:loan, :amount)"), paid)
    return await outbox.append_to(session, Event.new("LoanPaid", [Entity("Loan", loan, paid)]))


async def main(url: str) -> None:
    engine = create_async_engine(url.replace("://", "+asyncpg://", 1))
    sessions = async_sessionmaker(engine)
    async with sessions.begin() as session:
        await session.execute(text("CREATE TABLE IF NOT EXISTS payments (loan text, amount int)"))
    async with AsyncWriter(Database(url)) as outbox, sessions.begin() as session:
        receipt = await pay(outbox, session, "LOAN-7", 100)
    print(receipt.event_id, receipt.status, f"version {receipt.entities[0].version}")
    await engine.dispose()


with EmbeddedPostgres(Path("outbox-data")) as server:
    asyncio.run(main(server.url))
