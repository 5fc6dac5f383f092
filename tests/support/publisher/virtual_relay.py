"""The real relay in virtual time, on one shard in memory: its statements are counted."""

import asyncio
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import Any, Final, TypeVar

import anyio
import psycopg
from benchmarks.simulation.virtual_loop import VirtualLoop

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer, Delivered, MessageMap, PublisherSettings, Sink
from dsql_outbox.publisher.message_map import Mapper
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.relay.store import (
    Failure,
    PassedOver,
    Range,
    RangeRead,
    Reading,
    RowPlace,
    StoredFailure,
    StoredWait,
)
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.burial import Letter
from dsql_outbox.schema.outbox_rows import ROW_COLUMNS, OutboxRow, RawRow, RowId

T = TypeVar("T")

DEADLINE: Final = 10.0
"""Seconds that a read may take."""

STATEMENT: Final = 0.002
"""Seconds that each statement takes."""


class Clock:
    """The virtual time. What blocks the loop puts it forward."""

    def __init__(self, now: float) -> None:
        self.now = now


def in_virtual_time(
    work: Coroutine[Any, Any, T], now: float = 0.0, clock: Clock | None = None
) -> T:
    """Run a coroutine to its end, from `now` on; a wait takes no time. Raises its error."""
    time = clock or Clock(now)
    loop = VirtualLoop(lambda: time.now)
    task = loop.create_task(work)
    while not task.done():
        time.now = max(time.now, loop.due())
        loop.step()
    assert not loop.errors
    return task.result()


class MemoryOutbox:
    """A `Store` of one shard; `statements` counts the calls by their names.

    `returned` has the bytes of the payloads of each read. The link carries `bandwidth` bytes
    per second.
    """

    def __init__(self, bandwidth: float = math.inf) -> None:
        self._bandwidth = bandwidth
        self.rows: dict[RowId, OutboxRow] = {}
        self.failures_of: dict[RowId, Failure] = {}
        self.letters: list[Letter] = []
        self.statements: Counter[str] = Counter()
        self.returned: list[int] = []
        self.asked_waits: list[int] = []
        """How many rows each of `waits` asked for."""
        self._keys: list[RowId] = []

    def insert(self, rows: Sequence[OutboxRow]) -> None:
        """Commit rows."""
        self.rows |= {row.id: row for row in rows}
        self._keys += [row.id for row in rows]
        self._keys.sort()

    async def read(self, ranges: Sequence[Range], passed: PassedOver) -> Reading:
        """See `Store.read`."""
        await self._statement("read")
        found = [self._range(each, passed) for each in ranges]
        size = sum(map(_payload_size, (row for each in found for row in each.rows)))
        seconds = size / self._bandwidth
        await asyncio.sleep(min(seconds, DEADLINE))
        if seconds > DEADLINE:
            raise psycopg.OperationalError("no answer before the deadline")
        self.returned.append(size)
        return Reading(round(asyncio.get_running_loop().time() * 1e6), found)

    async def delete(self, rows: Collection[RowId]) -> int:
        """See `Store.delete`."""
        await self._statement("delete")
        for row in rows:
            del self.rows[row]
            del self._keys[bisect_left(self._keys, row)]
        return len(rows)

    async def record(self, failures: Collection[Failure]) -> None:
        """See `Store.record`."""
        await self._statement("record")
        self.failures_of |= {each.row: each for each in failures}

    async def bury(self, letters: Collection[Letter]) -> None:
        """See `Store.bury`."""
        await self._statement("bury")
        self.letters += letters
        await self.delete([letter.row for letter in letters])

    async def forget(self, rows: Collection[RowId]) -> None:
        """See `Store.forget`."""
        await self._statement("forget")
        for row in rows:
            self.failures_of.pop(row, None)

    async def stored_failures(self, _shards: Collection[int]) -> Sequence[StoredFailure]:
        """See `Store.stored_failures`: there is none at the start."""
        await self._statement("failures")
        return []

    async def stored_waits(self, rows: Collection[RowId]) -> Mapping[RowId, StoredWait]:
        """See `Store.stored_waits`; the waits are long."""
        await self._statement("waits")
        self.asked_waits.append(len(rows))
        known = self.failures_of
        return {row: StoredWait(known[row].attempts, 1e6) for row in rows if row in known}

    async def paused_topics(self) -> Mapping[str, str]:
        """See `Store.paused_topics`: none is paused."""
        await self._statement("paused_topics")
        return {}

    async def _statement(self, name: str) -> None:
        self.statements[name] += 1
        await asyncio.sleep(STATEMENT)

    def _range(self, of: Range, passed: PassedOver) -> RangeRead:
        found: list[RawRow] = []
        first = bisect_right(self._keys, RowId(of.shard, *of.after))
        keys = self._keys[first : first + of.visits]
        subjects, topics = passed
        size = 0
        for n, key in enumerate(keys):
            row = self.rows[key]
            # A plain tuple equals the `SubjectName`, and is made in a tenth of the time.
            since = subjects.get((row.subject_type, row.subject_id))  # type: ignore[call-overload]
            if row.topic not in topics and (since is None or row.position < since):
                size += len(row.payload)
                if found and (len(found) == of.rows or size > of.size):
                    return RangeRead(found, _end(keys[:n], of), is_cut=True)
                found.append(self._as_read(row))
        return RangeRead(found, _end(keys, of), is_cut=len(keys) == of.visits)

    def _as_read(self, row: OutboxRow) -> RawRow:
        before = bisect_right(self._keys, row.previous_position, key=attrgetter("position"))
        key = self._keys[before - 1] if before else None
        row.predecessor = key is not None and 0 < row.previous_position == key.position
        return row.raw


def _payload_size(row: RawRow) -> int:
    return len(row[1 + ROW_COLUMNS.index("payload")])


def _end(looked: Sequence[RowId], of: Range) -> RowPlace:
    """Where a read of `looked` has ended."""
    return RowPlace(*looked[-1][1:]) if looked else of.after


class OneShard:
    """The lease of shard 0, which never ends."""

    def usable(self) -> Mapping[int, int]:
        """See `Leases`."""
        return {0: 1}

    def may_send(self, _shard: int, _epoch: int) -> bool:
        """See `Leases`."""
        return True

    has_lease = may_send

    def lease_scope(
        self, _epochs: Callable[[], Mapping[int, int]], /
    ) -> AbstractContextManager[anyio.CancelScope]:
        """See `Leases`."""
        return anyio.CancelScope()

    def note_idle_shard(self) -> None:
        """See `Leases`."""

    note_sink_failure = note_sink_answer = note_idle_shard


class Answering:
    """A sink that answers for each message after some seconds; infinity: never."""

    system = "memory"

    def __init__(self, seconds: Callable[[Message], float]) -> None:
        self._seconds = seconds
        self.delivered: list[Message] = []

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """See `Sink.publish`."""

        async def one(index: int, message: Message) -> None:
            await anyio.sleep(self._seconds(message))
            self.delivered.append(message)
            answer(index, Delivered())

        async with anyio.create_task_group() as tasks:
            for index, message in enumerate(messages):
                tasks.start_soon(one, index, message)


async def relay_until(
    store: MemoryOutbox,
    sink: Sink,
    done: Callable[[], bool],
    *,
    settings: PublisherSettings | None = None,
    map: MessageMap | None = None,  # noqa: A002 - as `Publisher` calls it
    beside: Callable[[Relay], Coroutine[Any, Any, None]] | None = None,
) -> float:
    """Relay until `done`, within 600 s of virtual time; `beside` runs beside it.

    Returns after how many seconds it was done.
    """
    chosen = TunedSettings.of(settings or PublisherSettings())
    mapper = None if map is None else Mapper(map, (), chosen, sink)
    relay = Relay(store, sink, chosen, OneShard(), mapper=mapper)  # type: ignore[arg-type]
    began = anyio.current_time()
    with anyio.fail_after(600):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(relay.run)
            if beside is not None:
                tasks.start_soon(beside, relay)
            while not done():  # noqa: ASYNC110 - the time is virtual
                await anyio.sleep(0.01)
            seconds = anyio.current_time() - began
            tasks.cancel_scope.cancel()
    return seconds
