"""A producer: one event, stored with its outbox row in one transaction."""

import asyncio
from pathlib import Path

from dsql_outbox import AsyncWriter, Database, Entity, Event
from dsql_outbox.testing import EmbeddedPostgres


async def main(url: str) -> None:
    async with AsyncWriter(Database(url)) as writer:
        loan = Entity("Loan", "LOAN-7", {"balance": "9000.00", "status": "active"})
        receipt = await writer.write(Event.new("Loan Created", "LoanCreated", [loan]))
        print(receipt.event_id, receipt.status, f"version {receipt.entities[0].version}")


with EmbeddedPostgres(Path("outbox-data")) as server:
    asyncio.run(main(server.url))
