"""The harm that is done to publishers and servers, chosen by the seed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from time import time
from typing import Any, NamedTuple

from dsql_outbox.testing import EmbeddedPostgres, NatsServer

from .check import Pause
from .fleet import Fleet, Member, until

_KINDS = ("killed", "stopped", "restarted")
_AWAY = 4.0  # seconds, at most, until a killed publisher is restarted


class Harm(NamedTuple):
    """One harm to a publisher of a target: its kind, and its time in seconds since the epoch."""

    kind: str
    at: float
    target: str = "default"


class Nemesis:
    """Harms one publisher every `every` seconds, and takes each server down once."""

    def __init__(self, random: Random, fleet: Fleet, *, every: float, lease: float) -> None:
        self._random = random
        self._fleet = fleet
        self._every = every
        self._lease = lease
        self.harms: list[Harm] = []
        self.outages: dict[str, Pause] = {}

    async def harm_publishers(self, done: Callable[[], float]) -> None:
        """Harm publishers until the load is done, then wait until they have recovered."""
        async with asyncio.TaskGroup() as group:
            while done() < 1:
                await asyncio.sleep(self._every)
                if (harm := self._next()) is not None:
                    group.create_task(harm)

    async def take_down(
        self, done: Callable[[], float], database: EmbeddedPostgres, broker: NatsServer, down: float
    ) -> None:
        """Crash the database at a quarter of the load, and stop the broker at half of it.

        Each stays down for `down` seconds.
        """
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
        pause = self._random.random()  # drawn in every case, so that only the seed decides
        running = [member for member in self._fleet.members if member.runs and member.wanted]
        if not running:
            return None
        if kind == "stopped" and self._are_enough_stopped():
            kind = "killed" if pause < 0.5 else "restarted"
        member = self._random.choice(running)
        self.harms.append(Harm(kind, time(), member.target))
        return self._do(kind, member, pause)

    def _are_enough_stopped(self) -> bool:
        """Whether half of the publishers are stopped.

        A stop lasts longer than the time between harms. Without this limit, nearly
        all publishers would be stopped most of the time.
        """
        members = self._fleet.members
        return sum(member.stopped for member in members) >= max(1, len(members) // 2)

    def _do(self, kind: str, member: Member, pause: float) -> Awaitable[None]:
        if kind == "killed":
            return self._fleet.kill_one(member, pause * min(_AWAY, self._lease))
        if kind == "stopped":
            return self._fleet.stop_one(member, (1.2 + pause) * self._lease)
        return self._fleet.restart_one(member)


def times(harms: Iterable[Harm], *kinds: str) -> list[float]:
    """The times of the harms of these kinds to publishers of the default target."""
    return [harm.at for harm in harms if harm.kind in kinds and harm.target == "default"]
