"""outbox-sqs: `save` in the caller's session, and a `Relay` with its `SQSPublisher`.

It follows https://github.com/basukinath/outbox-sqs#readme: each event has the group of its key,
and all settings are the defaults, but for the claim and the polling. The client of SQS is the
recording broker, which answers a batch as SQS does.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.fieldtest.schedule import Event
from outbox_sqs import Base, Relay, SQSPublisher, save
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import sessionmaker

from .broker import STORED, Broker
from .program import LEASE, Adapter, Append, Begin, run


class _Client:
    """`send_message_batch` of SQS."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def send_message_batch(
        self,
        *,
        QueueUrl: str,  # noqa: N803 - as boto3 has it
        Entries: Sequence[Mapping[str, Any]],  # noqa: N803
    ) -> dict[str, Any]:
        numbers = [json.loads(entry["MessageBody"])["number"] for entry in Entries]
        outcomes = self._broker.send_batch(QueueUrl, numbers)
        found: dict[str, Any] = {"Successful": [], "Failed": []}
        for entry, outcome in zip(Entries, outcomes, strict=True):
            name = "Successful" if outcome == STORED else "Failed"
            found[name].append({"Id": entry["Id"], "Code": outcome, "Message": outcome})
        return found


def _engine(url: str) -> Engine:
    return create_engine(url.replace("://", "+psycopg://", 1), pool_pre_ping=True)


async def prepare(url: str) -> None:
    Base.metadata.create_all(_engine(url))


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Begin]:
    sessions = sessionmaker(bind=_engine(url), expire_on_commit=False)

    @asynccontextmanager
    async def begin() -> AsyncIterator[Append]:
        with sessions() as session:

            async def append(event: Event) -> None:
                save(session, event.topic, event.payload.decode(), group_id=event.key)
                await asyncio.to_thread(session.flush)

            yield append
            await asyncio.to_thread(session.commit)

    yield begin


async def relay(url: str, broker: Broker) -> None:
    sessions = sessionmaker(bind=_engine(url), expire_on_commit=False)
    publisher = SQSPublisher(_Client(broker))
    found = Relay(sessions, publisher, poll_interval=0.1, claim_timeout=LEASE)
    await asyncio.to_thread(found.run_forever)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    run(Adapter(prepare, connect, relay))
