"""dsql-outbox: `append_to` in the caller's transaction, and a `Publisher` with a sink of its own.

It follows docs/transactions.md for the write and docs/writing-a-sink.md for the sink. A refusal is
`Retry`, a missing topic `Unavailable`. All settings are the defaults, but for the lease.
"""

import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby

import psycopg
from benchmarks.fieldtest import schedule

from dsql_outbox import AsyncWriter, Database, Entity, Event, Message, Publisher, PublisherSettings
from dsql_outbox.publisher import Answer, Delivered, Outcome, Retry, Unavailable
from dsql_outbox.schema import apply

from .broker import NO_TOPIC, REFUSED, STORED, Broker
from .program import LEASE, Adapter, Append, Begin, run

_OUTCOMES: Mapping[str, Outcome] = {
    STORED: Delivered(),
    REFUSED: Retry("the broker refused the message"),
    NO_TOPIC: Unavailable("the topic does not exist"),
}


async def prepare(url: str) -> None:
    apply(Database(url))


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Begin]:
    async with (
        AsyncWriter(Database(url)) as writer,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
    ):

        async def append(event: schedule.Event) -> None:
            moved = Entity("Thing", event.key, {"number": event.number})
            await writer.append_to(connection, Event.new("Moved", [moved], topic=event.topic))

        @asynccontextmanager
        async def begin() -> AsyncIterator[Append]:
            async with connection.transaction():
                yield append

        yield begin


class RecordedSink:
    """Sends the messages of a call in one request per topic."""

    system = "recorder"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        for topic, indexes in _by_topic(messages):
            numbers = [json.loads(messages[n].payload)["entities"][0]["number"] for n in indexes]
            outcomes = await self._broker.asend_batch(topic, numbers)
            for index, outcome in zip(indexes, outcomes, strict=True):
                answer(index, _OUTCOMES[outcome])


def _by_topic(messages: Sequence[Message]) -> Iterator[tuple[str, list[int]]]:
    def topic(index: int) -> str:
        return messages[index].topic

    for name, indexes in groupby(sorted(range(len(messages)), key=topic), topic):
        yield name, list(indexes)


async def relay(url: str, broker: Broker) -> None:
    settings = PublisherSettings(lease=float(LEASE))
    await Publisher(Database(url), RecordedSink(broker), settings).run()


if __name__ == "__main__":
    logging.getLogger("dsql_outbox").setLevel(logging.ERROR)
    run(Adapter(prepare, connect, relay))
