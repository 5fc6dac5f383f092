"""The consumer. It keeps the balance of each customer; the inbox counts each order once."""

import asyncio
import logging
import os
from functools import partial
from urllib.parse import urlsplit

import nats
from nats.js.api import ConsumerConfig
from psycopg import AsyncConnection

from dsql_outbox import Database, UnreadableMessage
from dsql_outbox.inbox import AsyncInbox, Received, from_nats

logger = logging.getLogger("balances")

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
    # One message at a time, so that a message that is sent again does not come late.
    config = ConsumerConfig(ack_wait=2, max_ack_pending=1)
    async with (
        await nats.connect(f"nats://{url.netloc}") as client,
        AsyncInbox(Database(os.environ["DATABASE_URL"]), "balances") as inbox,
    ):
        subscription = await client.jetstream().pull_subscribe(
            "events.OrderCreated", durable="balances", stream="ORDERS", config=config
        )
        while True:
            try:
                (raw,) = await subscription.fetch(1)
            except TimeoutError:  # no message came; nats-py has more than one
                continue
            try:
                message = from_nats(raw)
            except UnreadableMessage as error:
                logger.warning("a message of another sender is left out: %s", error)
                await raw.term()
                continue
            try:
                await inbox.once(message, partial(count, message))
            except Exception:
                logger.exception("%s is not counted; NATS delivers it again", message.id)
                await raw.nak(delay=1)
            else:
                await raw.ack()


if __name__ == "__main__":
    asyncio.run(main())
