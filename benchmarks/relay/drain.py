"""A drain by the relay, and by a bare loop of the same statements."""

import re
from collections.abc import Mapping, Sequence
from time import perf_counter, process_time
from typing import NamedTuple
from uuid import UUID

import psycopg
from benchmarks.telemetry import metered
from benchmarks.writer.statement_parameters import SHARDS

from dsql_outbox.observability import Hook
from dsql_outbox.outbox import Database, Message
from dsql_outbox.outbox.database.array_literals import array_literal, plain_array
from dsql_outbox.publisher import Answer, Publisher, Sink
from dsql_outbox.publisher.relay.store import LAST
from dsql_outbox.publisher.sinks.port import keeps_prefix
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.named_statements import statement

from .rows import BATCH, NullSink

SETTINGS = TunedSettings(batch_rows=BATCH)
ON_OUTBOX = re.compile(r'^(?!.*outbox_failures).*"outbox"\.outbox\b', re.DOTALL)
"""Matches statements on table outbox, without those on failures, which run only seldom."""

_HEAD = (0, str(UUID(int=0)))


class Drained(NamedTuple):
    """The cost of emptying an outbox: rows per second, and CPU of this process per row in us."""

    rate: float
    cpu: float


class Laps:
    """The time and the CPU between the first page of a drain and the last.

    The start is left out: imports, connections, leases, and the first read.
    """

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._last = 0.0, 0.0
        self.rows = 0
        """How many rows came after the first page."""

    def note(self, rows: int) -> None:
        """Record that so many rows are through."""
        self._last = perf_counter(), process_time()
        if self._first is None:
            self._first = self._last
        else:
            self.rows += rows

    @property
    def drained(self) -> Drained:
        """The cost. Raises `RuntimeError` if only one page came."""
        if self._first is None or not self.rows:
            raise RuntimeError("too few rows to measure a drain")
        took, busy = (last - first for first, last in zip(self._first, self._last, strict=True))
        return Drained(self.rows / took, busy / self.rows * 1e6)


class LapSink:
    """A sink that notes each call which has ended, and takes runs if `inner` does."""

    def __init__(self, inner: Sink) -> None:
        self._inner = inner
        self.system = inner.system
        self.keeps_prefix = keeps_prefix(inner)
        self.laps = Laps()

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        await self._inner.publish(messages, answer)
        self.laps.note(len(messages))


async def drain_by_relay(
    url: str, sink: Sink | None = None, *, metrics: bool = True, hooks: Sequence[Hook] = ()
) -> Drained:
    """Relay all rows to a sink, by default to one that drops them."""
    timed = LapSink(sink or NullSink())
    with metered() as meter:
        used = [meter, *hooks] if metrics else hooks
        await Publisher(Database(url), timed, SETTINGS, hooks=used).run(until_empty=True)
    return timed.laps.drained


async def drain_by_loop(url: str) -> Drained:
    """Read by key and delete these rows, on one connection, until the outbox is empty."""
    read, delete = statement("outbox_read", "outbox"), statement("outbox_delete", "outbox")
    places, laps = dict.fromkeys(range(SHARDS), _HEAD), Laps()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while True:
            found = await (await connection.execute(read, _bounds(places))).fetchall()
            rows = [row for row in found if row[-1] is None]  # the others are the ends of ranges
            if not rows:
                return laps.drained
            laps.note(len(rows))
            places |= {row[1]: (row[2], row[3]) for row in found if row[-1] is not None}
            await connection.execute(
                delete,
                {
                    "shards": array_literal(row[1] for row in rows),
                    "positions": array_literal(row[2] for row in rows),
                    "event_ids": array_literal(row[3] for row in rows),
                },
            )


def _bounds(places: Mapping[int, tuple[int, str]]) -> dict[str, str]:
    """The parameters of a read that passes nothing over."""
    each = BATCH // SHARDS
    return {
        "numbers": plain_array(places),
        "shards": plain_array(places),
        "positions": plain_array(position for position, _ in places.values()),
        "event_ids": plain_array(event_id for _, event_id in places.values()),
        "rows": plain_array(each for _ in places),
        "sizes": plain_array(SETTINGS.batch_bytes // SHARDS for _ in places),
        "visits": plain_array(each for _ in places),
        "untils": plain_array(LAST.position for _ in places),
        "passed": "{}",
        "topics": "{}",
    }
