"""The statements of the relay: for failures, and while it is idle."""

import asyncio
from collections.abc import Sequence
from time import perf_counter

from benchmarks.measure import cpu_of_sessions
from benchmarks.relay.drain import ON_OUTBOX
from benchmarks.relay.rows import NullSink, Rows, fill, new_database
from benchmarks.writer.statement_parameters import SHARDS
from tests.support.proxy.postgres_proxy import PostgresProxy

from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import Answer, Delivered, Publisher, PublisherSettings, Retry
from dsql_outbox.publisher.relay.sql_store import SqlStore
from dsql_outbox.publisher.relay.store import HEAD, PassedOver, Range

from .conditions import Conditions

_FAILURES = 500
_READS = 8
_SETTLED = 3.0  # seconds until an idle publisher waits `idle_max` between reads
_IDLE = PublisherSettings(lease=10 / 3)  # more beats in the same time
_POLL = 0.005
_WARM = 10  # reads until the statement is prepared
_MEASURED = 2_000


class _Together:
    """A sink that delivers healthy messages, and fails `number` others at the same moment."""

    system = "null"

    def __init__(self, number: int) -> None:
        self._left = number
        self._all = asyncio.Event()

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        bad = [message.key.startswith("Car/BAD-") for message in messages]
        for index, is_bad in enumerate(bad):
            if not is_bad:
                answer(index, Delivered())
        self._left -= sum(bad)
        if self._left <= 0:
            self._all.set()
        if any(bad):
            await self._all.wait()
        for index, is_bad in enumerate(bad):
            if is_bad:
                answer(index, Retry("no"))


def failures(conditions: Conditions) -> list[float]:
    """Statements that record 500 failures, and that bury 500 rows."""
    recorded = asyncio.run(_failed(conditions, PublisherSettings()))
    buried = asyncio.run(_failed(conditions, PublisherSettings(attempts=1)))
    return [
        sum("INSERT INTO" in text and "outbox_failures" in text for text in recorded),
        sum("dead_letters" in text for text in buried),
    ]


def idle(conditions: Conditions) -> list[float]:
    """Reads per minute of an idle publisher, its lease statements per beat, and what a read costs.

    That is in microseconds of the server's CPU, for the 16 shards of an empty outbox.
    """
    return [*asyncio.run(_idle(conditions)), asyncio.run(_cost_of_a_read(conditions))]


async def _failed(conditions: Conditions, settings: PublisherSettings) -> list[str]:
    url = new_database(conditions.server, "failures")
    fill(url, Rows(4 * _FAILURES))  # after so many answers its topic may have 500 on their way
    fill(url, Rows(_FAILURES, name="BAD-"))
    with PostgresProxy(url) as proxy:
        publisher = Publisher(Database(proxy.url), _Together(_FAILURES), settings)
        done = await publisher.run(until_empty=True, max_wait=0)
        if done.failed + done.dead != _FAILURES:
            raise RuntimeError(f"{done.failed} rows failed and {done.dead} died: not {_FAILURES}")
        return proxy.statements


async def _idle(conditions: Conditions) -> list[float]:
    url = new_database(conditions.server, "idle")
    with PostgresProxy(url) as proxy:
        async with Publisher(Database(proxy.url), NullSink(), _IDLE):
            await asyncio.sleep(_SETTLED)
            proxy.reset_counts()
            at: list[float] = []
            while len(at) <= _READS:
                await asyncio.sleep(_POLL)
                seen = sum(map(bool, map(ON_OUTBOX.search, proxy.statements)))
                at += [perf_counter()] * (seen - len(at))
            statements = proxy.statements
    leases = [text for text in statements if "outbox_leases" in text or "outbox_publish" in text]
    beats = sum("renewed" in text for text in leases)
    a_minute = (len(at) - 1) / (at[-1] - at[0]) * 60
    return [a_minute, len(leases) / beats if beats else float("inf")]


async def _cost_of_a_read(conditions: Conditions) -> float:
    url = new_database(conditions.server, "idle_read")
    ranges = [Range(shard, HEAD, 31, 1 << 19, 1_000) for shard in range(SHARDS)]
    store = SqlStore(Database(url))
    try:
        for number in range(_WARM + _MEASURED):
            if number == _WARM:
                before = cpu_of_sessions(url)
            await store.read(ranges, PassedOver({}, ()))
        return (cpu_of_sessions(url) - before) / _MEASURED * 1e6
    finally:
        await store.close()
