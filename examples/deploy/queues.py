"""Makes the exchange `shop` and a queue with all its messages; those that are there stay."""

import asyncio
import os

import aio_pika


async def declare() -> None:
    """Make both, and bind the queue."""
    async with await aio_pika.connect(os.environ["AMQP_URL"]) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("shop", "topic", durable=True)
        queue = await channel.declare_queue(
            "billing", durable=True, arguments={"x-queue-type": "quorum"}
        )
        await queue.bind(exchange, "events.#")


asyncio.run(declare())
