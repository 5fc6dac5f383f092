"""Twenty concurrent writes to few entities: all are stored and delivered."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import psycopg

from dsql_outbox.cli.doctor.finding import Finding
from dsql_outbox.outbox import Database, Entity, Event, Message, Receipt
from dsql_outbox.publisher import Answer, Delivered, Publisher
from dsql_outbox.writer import AsyncWriter, WriterSettings

_NAME: Final = "20 writes"
_WRITES: Final = 20
_CARS: Final = 5


def twenty_writes(database: Database) -> Finding:
    """Whether 20 of 20 writes that conflict are stored, and delivered in order."""
    return asyncio.run(_twenty_writes(database))


async def _twenty_writes(database: Database) -> Finding:
    events = [_event(n) for n in range(_WRITES)]
    async with AsyncWriter(database, _EACH_A_CONNECTION) as writer:
        written = await asyncio.gather(
            *(writer.write(event) for event in events), return_exceptions=True
        )
    for result in written:
        if isinstance(result, BaseException) and not isinstance(result, psycopg.Error):
            raise result
    sink = _Kept()
    await Publisher(database, sink).run(until_empty=True)
    receipts = [receipt for receipt in written if isinstance(receipt, Receipt)]
    return judge_writes(receipts, sink.messages)


_EACH_A_CONNECTION: Final = WriterSettings(max_connections=_WRITES, backlog_check=None)


def _event(n: int) -> Event:
    car = Entity("Car", f"CAR-{n % _CARS}", {"mileage": n})
    return Event.new("Car Driven", "CarDriven", [car])


class _Kept:
    """A sink that keeps what it gets."""

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
    text = f"{len(stored)} of {_WRITES} stored, {len(arrived)} delivered, {conflicts} conflicts"
    if len(arrived) == _WRITES and in_order:
        return Finding(_NAME, "ok", f"{text}, in order", values=values)
    remedy = "look at the log of retries: `python -m logging` shows why writes were given up"
    return Finding(
        _NAME, "fail", text if in_order else f"{text}, out of order", remedy, values=values
    )


def _in_order(messages: Sequence[Message]) -> bool:
    """Whether the versions 1, 2, .. of each subject arrived in this order."""
    versions: defaultdict[str, list[int]] = defaultdict(list)
    for message in messages:
        versions[message.key].append(int(message.headers["sequence"]))
    return all(found == list(range(1, len(found) + 1)) for found in versions.values())
