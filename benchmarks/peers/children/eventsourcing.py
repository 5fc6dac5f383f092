"""eventsourcing: `insert_events` of its PostgreSQL recorder, below its aggregates.

Its relay selects 500 notifications at a time, in global order, and stores its position
after each. A subscription, which NOTIFY wakes, delivers if the writer is apart.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from urllib.parse import urlsplit
from uuid import uuid4

from eventsourcing.persistence import StoredEvent, Tracking
from eventsourcing.postgres import (
    PostgresApplicationRecorder,
    PostgresDatastore,
    PostgresTrackingRecorder,
)

from .apart import receiving, sending
from .loop import serve, writing
from .relayed import CountingSink, ordered, relaying

AGGREGATE, VERSIONS = uuid4(), count(1)
READ = 500


def _stored(event: bytes) -> StoredEvent:
    return StoredEvent(AGGREGATE, next(VERSIONS), "CarMoved", event)


def _datastore(url: str) -> PostgresDatastore:
    parts = urlsplit(url)
    return PostgresDatastore(
        parts.path[1:], parts.hostname or "", parts.port or 5432, parts.username or "",
        parts.password or "", pool_size=5,
    )  # fmt: skip


async def main(url: str) -> None:
    datastore = _datastore(url)
    recorder = PostgresApplicationRecorder(datastore)
    recorder.create_table()
    tracking = PostgresTrackingRecorder(datastore)
    tracking.create_table()

    async def write(event: bytes) -> None:
        recorder.insert_events([_stored(event)])

    async def store(events: Sequence[bytes]) -> None:
        recorder.insert_events([_stored(event) for event in events])

    def relay_all(sink: CountingSink) -> None:
        at = tracking.max_tracking_id("events")
        while found := recorder.select_notifications(at, READ, inclusive_of_start=False):
            for each in found:
                sink.take(each.state)
            at = found[-1].id
            tracking.insert_tracking(Tracking("events", at))

    @asynccontextmanager
    async def drain(sink: CountingSink) -> AsyncIterator[None]:
        running = asyncio.create_task(asyncio.to_thread(relay_all, sink))
        yield
        await running

    @asynccontextmanager
    async def follow(sink: CountingSink) -> AsyncIterator[None]:
        with recorder.subscribe(gt=recorder.max_notification_id()) as subscription:

            def relay() -> None:
                for each in subscription:
                    sink.take(each.state)
                    tracking.insert_tracking(Tracking("events", each.id))

            running = asyncio.create_task(asyncio.to_thread(relay))
            yield
            subscription.stop()
            await running

    await serve(
        **writing(write, store),
        relay=relaying(store, drain),
        ordered=ordered(store, drain),
        send=sending(write),
        receive=receiving(follow),
    )
    datastore.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
