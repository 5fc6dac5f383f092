"""How late rows are: at a take-over, with clocks that differ, and when connections fall silent."""

import asyncio
import statistics
from time import perf_counter

import psycopg
from benchmarks.relay.doorbell import hold
from benchmarks.relay.rows import Rows, arrive, new_database
from tests.support.proxy.postgres_proxy import PostgresProxy

from dsql_outbox.observability.facts import Fact, ShardsChanged
from dsql_outbox.publisher import PublisherSettings

from .conditions import Conditions
from .trial import TrialSink, publishing

_ROWS = 500
_HOUR = 3600.0
_WARM = 2.0  # seconds until a publisher has read what waited at its start
_TICK = 0.05  # seconds between arrivals
_TICK_ROWS = 10
_AHEAD_HELD = 30_000
_QUICK = PublisherSettings(lease=2)

_CRASHED = """
UPDATE outbox.outbox_leases SET owner = 'crashed', epoch = epoch + 1,
  expires_at = clock_timestamp() + interval '1 second'
"""


def gap(conditions: Conditions) -> list[float]:
    """Seconds from a take-over until the rows that were written before it are delivered."""
    return [asyncio.run(_gap(conditions))]


def ahead(conditions: Conditions) -> list[float]:
    """The p50 in seconds of rows with a position an hour ahead."""
    return [asyncio.run(_ahead(conditions))]


def silent(conditions: Conditions) -> list[float]:
    """Seconds beyond the lease that rows wait when all connections fall silent."""
    return [asyncio.run(_silent(conditions)) - _QUICK.lease]


async def _gap(conditions: Conditions) -> float:
    url = new_database(conditions.server, "gap")
    hold(url, conditions.sizes.held)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_CRASHED)
        arrive(connection, Rows(_ROWS))
    taken: list[float] = []

    def note(fact: Fact) -> None:
        if isinstance(fact, ShardsChanged) and fact.owned:
            taken.append(perf_counter())

    sink = TrialSink()
    last = await publishing(url, sink, lambda: sink.until(_ROWS), settings=_QUICK, hooks=[note])
    return last - taken[0] if taken else float("inf")


async def _ahead(conditions: Conditions) -> float:
    url = new_database(conditions.server, "ahead")
    hold(url, _AHEAD_HELD)
    sink = TrialSink()
    committed: dict[str, float] = {}

    async def body() -> float:
        await asyncio.sleep(_WARM)
        with psycopg.connect(url, autocommit=True) as connection:
            for n in range(round(conditions.sizes.seconds / _TICK)):
                rows = Rows(_TICK_ROWS, name=f"CAR-{n}-", ahead=_HOUR)
                await asyncio.to_thread(arrive, connection, rows)
                committed.update((f"Car/{rows.name}{k}", perf_counter()) for k in range(_TICK_ROWS))
                await asyncio.sleep(_TICK)
        return await sink.until(len(committed))

    ended = await publishing(url, sink, body)
    at = {key: delivered for delivered, key in sink.delivered}
    return statistics.median(at.get(key, ended) - begun for key, begun in committed.items())


async def _silent(conditions: Conditions) -> float:
    url, sink = new_database(conditions.server, "silent"), TrialSink()
    with PostgresProxy(url) as proxy, psycopg.connect(url, autocommit=True) as connection:

        async def body() -> float:
            arrive(connection, Rows(_ROWS))
            await sink.until(_ROWS)
            proxy.silence_all()
            arrive(connection, Rows(_ROWS, name="LATER-"))
            began = perf_counter()
            return await sink.until(2 * _ROWS) - began

        return await publishing(proxy.url, sink, body, settings=_QUICK)
