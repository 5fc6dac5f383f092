"""The demo's stages: write under conflict while a publisher relays, then read back."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import psycopg

from dsql_outbox.cli.demo.sample_events import EVENT_TYPES, SHAPES, EventType, Shape, make_event
from dsql_outbox.observability.facts import Fact, PublishEnded
from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.publisher.publisher import Publisher
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.writer.async_writer import AsyncWriter
from dsql_outbox.writer.settings import WriterSettings

from .results import Arrived, Results, Written

if TYPE_CHECKING:
    from dsql_outbox.outbox.receipt import Receipt

Progress = Callable[[int], None]
"""Takes the number of events that a stage has finished since the last call."""

TURNS: Final = 5
"""Each of the four workers, one per type, writes this many events of each shape."""

_STREAM: Final = "EVENTS"

_TRIES: Final = 5
"""How often the hot shape is written at most: it is repeated until two writes conflict."""


async def write_relay_and_read_back(
    database: Database, broker: str, written: Progress, delivered: Progress
) -> Results:
    """Write all events while a publisher relays them; with the outbox empty, read them back.

    `broker` is the URL of a new NATS server. `written` and `delivered` count the events.
    """

    def count(fact: Fact) -> None:
        if isinstance(fact, PublishEnded) and fact.result == "delivered":
            delivered(1)

    sink, results = sink_of(broker), Results()
    async with Publisher(database, sink, hooks=[count]):
        await _write_all(database, results, written)
    await Publisher(database, sink, hooks=[count]).run(until_empty=True)
    results.arrived.extend(await _read_back(broker))
    return results


def sink_of(broker: str) -> str:
    """The URL of the sink on the NATS server at this URL."""
    return f"{broker}?stream={_STREAM}"


async def _write_all(database: Database, results: Results, progress: Progress) -> None:
    """Write both shapes; repeat the hot one until two writes have conflicted."""
    async with AsyncWriter(database, WriterSettings.origin()) as writer:
        for shape in SHAPES:
            for n in range(_TRIES if shape == "hot" else 1):
                written = await _write_shape(writer, shape, f"{shape[0]}{n}", progress)
                results.written.extend(written)
                if results.conflicts(shape):
                    break


async def _write_shape(
    writer: AsyncWriter, shape: Shape, run: str, progress: Progress
) -> list[Written]:
    """Write one shape with a worker per event type; they start each turn together.

    In the shape `hot` the events of a turn have the same car.
    """
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
    event = make_event(kind, shape, f"{run}-{turn}", turn)
    started = perf_counter()
    receipt: Receipt | None = None
    with suppress(psycopg.Error):  # the event is lost, and the report shows it
        receipt = await writer.write(event)
    return Written(shape, event, receipt, perf_counter() - started)


async def _read_back(broker: str) -> list[Arrived]:
    """All messages, in the broker's order."""
    import nats  # noqa: PLC0415 - an extra, and needed for NATS only

    client: Any = await nats.connect(broker)  # pyright: ignore[reportUnknownMemberType]
    try:
        jetstream = client.jetstream()
        left = (await jetstream.stream_info(_STREAM)).state.messages
        messages = await jetstream.subscribe("events.>", stream=_STREAM, ordered_consumer=True)
        return [_arrived(await messages.next_msg(timeout=5)) for _ in range(left)]
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
