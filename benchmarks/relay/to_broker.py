"""How fast the relay is to a real broker, with runs and one message of a subject at a time."""

import asyncio
from collections.abc import Iterator, Sequence
from time import perf_counter

import aio_pika
from aio_pika.abc import AbstractExchange
from confluent_kafka import Producer

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer, Sink, open_sink
from dsql_outbox.publisher.sinks.cloudevents import kafka_headers, rabbitmq_headers
from dsql_outbox.testing.sink_contract import new_message

from .drain import Drained, drain_by_relay
from .rows import Rows, fill

_CHANNELS = 8
_WINDOW = 128  # messages on their way on a channel, as many as the sink's


class OneAtATime:
    """A sink that takes no runs."""

    def __init__(self, inner: Sink) -> None:
        self._inner = inner
        self.system = inner.system

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        await self._inner.publish(messages, answer)


def relayed(url: str, broker: str, rows: Rows, *, takes_runs: bool = True) -> Drained:
    """Relay these rows of the database to the broker, with metrics."""

    async def relay() -> Drained:
        async with open_sink(broker) as sink:
            return await drain_by_relay(url, sink if takes_runs else OneAtATime(sink))

    fill(url, rows)
    return asyncio.run(relay())


def bare_kafka(bootstrap: str, topic: str, rows: int) -> float:
    """Messages per second by confluent-kafka alone: idempotent, with a report for each."""
    settings = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all"}
    producer = Producer({**settings, "partitioner": "murmur2_random"})
    messages = [new_message(f"Car/CAR-{n}", b"x" * 400, topic) for n in range(rows)]
    stored: list[object] = []

    def report(error: object, _: object) -> None:
        assert error is None, error
        stored.append(None)

    producer.list_topics(topic, timeout=10)
    began = perf_counter()
    for message in messages:
        producer.produce(
            message.topic,
            value=message.payload,
            key=message.key.encode(),
            headers=kafka_headers(message),
            on_delivery=report,
        )
        producer.poll(0)
    producer.flush()
    assert len(stored) == rows
    return rows / (perf_counter() - began)


def bare_rabbitmq(host: str, exchange: str, rows: int) -> float:
    """Messages per second by aio-pika alone: persistent, mandatory, with a confirm for each."""
    return asyncio.run(_bare_rabbitmq(host, exchange, rows))


async def _bare_rabbitmq(host: str, exchange: str, rows: int) -> float:
    topic = "events.CarMoved"
    messages = [new_message(f"Car/CAR-{n}", b"x" * 400, topic) for n in range(rows)]
    async with await aio_pika.connect(f"amqp://guest:guest@{host}/") as connection:
        channels = [await connection.channel(on_return_raises=True) for _ in range(_CHANNELS)]
        exchanges = [await each.get_exchange(exchange, ensure=False) for each in channels]
        waiting = iter(messages)
        began = perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for found in exchanges * _WINDOW:
                tasks.create_task(_send_rest(found, waiting))
        return rows / (perf_counter() - began)


async def _send_rest(exchange: AbstractExchange, messages: Iterator[Message]) -> None:
    for message in messages:
        made = aio_pika.Message(
            message.payload,
            headers={**rabbitmq_headers(message)},
            content_type=message.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=message.dedupe_id,
        )
        await exchange.publish(made, message.topic, mandatory=True)
