"""A consumer of Kafka that handles each message once, and the messages of a subject in order.

All messages of a subject are in one partition of their topic. A partition has one process of the
group at a time. When that one is gone, another one takes over.
"""

import logging
import os
import signal
import time
from contextlib import suppress
from functools import partial
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition
from psycopg import Connection

from dsql_outbox import Database, UnreadableMessage
from dsql_outbox.inbox import Inbox, Received, from_kafka

SERVICE = "billing"  # another service that reads the same events needs a name of its own
TOPICS = ["events.OrderPlaced"]
WAIT = 5.0  # seconds until a message that could not be handled is tried again
SETTINGS: dict[str, Any] = {
    "bootstrap.servers": os.environ.get("KAFKA", "localhost:9092"),
    "group.id": SERVICE,
    "enable.auto.commit": False,  # else an offset may be committed before its message is handled
    "auto.offset.reset": "earliest",  # a new service begins with the oldest message
}

logger = logging.getLogger(SERVICE)


def handle(message: Received, connection: Connection) -> None:
    """Your code: the record of the message and your rows are one COMMIT."""
    insert = "INSERT INTO public.billed (subject, sequence) VALUES (%s, %s)"
    connection.execute(insert, (message.key, int(message.headers["sequence"])))


def on_message(raw: Message, consumer: Consumer, inbox: Inbox) -> None:
    """Handle a message, and then commit its offset.

    If an offset is not committed, its message comes again, and the inbox skips it. A rebalance
    takes partitions away inside of `poll` only, so no message is being handled then.
    """
    place = TopicPartition(raw.topic() or "", raw.partition() or 0, raw.offset() or 0)
    try:
        message = from_kafka(raw)
    except UnreadableMessage as error:
        logger.warning("a message of another sender is left out at %s: %s", place, error)
        consumer.commit(message=raw)
        return
    try:
        inbox.once(message, partial(handle, message))
    except Exception:
        logger.exception("%s waits %s s for another try", place, WAIT)
        consumer.seek(place)  # else `poll` returns the next one, whose offset covers this one
        time.sleep(WAIT)
    else:
        consumer.commit(message=raw)


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    consumer = Consumer(SETTINGS)
    try:
        with Inbox(Database(os.environ["DATABASE_URL"]), SERVICE) as inbox:
            consumer.subscribe(TOPICS)
            while True:
                raw = consumer.poll(1.0)
                if raw is None:
                    continue
                if error := raw.error():
                    logger.warning("Kafka: %s", error)
                else:
                    on_message(raw, consumer, inbox)
    finally:
        consumer.close()  # leave the group, so that others take over at once


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
