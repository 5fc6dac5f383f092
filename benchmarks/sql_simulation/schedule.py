"""One schedule: real sessions on a real server, in an order that a seed chooses."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from random import Random
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import psycopg

from dsql_outbox.operations import fills
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.outbox import Database
from dsql_outbox.schema import session
from dsql_outbox.writer import Writer

from .actors import ACTORS, SUBJECTS, Act, Publisher, World, event_of, lapse, new_event
from .expected import faults
from .rules import broken, broken_at_the_end
from .snapshot import snapshot
from .turns import NeverEnds, Turns, statements_in_turn

PLACE: Final = 4_000_000_000_000_000
"""The position of the first event of each subject, in microseconds: a time far ahead.

So the positions of a schedule depend on nothing but its order, and subjects share them.
"""

PUBLISHERS: Final = {"one", "two"}

_EVENTS: Final = 9
_LONG: Final = 3_600.0  # seconds: a schedule depends on no clock
_LOOK: Final = 0.001  # seconds between two looks of one who waits for another


class Verdict(NamedTuple):
    """What went wrong in a schedule, and the actors that had an answer in each of its turns."""

    broken: list[str]
    turns: list[str]


def verdict(seed: int, url: str) -> Verdict:
    """Run the schedule of a seed in a database with empty tables."""
    random = Random(seed)
    with ExitStack() as stack:
        monitor = stack.enter_context(psycopg.connect(url, autocommit=True))
        for of, name, value in (
            (operator_targets, "_LOOK", _LOOK),
            (fills, "PAGE_ROWS", random.choice([2, 3])),
            (fills, "LEASE", _LONG),
            (session, "STATEMENT_TIMEOUT", _LONG),
        ):
            stack.enter_context(patch.object(of, name, value))
        database = Database(url, opens_per_second=10_000)
        _begin(random, monitor, database)
        actors = [*ACTORS.values()][seed % len(ACTORS)]
        return asyncio.run(_Schedule(random, monitor, database, actors).run())


def _begin(random: Random, sql: psycopg.Connection[Any], database: Database) -> None:
    """Store some events, of which some are delivered. All subjects begin at one position."""
    with Writer(database) as writer:
        writer.write_many(event_of(random, [subject]) for subject in SUBJECTS)
        for table in ("entities", "business_events", "outbox"):
            sql.execute(f"UPDATE outbox.{table} SET position = %s".encode(), (PLACE,))
        events = [new_event(random) for _ in range(_EVENTS)]
        writer.write_many(events)
    gone = random.sample([event.id for event in events], random.randrange(_EVENTS))
    sql.execute("DELETE FROM outbox.outbox WHERE event_id = ANY(%s)", (gone,))


class _Schedule:
    """What runs, and what was wrong so far."""

    def __init__(
        self,
        random: Random,
        monitor: psycopg.Connection[Any],
        database: Database,
        actors: Sequence[tuple[str, Act]],
    ) -> None:
        self._random = random
        self._monitor = monitor
        self._actors = actors
        self._world = World(database, snapshot(monitor))
        self._world.move(self._world.before)
        self._broken: list[str] = []
        self._turns: list[str] = []

    async def run(self) -> Verdict:
        """Let all act."""
        random, world = self._random, self._world
        turns = Turns(random, self._monitor)
        for name in sorted(PUBLISHERS):
            turns.add(name, Publisher(world, name, Random(random.random())).act())
        for name, act in (*self._actors, ("lapse", lapse)):
            turns.add(name, act(world, Random(random.random())))
        with statements_in_turn():
            try:
                await turns.run(self._judge)
            except NeverEnds:
                self._broken.append("it does not end")
        if not self._broken:
            self._broken += [f"{a.name} failed: {a.error!r}" for a in turns.actors if a.error]
        if not self._broken:
            self._broken += broken_at_the_end(self._world.before)
        return Verdict(self._broken, self._turns)

    def _judge(self, acted: set[str]) -> bool:
        """Look at the tables after a turn of some actors. Returns whether all is well."""
        world, after = self._world, snapshot(self._monitor)
        self._turns.append(" ".join(sorted(acted)))
        self._broken += broken(world.history[0], world.before, after, world.done, acted)
        if acted <= PUBLISHERS:
            self._broken += faults(world.done, world.before, after)
        world.move(after)
        return not self._broken
