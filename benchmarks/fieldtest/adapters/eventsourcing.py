"""eventsourcing: events are inserted by its PostgreSQL recorder, and a subscription relays them.

It follows https://eventsourcing.readthedocs.io/en/stable/topics/projection.html below the level of
aggregates: a subscription from the last tracked position, and the position stored after each
event. A message that the broker refuses is sent again until it is stored, as the events behind
it wait. Its own transaction ends with the call that inserts. To hold one open, the adapter takes
the two steps of that call: the lock of the table, and the insert.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from time import sleep
from typing import Any
from urllib.parse import urlsplit
from uuid import NAMESPACE_OID, uuid5

from benchmarks.fieldtest.schedule import Event
from eventsourcing.persistence import StoredEvent, Tracking
from eventsourcing.postgres import (
    PostgresApplicationRecorder,
    PostgresDatastore,
    PostgresTrackingRecorder,
)

from .broker import Broker, NotStored
from .program import Adapter, Append, Begin, run

_NAME = "events"
_WAIT = 0.2  # seconds until a refused message is sent again


def _datastore(url: str) -> PostgresDatastore:
    parts = urlsplit(url)
    return PostgresDatastore(
        parts.path[1:], parts.hostname or "", parts.port or 5432, parts.username or "",
        parts.password or "", pool_size=3, pre_ping=True,
    )  # fmt: skip


async def prepare(url: str) -> None:
    with _datastore(url) as datastore:
        PostgresApplicationRecorder(datastore).create_table()
        PostgresTrackingRecorder(datastore).create_table()


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Begin]:
    with _datastore(url) as datastore:
        recorder = PostgresApplicationRecorder(datastore)
        versions: dict[str, Callable[[], int]] = {}

        def stored(event: Event) -> StoredEvent:
            version = versions.setdefault(event.key, count(1).__next__)
            name = uuid5(NAMESPACE_OID, event.key)
            return StoredEvent(name, version(), "Moved", event.payload)

        @asynccontextmanager
        async def begin() -> AsyncIterator[Append]:
            transaction: Any = datastore.transaction(commit=True)
            cursor = await asyncio.to_thread(transaction.__enter__)

            async def append(event: Event) -> None:
                insert = recorder._insert_stored_events  # noqa: SLF001 - see above
                await asyncio.to_thread(insert, cursor, [stored(event)])

            yield append
            await asyncio.to_thread(transaction.__exit__, None, None, None)

        yield begin


async def relay(url: str, broker: Broker) -> None:
    await asyncio.to_thread(_relay, url, broker)


def _relay(url: str, broker: Broker) -> None:
    datastore = _datastore(url)
    tracking = PostgresTrackingRecorder(datastore)
    recorder = PostgresApplicationRecorder(datastore)
    with recorder.subscribe(gt=tracking.max_tracking_id(_NAME)) as subscription:
        for each in subscription:
            while not _is_stored(broker, each.state):
                sleep(_WAIT)
            tracking.insert_tracking(Tracking(_NAME, each.id))


def _is_stored(broker: Broker, payload: bytes) -> bool:
    try:
        broker.send(payload)
    except NotStored:
        return False
    return True


if __name__ == "__main__":
    run(Adapter(prepare, connect, relay))
