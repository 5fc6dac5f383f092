"""A broker and publishers go through each fault. Then the messages that arrived are checked."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final
from uuid import UUID

import psycopg
from benchmarks.nemesis.check import Verdict, judge
from benchmarks.nemesis.fleet import Fleet
from benchmarks.nemesis.load import Load, digest
from benchmarks.nemesis.world import drained, stored

from dsql_outbox.operations import StatusReader
from dsql_outbox.outbox import Database
from dsql_outbox.writer import AsyncWriter

from .place import CARS, VANS, Fault, Place

_VANS: Final = 60
_PUBLISHERS: Final = 2
_OPTIONS: Final = ("--lease", "3")
_DEAD_FOR: Final = 2.0  # seconds until a publisher that was killed is restarted
_PATIENCE: Final = 60.0  # seconds that publishers have for each task
_LOOK: Final = 0.1  # seconds between two checks

_EVENT: Final = (
    '{"eventHeader":{"uuid":"%s","eventName":"Van Moved","eventType":"VanMoved",'
    '"createdDate":"2025-06-01T10:00:00Z"},'
    '"entities":[{"entityHeader":{"entityType":"Van","entityId":"VAN-%d"}}]}'
)


@dataclass(frozen=True, kw_only=True)
class Cars:
    """The events that are written during each fault; few subjects are hot ones."""

    events: int = 2_000
    rate: float = 500.0
    """Events per second."""
    subjects: int = 300


@dataclass
class Findings:
    """The result of a trial. `broken` has a sentence for each promise that was broken."""

    faults: int
    events: int = 0
    duplicates: int = 0
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.events:,} events through {self.faults} faults"
        if self.broken:
            return f"{text}: {'; '.join(self.broken)}"
        return f"{text}: 0 lost, 0 out of order, 0 blamed, {self.duplicates:,} sent again"


class Trial:
    """One broker's run."""

    def __init__(  # noqa: PLR0913 - the parts of a trial
        self,
        place: Place,
        database: str,
        logs: Path,
        seed: int,
        cars: Cars,
        *,
        map: str | None = None,  # noqa: A002 - as `publish` calls it
    ) -> None:
        self._place = place
        self._cars = cars
        self._database = database
        self._random = Random(seed)
        words = ["--database", database, "--sink", place.sink, *_OPTIONS]
        words += ["--map", map] if map else []
        self._fleet = Fleet(_PUBLISHERS, [sys.executable], words, logs)
        self._sent: dict[UUID, bytes] = {}
        # With the first one every publisher has a connection before its broker is harmed.
        self._faults = [Fault("publisher killed", nullcontext), *place.faults()]
        self._findings = Findings(len(self._faults))

    async def run(self) -> Findings:
        """Go through all faults; ends all publishers even if it raises."""
        await asyncio.to_thread(self._place.prepare)
        try:
            await self._fleet.start()
            for fault in self._faults:
                await self._go_through(fault)
            await self._fleet.end()
        finally:
            await asyncio.shield(self._fleet.kill())
        found = stored(self._database, self._sent)
        verdict = judge(found.committed, await asyncio.to_thread(self._place.delivered))
        return self._judged(verdict, len(found.committed), found.dead)

    async def _go_through(self, fault: Fault) -> None:
        """Write, and kill a publisher, while the fault lasts; afterwards all must leave."""
        cars = self._cars
        async with _harmed(fault.harm()):
            load = Load(Random(self._random.random()), cars.events, cars.subjects, cars.rate)
            async with asyncio.TaskGroup() as group:
                group.create_task(load.run(Database(self._database)))
                group.create_task(self._write_vans(_VANS if fault.harms_vans else 0))
                member = self._random.choice(self._fleet.members)
                group.create_task(self._fleet.kill_one(member, _DEAD_FOR))
            self._sent |= load.sent
            await self._check(fault)
        await drained(self._database, _PATIENCE)
        if waiting := self._count("outbox"):
            self._break(fault, f"{waiting:,} messages wait {_PATIENCE:.0f} s after it")

    async def _check(self, fault: Fault) -> None:
        if fault.pauses and not await _becomes(lambda: self._is_paused(fault.pauses)):
            self._break(fault, f"{fault.pauses} is not paused")
        if fault.pauses == VANS and not await _becomes(self._no_car_waits):
            self._break(fault, f"{CARS} does not flow")
        for table, what in ("outbox_failures", "blamed"), ("dead_letters", "dead"):
            if count := self._count(table):
                self._break(fault, f"{count:,} messages {what}")

    async def _write_vans(self, number: int) -> None:
        ids = [UUID(int=self._random.getrandbits(128), version=4) for _ in range(number)]
        vans = {event_id: (_EVENT % (event_id, n % 20)).encode() for n, event_id in enumerate(ids)}
        self._sent |= {event_id: digest(payload) for event_id, payload in vans.items()}
        async with AsyncWriter(Database(self._database)) as writer:
            await writer.write_many(vans.values())

    async def _is_paused(self, topic: str) -> bool:
        async with StatusReader(Database(self._database)) as reader:
            status = await reader.read()
        return any(
            topic == paused.topic
            for seen in status.publishers
            if seen.alive
            for paused in seen.paused
        )

    async def _no_car_waits(self) -> bool:
        return not self._count("outbox", f"topic = '{CARS}'")

    def _count(self, table: str, where: str = "true") -> int:
        with psycopg.connect(self._database, autocommit=True) as connection:
            query = f"SELECT count(*)::int FROM outbox.{table} WHERE {where}"
            ((found,),) = connection.execute(query.encode()).fetchall()
        return int(found)

    def _break(self, fault: Fault, what: str) -> None:
        self._findings.broken.append(f"{fault.name}: {what}")

    def _judged(self, verdict: Verdict, events: int, dead: int) -> Findings:
        found = self._findings
        found.events, found.duplicates = events, verdict.duplicates
        counts = verdict.counts | {"dead letters": dead, "publishers hung": self._fleet.too_slow}
        found.broken += [f"{count:,} {name}" for name, count in counts.items() if count]
        if events != len(self._sent):
            found.broken.append(f"{len(self._sent) - events:,} events not written")
        return found


@asynccontextmanager
async def _harmed(harm: AbstractContextManager[None]) -> AsyncGenerator[None]:
    """Enter and leave in a thread, since both wait for servers."""
    await asyncio.to_thread(harm.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(harm.__exit__, None, None, None)


async def _becomes(state: Callable[[], Awaitable[bool]]) -> bool:
    """Whether `state` becomes true in time."""
    deadline = monotonic() + _PATIENCE
    while not await state():
        if monotonic() > deadline:
            return False
        await asyncio.sleep(_LOOK)
    return True
