"""What is done to publishers and servers, all chosen by the seed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from time import time
from typing import Any, NamedTuple

from dsql_outbox.testing import EmbeddedPostgres, NatsServer

from .check import Pause
from .fleet import Fleet, Member, until

_KINDS = ("killed", "stopped", "restarted")
_AWAY = 4.0  # seconds, at most, until a killed publisher is started anew


class Harm(NamedTuple):
    """What was done to a publisher, and when."""

    kind: str
    at: float


class Nemesis:
    """Harms one publisher every so many seconds, and takes both servers down once."""

    def __init__(self, random: Random, fleet: Fleet, *, every: float, lease: float) -> None:
        self._random = random
        self._fleet = fleet
        self._every = every
        self._lease = lease
        self.harms: list[Harm] = []
        self.outages: dict[str, Pause] = {}

    async def harm_publishers(self, done: Callable[[], float]) -> None:
        """Go on until the load is done, then let what was harmed recover."""
        async with asyncio.TaskGroup() as group:
            while done() < 1:
                await asyncio.sleep(self._every)
                if (harm := self._next()) is not None:
                    group.create_task(harm)

    async def take_down(
        self, done: Callable[[], float], database: EmbeddedPostgres, broker: NatsServer, down: float
    ) -> None:
        """The database crashes at a quarter of the load, the broker stops at half of it."""
        await self._outage("database", lambda: done() >= 0.25, database.kill, database.start, down)
        await self._outage("broker", lambda: done() >= 0.5, broker.stop, broker.start, down)

    async def _outage(
        self,
        name: str,
        is_time: Callable[[], bool],
        stop: Callable[[], Any],
        start: Callable[[], Any],
        down: float,
    ) -> None:
        await until(is_time)
        began = time()
        await asyncio.to_thread(stop)
        await asyncio.sleep(down)
        await asyncio.to_thread(start)
        self.outages[name] = Pause(began, time())

    def _next(self) -> Any:
        """The next harm as a coroutine; None when no publisher runs."""
        kind = self._random.choice(_KINDS)
        pause = self._random.random()  # drawn always, so that the seed alone decides
        running = [member for member in self._fleet.members if member.runs and member.wanted]
        if not running:
            return None
        if kind == "stopped" and self._are_enough_stopped():
            kind = "killed" if pause < 0.5 else "restarted"
        member = self._random.choice(running)
        self.harms.append(Harm(kind, time()))
        return self._do(kind, member, pause)

    def _are_enough_stopped(self) -> bool:
        """A stop lasts for many harms: without a limit all would be stopped nearly all the time."""
        members = self._fleet.members
        return sum(member.stopped for member in members) >= max(1, len(members) // 2)

    def _do(self, kind: str, member: Member, pause: float) -> Awaitable[None]:
        if kind == "killed":
            return self._fleet.kill_one(member, pause * min(_AWAY, self._lease))
        if kind == "stopped":
            return self._fleet.stop_one(member, (1.2 + pause) * self._lease)
        return self._fleet.restart_one(member)


def times(harms: Iterable[Harm], *kinds: str) -> list[float]:
    """When harms of these kinds were done."""
    return [harm.at for harm in harms if harm.kind in kinds]
