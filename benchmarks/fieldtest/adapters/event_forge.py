"""event-forge: `create_message` in the caller's session, and the processor of its `OutboxService`.

It follows https://pypi.org/project/event-forge/ ("PostgreSQL + SQLAlchemy"), with the default
batch. The processor is in another process than the writer, so it finds rows by its poll, which is
made quick here. The retries of a message are raised, so that nothing is given up.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.fieldtest.schedule import Event
from event_forge import CreateOutboxMessageDto, OutboxConfig, OutboxService
from event_forge.models import OutboxMessage
from event_forge.repositories.sqlalchemy import Base, SQLAlchemyOutboxRepository
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from .broker import STORED, Broker, NotStored
from .program import LEASE, Adapter, Append, Begin, run

_CONFIG = OutboxConfig(
    safety_net_interval=0.01, lock_timeout_seconds=LEASE, backoff_base_seconds=1.0
)


class _Publisher:
    """Sends a message; raises what the service counts as a failure."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def publish(self, message: OutboxMessage) -> None:
        number: int = message.payload["number"]
        (outcome,) = await self._broker.asend_batch(message.event_type, [number])
        if outcome != STORED:
            raise NotStored(outcome)


def _engine(url: str) -> AsyncEngine:
    return create_async_engine(url.replace("://", "+asyncpg://", 1), pool_pre_ping=True)


def _service(engine: AsyncEngine, broker: Broker) -> OutboxService:
    repository = SQLAlchemyOutboxRepository(async_sessionmaker(engine, expire_on_commit=False))
    return OutboxService(repository=repository, publisher=_Publisher(broker), config=_CONFIG)


async def prepare(url: str) -> None:
    engine = _engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Begin]:
    engine = _engine(url)
    service = _service(engine, Broker(0))  # which sends nothing here
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    @asynccontextmanager
    async def begin() -> AsyncIterator[Append]:
        async with sessions() as session, session.begin():

            async def append(event: Event) -> None:
                message = CreateOutboxMessageDto(
                    aggregate_type="Thing", aggregate_id=event.key, event_type=event.topic,
                    payload=event._asdict(), max_retries=1_000,
                )  # fmt: skip
                await service.create_message(message, session)

            yield append

    yield begin
    await engine.dispose()


async def relay(url: str, broker: Broker) -> None:
    service = _service(_engine(url), broker)
    service.on("error", lambda _: None)
    service.start_processor()
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    run(Adapter(prepare, connect, relay))
