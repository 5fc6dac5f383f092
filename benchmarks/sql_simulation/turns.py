"""One statement at a time, of many sessions on a real server, in an order that a seed chooses.

An actor is a task that uses the library as it is. It waits before each of its statements until it
has the turn. A statement that meets another session's lock is left waiting, and the sessions that
hold the lock go on. So a schedule depends on its seed only.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from random import Random
from typing import Any, Final, Literal
from unittest.mock import patch

import psycopg

from dsql_outbox.outbox.database.connection import AsyncConnection

_SOON: Final = 0.003
"""Seconds in which a statement that meets no lock usually has its answer."""

_PATIENCE: Final = 10.0
"""Seconds in which an actor ends by itself when the schedule is over."""

_MOST: Final = 3_000
"""The turns after which a schedule does not end."""

_BLOCKED: Final = "SELECT pid, pg_blocking_pids(pid) FROM pg_locks WHERE NOT granted"

_acting: ContextVar["Actor"] = ContextVar("acting")


State = Literal["works", "waits", "sent", "answered", "ended"]
"""An actor works on its own; it waits for a turn; its statement was sent; that has its answer, and
the actor waits for those before it; or it has ended."""


class NeverEnds(Exception):
    """The actors go on and on."""


class Actor:
    """A task whose statements wait for their turn."""

    def __init__(self, name: str, changed: asyncio.Event) -> None:
        self.name = name
        self.state: State = "works"
        self.pid = 0
        """The session of its last statement."""
        self.is_blocked = False
        """Whether its statement has met a lock."""
        self.has_answer = False
        """Whether a statement of it ended in this turn."""
        self.is_free = False
        """Whether it goes on without turns: the schedule is over."""
        self.error: Exception | None = None
        self._changed = changed
        self._turn = asyncio.Event()

    async def run(self, act: Coroutine[Any, Any, None]) -> None:
        """Do what it does."""
        _acting.set(self)
        try:
            await act
        except Exception as error:  # noqa: BLE001 - the judge names it
            self.error = error
        finally:
            self.become("ended")

    def become(self, state: State) -> None:
        """Reach another state."""
        self.state = state
        self._changed.set()

    async def stand(self, state: Literal["waits", "answered"]) -> None:
        """Wait for the turn."""
        if self.is_free:
            return
        self._turn.clear()
        self.become(state)
        await self._turn.wait()

    def go(self) -> None:
        """Give it the turn."""
        self.become("works")
        self._turn.set()


@contextmanager
def statements_in_turn() -> Generator[None]:
    """Let each exchange of an actor with the server wait for its turn."""
    right: Any = AsyncConnection.wait

    async def wait(connection: AsyncConnection, *args: Any, **options: Any) -> Any:
        actor = _acting.get(None)
        if actor is None:
            return await right(connection, *args, **options)
        await actor.stand("waits")
        actor.pid = connection.pgconn.backend_pid
        actor.become("sent")
        try:
            return await right(connection, *args, **options)
        finally:
            actor.has_answer = True
            if actor.is_blocked:  # the answer of the session that it waited for comes first
                actor.is_blocked = False
                await actor.stand("answered")
            actor.become("works")

    with patch.object(AsyncConnection, "wait", wait):
        yield


class Turns:
    """The actors of one schedule. `monitor` sees which sessions wait for a lock."""

    def __init__(self, random: Random, monitor: psycopg.Connection[Any]) -> None:
        self._random = random
        self._monitor = monitor
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.actors: list[Actor] = []

    def add(self, name: str, act: Coroutine[Any, Any, None]) -> None:
        """Add an actor."""
        actor = Actor(name, self._changed)
        self.actors.append(actor)
        self._tasks.append(asyncio.create_task(actor.run(act)))

    async def run(self, judge: Callable[[set[str]], bool]) -> None:
        """Let all actors act. Raises `NeverEnds`.

        `judge` is called after each turn, with the actors that had an answer in it. It says whether
        they may go on.
        """
        try:
            await self._rest()
            for _ in range(_MOST):
                waiting = self._may_go()
                if waiting:
                    for actor in self.actors:
                        actor.has_answer = False
                    self._random.choice(waiting).go()
                    await self._rest()
                    if not judge({actor.name for actor in self.actors if actor.has_answer}):
                        return
                elif all(actor.state == "ended" for actor in self.actors):
                    return
                else:  # a deadlock, which the server ends
                    await self._changes(1.0)
                    await self._rest()
            raise NeverEnds
        finally:
            for actor in self.actors:
                actor.is_free = True
                actor.go()
            # Each ends by itself and closes its connections, unless a defect keeps it.
            _, left = await asyncio.wait(self._tasks, timeout=_PATIENCE)
            for task in left:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _may_go(self) -> Sequence[Actor]:
        """Those that wait for a turn; if a statement waits for a lock, those that have it."""
        waiting = [actor for actor in self.actors if actor.state == "waits"]
        if any(actor.is_blocked for actor in self.actors):
            holding = {pid for _, pids in self._blocked() for pid in pids}
            waiting = [actor for actor in waiting if actor.pid in holding]
        return waiting

    async def _rest(self) -> None:
        """Wait until each actor waits for a turn or for a lock, or has ended."""
        while True:
            at_work = [actor for actor in self.actors if actor.state in {"works", "sent"}]
            if at_work and (await self._changes(_SOON) or not self._are_blocked(at_work)):
                continue
            answered = [actor for actor in self.actors if actor.state == "answered"]
            if not answered:
                return
            answered[0].go()

    def _are_blocked(self, actors: Sequence[Actor]) -> bool:
        """Whether the statement of each waits for a lock."""
        blocked = {pid for pid, _ in self._blocked()}
        for actor in actors:
            actor.is_blocked = actor.state == "sent" and actor.pid in blocked
        return all(actor.is_blocked for actor in actors)

    async def _changes(self, seconds: float) -> bool:
        """Wait until an actor changes its state, for so long at most."""
        self._changed.clear()
        with suppress(TimeoutError):
            return await asyncio.wait_for(self._changed.wait(), seconds)
        return False

    def _blocked(self) -> Sequence[Any]:
        return self._monitor.execute(_BLOCKED).fetchall()
