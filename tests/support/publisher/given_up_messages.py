"""Messages that were given up, for tests of what an operator does with them."""

from collections.abc import AsyncIterable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from tests.support.publisher.running_relays import relayed

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher import Rejected
from dsql_outbox.testing import MemorySink

T = TypeVar("T")


def event(subject: str = "a", n: int = 0, *others: str) -> Event:
    """An event of a car, which may touch other cars too."""
    entities = [Entity("Car", subject, {"n": n}), *(Entity("Car", other) for other in others)]
    return Event.new("CarMoved", entities)


async def gathered(found: AsyncIterable[T]) -> list[T]:
    """All that an iteration yields."""
    return [each async for each in found]


async def relay_all(
    database: Database, sink: MemorySink, *, refused: Sequence[UUID] = (), **settings: Any
) -> None:
    """Relay until nothing more can go; `refused` events are given up."""
    for event_id in refused:
        sink.fail(event_id, Rejected("Not for me"))
    await relayed(database, sink, **settings)
