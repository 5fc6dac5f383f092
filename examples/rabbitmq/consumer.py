"""A consumer of RabbitMQ that handles each message once, and the messages of a subject in order.

    consumer.py QUEUE..

All messages of a subject go to one of the service's queues. Each queue has one active consumer at
a time; the other processes that read it wait, and one of them takes over when that one is gone.
"""

import asyncio
import logging
import os
import sys
from contextlib import suppress
from functools import partial

import aio_pika
import yarl
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from psycopg import AsyncConnection

from dsql_outbox import Database, UnreadableMessage
from dsql_outbox.inbox import AsyncInbox, Received, from_rabbitmq

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
SERVICE = "billing"  # another service that reads the same events needs a name of its own
QUEUES = 4
WAIT = 5.0  # seconds until a message that could not be handled is tried again
NEVER = 1_000_000  # -1 is "never" since RabbitMQ 4; 3.10 drops at the first redelivery then

logger = logging.getLogger(SERVICE)


async def declare(channel: AbstractChannel) -> list[AbstractQueue]:
    """Make the exchanges and the queues; what is there already stays as it is."""
    shop = await channel.declare_exchange("shop", "topic", durable=True)
    by_subject = await channel.declare_exchange(
        f"{SERVICE}.by-subject",
        "x-consistent-hash",
        durable=True,
        arguments={"hash-header": "ce-subject"},
    )
    await by_subject.bind(shop, "events.#")
    rejected = await channel.declare_queue(
        f"{SERVICE}.rejected", durable=True, arguments={"x-queue-type": "quorum"}
    )
    queues = []
    for number in range(QUEUES):
        queue = await channel.declare_queue(
            f"{SERVICE}.{number}",
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-single-active-consumer": True,
                "x-delivery-limit": NEVER,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": rejected.name,
            },
        )
        await queue.bind(by_subject, "1")  # its weight: how many of the subjects it gets
        queues.append(queue)
    return queues


async def handle(message: Received, connection: AsyncConnection) -> None:
    """Your code: the record of the message and your rows are one COMMIT."""
    insert = "INSERT INTO public.billed (subject, sequence) VALUES (%s, %s)"
    await connection.execute(insert, (message.key, int(message.headers["sequence"])))


async def on_message(inbox: AsyncInbox, raw: AbstractIncomingMessage) -> None:
    """Handle a message, and acknowledge it.

    An error is tried again here, because a message that RabbitMQ gets back may come behind
    later ones.
    """
    try:
        message = from_rabbitmq(raw)
    except UnreadableMessage as error:
        logger.warning("a message of another sender goes to %s.rejected: %s", SERVICE, error)
        await raw.reject()
        return
    while True:
        try:
            await inbox.once(message, partial(handle, message))
            break
        except Exception:
            logger.exception("%s waits %s s for another try", message.key, WAIT)
            await asyncio.sleep(WAIT)
    await raw.ack()


async def main(numbers: list[int]) -> None:
    # A `connect_robust` that is cancelled leaves a task behind, for which Ctrl-C would wait.
    async with (
        AsyncInbox(Database(os.environ["DATABASE_URL"]), SERVICE) as inbox,
        aio_pika.RobustConnection(yarl.URL(URL)) as connection,
    ):
        await connection.connect()
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)  # one message of each queue at a time
        queues = await declare(channel)
        for number in numbers:
            await queues[number].consume(partial(on_message, inbox))
        await asyncio.Future()  # until Ctrl-C


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main([int(word) for word in sys.argv[1:]] or list(range(QUEUES))))
