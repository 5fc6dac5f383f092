"""Consumers of RabbitMQ that keep the order of each subject: ``consumer.py QUEUE..``

All messages of a subject go to one of four queues. Each queue has one active consumer at a time;
the other processes that read it wait, and one of them takes over when that one is gone.
"""

import asyncio
import os
import sys
from contextlib import suppress

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractQueue

from dsql_outbox.inbox import Received, from_rabbitmq

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
QUEUES = 4


async def declare(channel: AbstractChannel) -> list[AbstractQueue]:
    """Make the exchanges and the queues; what is there already stays as it is."""
    shop = await channel.declare_exchange("shop", "topic", durable=True)
    by_subject = await channel.declare_exchange(
        "shop.by-subject",
        "x-consistent-hash",
        durable=True,
        arguments={"hash-header": "ce-subject"},
    )
    await by_subject.bind(shop, "events.#")
    queues = []
    for number in range(QUEUES):
        queue = await channel.declare_queue(
            f"shop.{number}",
            durable=True,
            arguments={"x-queue-type": "quorum", "x-single-active-consumer": True},
        )
        await queue.bind(by_subject, "1")  # its weight: how many of the subjects it gets
        queues.append(queue)
    return queues


async def handle(message: Received) -> None:
    """Your code: here it prints. The inbox makes an effect in a database happen once."""
    print(message.key, message.headers["sequence"], flush=True)


async def consume(queue: AbstractQueue) -> None:
    """Handle one message after the other.

    An error ends this process. RabbitMQ gives what it has not acknowledged to the next consumer,
    in order. A message that is rejected with `requeue` would come behind later ones.
    """
    async with queue.iterator() as messages:
        async for raw in messages:
            await handle(from_rabbitmq(raw))
            await raw.ack()


async def main(numbers: list[int]) -> None:
    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=20)
        queues = await declare(channel)
        async with asyncio.TaskGroup() as tasks:
            for number in numbers:
                tasks.create_task(consume(queues[number]))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main([int(word) for word in sys.argv[1:]] or list(range(QUEUES))))
