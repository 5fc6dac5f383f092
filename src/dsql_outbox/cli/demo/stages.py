"""The demo's stages: write under conflict while a publisher relays, then read back."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from time import perf_counter, time
from typing import Any, Final
from uuid import UUID

import psycopg

from dsql_outbox.observability import Fact, PublishEnded
from dsql_outbox.outbox import Database, Receipt, array_literal
from dsql_outbox.publisher import Publisher
from dsql_outbox.schema import statement
from dsql_outbox.writer import AsyncWriter, WriterSettings

from .results import Arrived, Results, Written
from .workload import EVENT_TYPES, SHAPES, TURNS, EventType, Shape, make_event

Progress = Callable[[int], None]
"""Takes the number of events that a stage has finished since the last call."""

TOPIC_PREFIX: Final = "outbox-demo"
_TOPIC: Final = f"{TOPIC_PREFIX}.{{event_type}}"

_TRIES: Final = 5
"""How often the hot shape is written at most: it is repeated until two writes conflict."""


async def write_all(database: Database, run: str, results: Results, progress: Progress) -> None:
    """Write the workload in both shapes; repeat the hot one until two writes have conflicted."""
    settings = replace(WriterSettings.origin(), topic=_TOPIC)
    async with AsyncWriter(database, settings) as writer:
        for shape in SHAPES:
            for n in range(_TRIES if shape == "hot" else 1):
                written = await _write_shape(writer, shape, f"{run}{shape[0]}{n}", progress)
                results.written.extend(written)
                if results.conflicts(shape):
                    break


async def _write_shape(
    writer: AsyncWriter, shape: Shape, run: str, progress: Progress
) -> list[Written]:
    """Write one shape with four workers, one per event type; they start each turn together."""
    gate = asyncio.Barrier(len(EVENT_TYPES))

    async def worker(kind: EventType) -> list[Written]:
        written: list[Written] = []
        for turn in range(TURNS):
            await gate.wait()
            written.append(await _write(writer, kind, shape, run, turn))
            progress(1)
        return written

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(worker(kind)) for kind in EVENT_TYPES]
    return [written for task in tasks for written in task.result()]


async def _write(
    writer: AsyncWriter, kind: EventType, shape: Shape, run: str, turn: int
) -> Written:
    event = make_event(kind, shape, run, turn)
    started = perf_counter()
    receipt: Receipt | None = None
    with suppress(psycopg.Error):  # the event is lost, and the report shows it
        receipt = await writer.write(event)
    return Written(shape, event, receipt, perf_counter() - started)


async def write_and_relay(
    database: Database, sink_url: str, results: Results, progress: tuple[Progress, Progress]
) -> None:
    """Write all events while a publisher relays, then relay until the outbox is empty."""
    written, delivered = progress

    def count(fact: Fact) -> None:
        if isinstance(fact, PublishEnded) and fact.result == "delivered":
            delivered(1)

    async with Publisher(database, sink_url, hooks=[count]):
        await write_all(database, new_run(), results, written)
    await Publisher(database, sink_url, hooks=[count]).run(until_empty=True)


async def read_back(sink_url: str, stream: str, wanted: set[UUID]) -> list[Arrived]:
    """The messages of `stream` whose event ids are in `wanted`, in the broker's order."""
    import nats  # noqa: PLC0415 - an extra, and needed for NATS only

    url = sink_url.partition("?")[0]
    client: Any = await nats.connect(url)  # pyright: ignore[reportUnknownMemberType]
    try:
        jetstream = client.jetstream()
        left = (await jetstream.stream_info(stream)).state.messages
        subscription = await jetstream.subscribe(
            f"{TOPIC_PREFIX}.>", stream=stream, ordered_consumer=True
        )
        arrived: list[Arrived] = []
        for _ in range(left):
            found = _arrived(await subscription.next_msg(timeout=5))
            if found.event_id in wanted:
                arrived.append(found)
        return arrived
    finally:
        await client.close()


def _arrived(message: Any) -> Arrived:
    headers: dict[str, str] = message.headers
    committed = int(headers["ce-position"]) / 1e6
    return Arrived(
        event_id=UUID(headers["ce-id"]),
        key=headers["ce-subject"],
        sequence=int(headers["ce-sequence"]),
        payload=message.data,
        lag=message.metadata.timestamp.timestamp() - committed,
    )


def stored_ids(database: Database, wanted: set[UUID]) -> tuple[list[UUID], int]:
    """The ids in `wanted` that are stored, one per row, and how many of them wait in the outbox."""
    with database.connect() as connection:
        rows = connection.execute(
            statement("events_present", database.schema), {"ids": array_literal(wanted)}
        ).fetchall()
    return [event_id for event_id, _ in rows], sum(waiting for _, waiting in rows)


def new_run() -> str:
    """A short text that makes the entity ids of this run unique."""
    return f"{int(time() * 1000) & 0xFFFFFF:06x}"
