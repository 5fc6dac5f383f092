"""The consumer. It keeps the balance of each customer; the inbox counts each order once."""

import asyncio
import os
from functools import partial
from urllib.parse import urlsplit

import nats
from nats.js.api import ConsumerConfig
from psycopg import AsyncConnection

from dsql_outbox import Database
from dsql_outbox.inbox import AsyncInbox, Received, from_nats

ADD = """
INSERT INTO public.balances AS b (customer, orders, total) VALUES (%s, 1, %s)
ON CONFLICT (customer) DO UPDATE SET orders = b.orders + 1, total = b.total + excluded.total
"""


async def count(message: Received, connection: AsyncConnection) -> None:
    """Change the balance, in the transaction that remembers the message."""
    customer, order = message.json()["entities"]
    await connection.execute(ADD, (customer["entityHeader"]["entityId"], order["amount"]))


async def main() -> None:
    url = urlsplit(os.environ["SINK_URL"])
    client = await nats.connect(f"nats://{url.netloc}")
    # One message at a time, so that a message that is sent again does not come late.
    config = ConsumerConfig(ack_wait=2, max_ack_pending=1)
    subscription = await client.jetstream().pull_subscribe(
        "events.OrderCreated", durable="balances", stream="ORDERS", config=config
    )
    async with AsyncInbox(Database(os.environ["DATABASE_URL"]), "balances") as inbox:
        while True:
            try:
                (raw,) = await subscription.fetch(1)
            except TimeoutError:  # no message came; nats-py has more than one
                continue
            message = from_nats(raw)
            await inbox.once(message, partial(count, message))
            await raw.ack()


if __name__ == "__main__":
    asyncio.run(main())
