"""The servers of a run, and their contents at its end."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

import nats
import psycopg
from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig

from dsql_outbox.operations import Targets
from dsql_outbox.outbox import Database
from dsql_outbox.outbox.message import subject_key
from dsql_outbox.publisher.sinks import decode_value
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres, NatsServer

from .applied import TABLE
from .check import Committed, Delivery
from .load import digest

_STREAM = "EVENTS"
_SHORTEST_WINDOW = 0.1
"""Seconds; the smallest window that JetStream accepts. So it stores nearly every duplicate."""
_FETCH = 1000
_FETCH_TIMEOUT = 10.0  # seconds
_LOOK = 0.1  # seconds between two reads of the outbox


class World(NamedTuple):
    """The servers of a run."""

    database: EmbeddedPostgres
    broker: NatsServer
    lake: NatsServer
    """That of the second target."""


@contextmanager
def world() -> Iterator[World]:
    """Start a database with tables and a broker with a stream."""
    with ExitStack() as stack:
        database = stack.enter_context(EmbeddedPostgres(settings={"max_wal_size": "4GB"}))
        broker, lake = (stack.enter_context(NatsServer()) for _ in range(2))
        apply(Database(database.url))
        for each in (broker, lake):
            asyncio.run(make_stream(each.url))
        with psycopg.connect(database.url) as connection:
            connection.execute(TABLE)
        asyncio.run(_add_targets(Database(database.url)))
        yield World(database, broker, lake)


async def _add_targets(database: Database) -> None:
    async with Targets(database) as targets:
        await targets.add("lake")
        await targets.add("model", kind="model")


class Ear:
    """Counts the messages that publishers send, before the stream drops duplicates.

    It misses messages that are sent while it reconnects to the broker.
    """

    def __init__(self) -> None:
        self._heard: Counter[str] = Counter()

    @property
    def sent_again(self) -> int:
        """How many messages arrived after the first one of their event."""
        return self._heard.total() - len(self._heard)

    @asynccontextmanager
    async def listening(self, broker: str) -> AsyncGenerator[None]:
        """Subscribe during the block."""
        # Errors of the connection are ignored, because the nemesis stops the broker.
        client: Any = await nats.connect(
            broker, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_ignore
        )
        try:
            await client.subscribe("events.>", cb=self._hear)
            yield
        finally:
            await client.close()

    async def _hear(self, message: Any) -> None:
        self._heard[message.headers["ce-id"]] += 1


async def _ignore(_: Exception) -> None:
    pass


async def drained(database: str, limit: float) -> None:
    """Wait until the outbox is empty, for `limit` seconds at most."""
    deadline = monotonic() + limit
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        waits = True
        while waits and monotonic() < deadline:
            cursor = await connection.execute("SELECT EXISTS (SELECT FROM outbox.outbox)")
            ((waits,),) = await cursor.fetchall()
            await asyncio.sleep(_LOOK)


class Stored(NamedTuple):
    """The contents of the database at the end."""

    committed: dict[UUID, Committed]
    shards: dict[str, str]
    """The shard of each key."""
    waiting: int
    dead: int


def stored(database: str, sent: Mapping[UUID, bytes]) -> Stored:
    """Read the events of this run; `sent` has the digest of each event's bytes."""
    committed: dict[UUID, Committed] = {}
    shards: dict[str, str] = {}
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT id, subject_type, subject_id, subject_version, shard,"
            " extract(epoch FROM saved_date)::float8 FROM outbox.business_events"
        )
        for event_id, entity_type, entity_id, version, shard, at in rows:
            key = subject_key(entity_type, entity_id)
            shards[key] = str(shard)
            committed[event_id] = Committed(key, version, sent[event_id], at)
        ((waiting, dead),) = connection.execute(
            "SELECT (SELECT count(*) FROM outbox.outbox), count(*) FROM outbox.dead_letters"
        ).fetchall()
    return Stored(committed, shards, waiting, dead)


async def delivered(broker: str, stream: str = _STREAM) -> list[Delivery]:
    """All messages of the stream, in its order."""
    return [_delivery(message) async for message in messages(broker, stream)]


async def messages(broker: str, stream: str) -> AsyncIterator[Any]:
    """All messages of a stream, in its order, as objects of nats-py."""
    client: Any = await nats.connect(broker)
    try:
        jetstream = client.jetstream()
        left = (await jetstream.stream_info(stream)).state.messages
        # The server forgets a reader that is busy with its last messages for 5 s.
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=300)
        reader = await jetstream.pull_subscribe("", stream=stream, config=config)
        while left:
            for message in await reader.fetch(min(_FETCH, left), timeout=_FETCH_TIMEOUT):
                left -= 1
                yield message
    finally:
        await client.close()


def _delivery(message: Any) -> Delivery:
    headers = message.headers
    return Delivery(
        UUID(headers["ce-id"]),
        decode_value(headers["ce-subject"]),
        int(headers["ce-sequence"]),
        digest(message.data),
        message.metadata.timestamp.timestamp(),
    )


async def make_stream(broker: str) -> None:
    """Create the stream that is read back at the end."""
    client: Any = await nats.connect(broker)
    try:
        await client.jetstream().add_stream(
            StreamConfig(
                name=_STREAM,
                subjects=["events.>"],
                storage=StorageType.FILE,
                duplicate_window=_SHORTEST_WINDOW,
                allow_atomic=True,
            )
        )
    finally:
        await client.close()
