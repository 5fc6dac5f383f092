"""How fast the relay is to a real broker, with runs and one message of a subject at a time."""

import asyncio
from collections.abc import Sequence
from time import perf_counter, process_time

from benchmarks.telemetry import metered
from confluent_kafka import Producer

from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import Answer, Publisher, Sink, open_sink
from dsql_outbox.publisher.sinks.cloudevents import kafka_headers
from dsql_outbox.testing.sink_contract import new_message

from .drain import SETTINGS, Drained
from .rows import Rows, fill


class OneAtATime:
    """A sink that takes no runs."""

    def __init__(self, inner: Sink) -> None:
        self._inner = inner
        self.system = inner.system

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        await self._inner.publish(messages, answer)


def relayed(url: str, broker: str, rows: Rows, *, takes_runs: bool = True) -> Drained:
    """Relay these rows of the database to the broker, with metrics."""
    fill(url, rows)
    return asyncio.run(_relay(url, broker, rows.number, takes_runs=takes_runs))


async def _relay(url: str, broker: str, rows: int, *, takes_runs: bool) -> Drained:
    async with open_sink(broker) as sink:
        began, busy = perf_counter(), process_time()
        used = sink if takes_runs else OneAtATime(sink)
        with metered() as hook:
            publisher = Publisher(Database(url), used, SETTINGS, hooks=[hook])
            await publisher.run(until_empty=True)
        took, worked = perf_counter() - began, process_time() - busy
    return Drained(rows / took, worked / rows * 1e6)


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
