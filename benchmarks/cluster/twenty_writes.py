"""Twenty concurrent writes to few entities: all are stored and delivered."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import psycopg

from dsql_outbox.cli.doctor.finding import Finding
from dsql_outbox.outbox import Database, Entity, Event, Message, Receipt
from dsql_outbox.publisher import Answer, Delivered, Publisher
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.writer import AsyncWriter, WriterSettings

from .statements import query

_NAME: Final = "20 writes"
_WRITES: Final = 20
_CARS: Final = 5

_HOLD: Final = 0.5
"""Seconds during which all writes begin, before any may end."""

_TRIES: Final = 5
"""How often the events are written at most: until two writes conflict."""


def twenty_writes(database: Database) -> Finding:
    """Whether 20 of 20 writes that conflict are stored, and delivered in order."""
    return asyncio.run(_twenty_writes(database))


async def _twenty_writes(database: Database) -> Finding:
    sink = _Kept()
    receipts: list[Receipt] = []
    async with AsyncWriter(database, _EACH_A_CONNECTION) as writer:
        for n in range(_TRIES):
            receipts = await _write(writer, database, n)
            if any(receipt.conflicts for receipt in receipts) or len(receipts) < _WRITES:
                break
    await Publisher(database, sink).run(until_empty=True)
    return judge_writes(receipts, sink.messages)


async def _write(writer: AsyncWriter, database: Database, n: int) -> list[Receipt]:
    """Write all events concurrently; return the receipts of those that are stored."""
    cars = [f"CAR-{n}-{k}" for k in range(_CARS)]
    await asyncio.gather(*(writer.write(_event(car, 0)) for car in cars))
    async with _entities_held(database):
        calls = [
            asyncio.create_task(writer.write(_event(cars[k % _CARS], k))) for k in range(_WRITES)
        ]
        await asyncio.sleep(_HOLD)
    written = await asyncio.gather(*calls, return_exceptions=True)
    for result in written:
        if not isinstance(result, Receipt | psycopg.Error):
            raise result
    return [receipt for receipt in written if isinstance(receipt, Receipt)]


@asynccontextmanager
async def _entities_held(database: Database) -> AsyncGenerator[None]:
    """Keep writes waiting during the block, so that they meet; Aurora DSQL lets them pass."""
    async with await database.connect_async() as connection:
        await connection.execute(statement("doctor_begin", database.schema))
        await connection.execute(query("entities_hold", database.schema))
        yield
        await connection.rollback()


_EACH_A_CONNECTION: Final = WriterSettings(max_connections=_WRITES, backlog_check=None)


def _event(car: str, mileage: int) -> Event:
    return Event.new("CarDriven", [Entity("Car", car, {"mileage": mileage})])


class _Kept:
    """A sink that keeps its messages."""

    system = "memory"

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Keep the messages."""
        self.messages.extend(messages)
        for index in range(len(messages)):
            answer(index, Delivered())


def judge_writes(receipts: Sequence[Receipt], messages: Sequence[Message]) -> Finding:
    """Judge by the receipts of the stored events, and by the messages in order of arrival."""
    stored = {receipt.event_id for receipt in receipts}
    arrived = stored & {message.event_id for message in messages}
    conflicts = sum(receipt.conflicts for receipt in receipts)
    in_order = _in_order(messages)
    values = {
        "stored": len(stored),
        "arrived": len(arrived),
        "conflicts": conflicts,
        "in_order": in_order,
    }
    order = "in order" if in_order else "out of order"
    text = f"{len(stored)} of {_WRITES} stored, {len(arrived)} delivered {order}"
    text += f", {conflicts} conflicts"
    if len(arrived) < _WRITES or not in_order:
        return Finding(_NAME, "fail", text, "do not write here: events are lost", values=values)
    if not conflicts:
        return Finding(_NAME, "unknown", f"{text} in {_TRIES} tries", values=values)
    return Finding(_NAME, "ok", text, values=values)


def _in_order(messages: Sequence[Message]) -> bool:
    """Whether the versions 1, 2, .. of each subject arrived in this order."""
    versions: defaultdict[str, list[int]] = defaultdict(list)
    for message in messages:
        versions[message.key].append(int(message.headers["sequence"]))
    return all(found == list(range(1, len(found) + 1)) for found in versions.values())
