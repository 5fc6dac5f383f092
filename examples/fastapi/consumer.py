"""The consumer. It keeps the balance of each customer, and counts each order once."""

import asyncio
import json
import os
from typing import Any
from urllib.parse import urlsplit

import nats
import psycopg
from nats.js.api import ConsumerConfig

REMEMBER = "INSERT INTO counted (order_id, version) VALUES (%s, %s) ON CONFLICT DO NOTHING"
ADD = """
INSERT INTO balances AS b (customer, orders, total) VALUES (%s, 1, %s)
ON CONFLICT (customer) DO UPDATE SET orders = b.orders + 1, total = b.total + excluded.total
"""


async def count(connection: psycopg.AsyncConnection[Any], message: Any) -> None:
    """Change the balance in the transaction that remembers the message."""
    customer, order = json.loads(message.data)["entities"]
    seen = (message.headers["ce-id"], message.headers["ce-sequence"])
    async with connection.transaction():
        if (await connection.execute(REMEMBER, seen)).rowcount:
            added = (customer["entityHeader"]["entityId"], order["amount"])
            await connection.execute(ADD, added)


async def main() -> None:
    url = urlsplit(os.environ["SINK_URL"])
    client = await nats.connect(f"nats://{url.netloc}")
    connect = psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True)
    # One message at a time, so that a message that is sent again does not come late.
    config = ConsumerConfig(ack_wait=2, max_ack_pending=1)
    subscription = await client.jetstream().pull_subscribe(
        "events.OrderCreated", durable="balances", stream="ORDERS", config=config
    )
    async with await connect as connection:
        while True:
            try:
                (message,) = await subscription.fetch(1)
            except nats.errors.TimeoutError:
                continue
            await count(connection, message)
            await message.ack()


if __name__ == "__main__":
    asyncio.run(main())
