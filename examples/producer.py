"""A producer: one event, stored with its outbox row in one transaction."""

import asyncio
import os

from dsql_outbox import AsyncWriter, Database, Entity, Event


async def main() -> None:
    async with AsyncWriter(Database(os.environ["DSQL_OUTBOX_DATABASE"])) as writer:
        loan = Entity("Loan", "LOAN-7", {"balance": "9000.00", "status": "active"})
        receipt = await writer.write(Event.new("Loan Created", "LoanCreated", [loan]))
        print(receipt.event_id, receipt.status, f"version {receipt.entities[0].version}")


asyncio.run(main())
