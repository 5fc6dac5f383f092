"""nats-outbox: `outbox_transaction` for the write, and its `PollingRelay`.

It follows https://pypi.org/project/nats-outbox/: one relay, which is "FIFO within single relay".
The publisher to NATS is the recording broker. `max_retries` is raised, so that nothing is given up.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.fieldtest.schedule import Event
from nats_outbox.core.models import OutboxEvent, create_tables
from nats_outbox.core.outbox import outbox_transaction
from nats_outbox.relay.polling import PollingRelay
from nats_outbox.settings import OutboxSettings
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from .broker import Broker, NotStored
from .program import Adapter, Append, Begin, run


class _Publisher:
    """Sends an event; raises what the relay counts as a failure."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def publish(self, event: OutboxEvent) -> None:
        number: int = event.payload["number"]
        (outcome,) = await self._broker.asend_batch(event.subject, [number])
        if outcome != "stored":
            raise NotStored(outcome)


def _engine(url: str) -> AsyncEngine:
    return create_async_engine(url.replace("://", "+asyncpg://", 1), pool_pre_ping=True)


async def prepare(url: str) -> None:
    engine = _engine(url)
    await create_tables(engine)
    await engine.dispose()


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Begin]:
    engine = _engine(url)
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    @asynccontextmanager
    async def begin() -> AsyncIterator[Append]:
        async with sessions() as session, outbox_transaction(session) as transaction:

            async def append(event: Event) -> None:
                payload: dict[str, Any] = event._asdict()
                transaction.publish_event(event.topic, payload, aggregate_id=event.key)
                await transaction._flush_events()  # noqa: SLF001 - so that it has its id at once
                await session.flush()

            yield append

    yield begin
    await engine.dispose()


async def relay(url: str, broker: Broker) -> None:
    settings = OutboxSettings(
        database_url=url.replace("://", "+asyncpg://", 1), polling_interval=0.1, max_retries=1_000
    )
    sessions = async_sessionmaker(_engine(url), expire_on_commit=False)
    await PollingRelay(sessions, _Publisher(broker), settings).start()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    run(Adapter(prepare, connect, relay))
