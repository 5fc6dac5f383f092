"""The events of a run, made from its seed, and the writers that store them."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import islice
from random import Random
from time import monotonic
from uuid import UUID

from dsql_outbox.outbox import Database, Receipt
from dsql_outbox.writer import AsyncWriter, WriterSettings

HOT = 10
"""The number of subjects that get a fifth of all events."""

_HOT_SHARE = 0.2
_MOST_ENTITIES = 3
_BATCH = 100
_WRITERS = 2
"""Two writers use the same subjects, so that transactions commit in another order than begun."""

_PATIENT = WriterSettings(timeout=3600.0, max_outage=3600.0, backlog_check=None)
"""The writers retry for long, because this run tests publishers: a lost write tests nothing."""

_EVENT = (
    '{"eventHeader":{"uuid":"%s","eventName":"Car Moved","eventType":"CarMoved",'
    '"createdDate":"2025-06-01T10:00:00Z"},"entities":[%s]}'
)
_ENTITY = '{"entityHeader":{"entityType":"Car","entityId":"CAR-%d"},"n":%d,"note":"%s"}'


def events(random: Random, number: int, subjects: int) -> Iterator[tuple[UUID, bytes]]:
    """Make `number` events, each about one to three of `subjects` cars, as pairs of id and JSON."""
    for n in range(number):
        touched = {_car(random, subjects): None}
        for _ in range(random.randrange(_MOST_ENTITIES)):
            touched[_car(random, subjects)] = None
        event_id = UUID(int=random.getrandbits(128), version=4)
        entities = ",".join(_ENTITY % (car, n, "x" * random.randrange(20, 200)) for car in touched)
        yield event_id, (_EVENT % (event_id, entities)).encode()


def digest(payload: bytes) -> bytes:
    """A digest of 16 bytes, to compare payloads without keeping them."""
    return blake2b(payload, digest_size=16).digest()


def _car(random: Random, subjects: int) -> int:
    return random.randrange(min(HOT, subjects) if random.random() < _HOT_SHARE else subjects)


@dataclass
class Load:
    """Writes all events, `rate` per second, and records them."""

    random: Random
    number: int
    subjects: int
    rate: float
    doorbell: bool = False
    """Whether the writers ring."""
    sent: dict[UUID, bytes] = field(default_factory=dict)
    """The digest of each event's bytes."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """The number of writes per outcome: ``committed``, or the name of an exception."""

    async def run(self, database: Database) -> None:
        """Write all events."""
        made = events(self.random, self.number, self.subjects)
        settings = replace(_PATIENT, doorbell=self.doorbell)
        async with AsyncWriter(database, settings) as writer, asyncio.TaskGroup() as group:
            for _ in range(_WRITERS):
                group.create_task(self._write(writer, made))

    @property
    def done(self) -> float:
        """The share of the events whose write has ended."""
        return self.outcomes.total() / self.number

    async def _write(self, writer: AsyncWriter, made: Iterator[tuple[UUID, bytes]]) -> None:
        while batch := list(islice(made, _BATCH)):
            began = monotonic()
            self.sent |= {event_id: digest(payload) for event_id, payload in batch}
            outcomes = await writer.write_many(payload for _, payload in batch)
            self.outcomes.update(map(_name, outcomes))
            spare = len(batch) * _WRITERS / self.rate - (monotonic() - began)
            await asyncio.sleep(max(0.0, spare))


def _name(outcome: Receipt | Exception) -> str:
    return "committed" if isinstance(outcome, Receipt) else type(outcome).__name__
