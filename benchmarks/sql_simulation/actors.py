"""The actors of a schedule: publishers, writers, operators, fills and forget jobs.

They use the classes of the library. A publisher settles any row that there is or was, and names
any epoch that it once had, as statements do that were sent long ago.
"""

# ruff: noqa: SLF001 - a publisher takes the plain forms without a refusal

from collections.abc import AsyncIterable, Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from math import inf
from random import Random
from typing import Any, Final
from uuid import UUID

from dsql_outbox.operations import Messages, Retention, Selection, Targets
from dsql_outbox.outbox import Database, Entity, Event, JobRefused, SettingsError
from dsql_outbox.publisher.leases.table import SqlLeaseTable
from dsql_outbox.publisher.relay.sql_store import SqlStore
from dsql_outbox.publisher.relay.store import (
    HEAD,
    Failure,
    PassedOver,
    Range,
    RowPlace,
    SubjectName,
)
from dsql_outbox.schema.burial import Letter
from dsql_outbox.schema.outbox_rows import RowId
from dsql_outbox.writer import AsyncWriter
from dsql_outbox.writer.tuned_settings import TunedSettings

from .expected import SETTINGS, WAITS, Done
from .snapshot import Snapshot, ours

SHARDS: Final = 2
SUBJECTS: Final = (("Car", "a"), ("Car", "b"), ("Van", "a"), ("Car", "c"), ("Van", "d"))
TOPICS: Final = ("t", "u")
TEXT: Final = {"text": "x"}

_NOBODY: Final = PassedOver({}, ())
_STEPS: Final = 12
_FAR: Final = 1 << 20  # bytes, or rows: no limit


class World:
    """What the actors share: the tables, and all rows that there ever were."""

    def __init__(self, database: Database, before: Snapshot) -> None:
        self.database = database
        self.before = before
        self.history: list[Snapshot] = []
        """The tables before each turn so far."""
        self.done: list[Done] = []
        self.rows: list[RowId] = []

    def move(self, after: Snapshot) -> None:
        """Go on with the tables as they are."""
        known = {*self.rows}
        self.rows += sorted(row for row in ours(after.outbox) if row not in known)
        self.history.append(after)
        self.before, self.done = after, []


def new_event(random: Random) -> Event:
    """An event of one subject, or of two entities."""
    return event_of(random, random.sample(SUBJECTS, random.choice([1, 1, 2])))


def event_of(random: Random, subjects: Sequence[tuple[str, str]]) -> Event:
    """An event of some subjects."""
    entities = [Entity(*subject, TEXT) for subject in subjects]
    new = UUID(int=random.getrandbits(128))
    return Event.new("Moved", entities, id=new, topic=random.choice(TOPICS))


class Publisher:
    """The statements of a publisher, in any order and with any rows."""

    def __init__(self, world: World, name: str, random: Random) -> None:
        self._world = world
        self._name = name
        self._random = random
        self._store = SqlStore(world.database)
        self._table = SqlLeaseTable(world.database, SETTINGS)
        self._epochs: list[tuple[int, int]] = []
        """Each lease that it ever had."""
        self.is_plain = self._store._is_refused = self._table._is_refused = random.random() < 0.3
        self._store._burial._is_refused = self.is_plain

    async def act(self) -> None:
        """Make some calls."""
        calls = self._random.choice(self._kinds)
        try:
            await self._store.open()
            for _ in range(_STEPS):
                await self._random.choice(calls)(self)
        finally:
            self._table.drop()
            await self._store.close()

    async def _call(self, what: str, *arguments: Any) -> Any:
        of: Any = self._table if hasattr(SqlLeaseTable, what) else self._store
        words = (self._name, *arguments) if of is self._table else arguments
        world, began = self._world, len(self._world.history) - 1
        options = {"calls": (), "is_aside": False} if what == "apply" else {}
        answer = await getattr(of, what)(*words, **options)
        seen = world.history[began if what == "read" and self.is_plain else -1 :]
        world.done.append(Done(self._name, what, arguments, answer, seen))
        return answer

    # --- rows ----------------------------------------------------------------------------

    def _some(self) -> list[RowId]:
        """Some rows, most of which are there."""
        there = sorted(ours(self._world.before.outbox))
        rows = there if there and self._random.random() < 0.8 else self._world.rows
        return self._random.sample(rows, min(len(rows), self._random.choice([1, 1, 2, 4])))

    async def _read(self) -> None:
        random, rows = self._random, self._world.rows
        passed = _NOBODY
        if random.random() < 0.5:
            subjects = random.sample(SUBJECTS, 2)
            since = {
                SubjectName(*s): random.choice([0, random.choice(rows).position]) for s in subjects
            }
            passed = PassedOver(since, random.sample(TOPICS, random.choice([0, 0, 1])))
        places = [HEAD, *(RowPlace(*row[1:]) for row in rows)]
        limits = [(_FAR, _FAR, 40), (2, _FAR, 40), (9, _FAR, 3)]
        ranges = [
            Range(shard, random.choice([HEAD, random.choice(places)]), *random.choice(limits))
            for shard in ([random.randrange(SHARDS)] if self.is_plain else range(SHARDS))
        ]
        await self._call("read", ranges, passed)

    async def _delete(self) -> None:
        await self._call("delete", self._some())

    async def _apply(self) -> None:
        await self._call("apply", self._some())

    async def _record(self) -> None:
        random = self._random
        tries = random.choice([1, 2, 3])
        await self._call(
            "record", [Failure(row, "no", tries, random.choice(WAITS)) for row in self._some()]
        )

    async def _forget(self) -> None:
        await self._call("forget", self._some())

    async def _bury(self) -> None:
        await self._call("bury", [Letter(row, "no", 2) for row in self._some()])

    async def _look(self) -> None:
        if self._random.random() < 0.5:
            await self._call("stored_failures", self._random.choice([[0], [1], [0, 1]]))
        else:
            await self._call("stored_waits", self._some())

    async def _sweep(self) -> None:
        await self._call("sweep")

    # --- leases --------------------------------------------------------------------------

    async def _take(self) -> None:
        leases = self._world.before.leases
        asked = {
            shard: max(0, leases[shard].epoch - self._random.choice([0, 0, 1]))
            for shard in range(SHARDS)
        }
        ended = {s: leases[s].expires_at for s in asked if self._random.random() < 0.2}
        ended = {shard: at for shard, at in ended.items() if at > -inf}
        taken = await self._call("take", asked, ended)
        self._epochs += [(shard, asked[shard] + 1) for shard in taken]

    async def _beat(self) -> None:
        if self._epochs:
            held = dict(self._random.sample(self._epochs, min(2, len(self._epochs))))
            what = ["renew", "release", *([] if self.is_plain else ["renew_and_look"] * 2)]
            await self._call(self._random.choice(what), held)

    _rows = (_read, _read, _delete, _apply, _record, _record, _record, _forget, _bury)
    _kinds = ((*_rows, _look, _look, _sweep), (*_rows, _look, _take), (_take, _beat, _beat))


async def write(world: World, random: Random) -> None:
    """Write events, one by one or several at once."""
    settings = random.choice([TunedSettings(form="single"), TunedSettings(form="plain")])
    async with AsyncWriter(world.database, settings) as writer:
        for _ in range(_STEPS // 2):
            if random.random() < 0.7:
                await writer.write(new_event(random))
            else:
                await writer.write_many([new_event(random) for _ in range(3)])


async def operate(world: World, random: Random) -> None:
    """Retry, replay and drop messages."""
    async with Messages(world.database) as tool:
        for _ in range(_STEPS // 2):
            events = sorted(world.before.events)
            ids = tuple(UUID(each) for each in random.sample(events, min(4, len(events))))
            acts: dict[str, AsyncIterable[Any]] = {
                "retry": tool.retry(Selection(ids=ids)),
                "replay": tool.replay(Selection(ids=ids)),
                "drop": tool.drop(Selection(state="failing", ids=ids)),
                "drop dead": tool.drop(Selection(state="dead", ids=ids[:1])),
            }
            async for _ in acts[random.choice([*acts])]:
                pass


async def fill(world: World, _: Random) -> None:
    """Add a target and fill it, as another actor does at the same time."""
    with suppress(SettingsError):  # it was dropped
        async with Targets(world.database) as targets:
            await targets.add("lake", from_start=True)


async def drop(world: World, random: Random) -> None:
    """Drop the target that others fill, and write an event that is not for it."""
    async with Targets(world.database) as targets:
        while "lake" not in world.before.targets:
            await targets.list()
        for _ in range(random.randrange(8)):
            await targets.list()
        await targets.drop("lake")
    async with AsyncWriter(world.database) as writer:
        await writer.write(event_of(random, SUBJECTS[:1]))


async def forget(world: World, _: Random) -> None:
    """Forget what was delivered, as another job may do at the same time."""
    with suppress(JobRefused):
        async with Retention(world.database) as tool:
            await tool.forget(datetime.now(UTC) + timedelta(1))


async def lapse(world: World, random: Random) -> None:
    """Let leases, fills and jobs end early, as if their owners had stood still."""
    connection = await world.database.connect_async()
    async with connection:
        await connection.set_autocommit(True)
        for _ in range(_STEPS):
            await connection.execute(random.choice(_LAPSES))


_LAPSES: Final[Sequence[Any]] = [
    f"UPDATE outbox.{table} SET expires_at = now() - interval '1 day' WHERE {which}"
    for table, which in (
        *(("outbox_leases", f"shard = {shard} AND owner IS NOT NULL") for shard in range(SHARDS)),
        ("outbox_fills", "state = 'filling'"),
        ("outbox_jobs", "owner IS NOT NULL"),
    )
]

Act = Callable[[World, Random], Coroutine[Any, Any, None]]

ACTORS: Final[dict[str, Sequence[tuple[str, Act]]]] = {
    "writing": (("writer", write), ("another writer", write)),
    "operating": (("operator", operate), ("another operator", operate), ("writer", write)),
    "filling": (("fill", fill), ("another fill", fill)),
    "filling beside a writer": (("fill", fill), ("another fill", fill), ("writer", write)),
    "dropping": (("fill", fill), ("drop", drop), ("writer", write)),
    "forgetting": (("forget", forget), ("another forget", forget), ("operator", operate)),
}
"""The actors beside publishers and lapses; of a schedule, the kind that its seed names by turns."""
