"""eventsourcing: `insert_events` of its PostgreSQL recorder, below its aggregates."""

import asyncio
import sys
from collections.abc import Sequence
from itertools import count
from urllib.parse import urlsplit
from uuid import uuid4

from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

from .loop import Task, in_batches, serve

AGGREGATE, VERSIONS = uuid4(), count(1)


def _stored(event: bytes) -> StoredEvent:
    return StoredEvent(AGGREGATE, next(VERSIONS), "CarMoved", event)


async def main(url: str) -> None:
    parts = urlsplit(url)
    datastore = PostgresDatastore(
        parts.path[1:], parts.hostname or "", parts.port or 5432, parts.username or "",
        parts.password or "",
    )  # fmt: skip
    recorder = PostgresApplicationRecorder(datastore)
    recorder.create_table()

    async def single(events: Sequence[bytes]) -> None:
        for event in events:
            recorder.insert_events([_stored(event)])

    async def batch(batches: Sequence[Sequence[bytes]]) -> None:
        for events in batches:
            recorder.insert_events([_stored(event) for event in events])

    await serve(single=Task(single), batch=Task(batch, in_batches))
    datastore.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
