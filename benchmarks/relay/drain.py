"""The parts `drain` and `writes`: the cost of the relay itself, with a null sink."""

import asyncio
import cProfile
import pstats
import re
from collections.abc import Mapping
from time import perf_counter, process_time
from typing import NamedTuple
from uuid import UUID

import psycopg
from benchmarks.measure import Target, median_ratio, spread
from benchmarks.writer.statement_parameters import SHARDS

from dsql_outbox.outbox import Database, array_literal, plain_array
from dsql_outbox.publisher import Publisher, PublisherSettings
from dsql_outbox.schema import statement
from dsql_outbox.testing import EmbeddedPostgres, PostgresProxy

from .rows import BATCH, NullSink, Rows, changes, fill, new_database

SETTINGS = PublisherSettings(batch_rows=BATCH)
ON_OUTBOX = re.compile(r'^(?!.*outbox_failures).*"outbox"\.outbox\b', re.DOTALL)
"""Matches statements on table outbox, without those on failures, which run only seldom."""

_HEAD = (0, str(UUID(int=0)))


class Drained(NamedTuple):
    """The cost of emptying an outbox: rows per second, and CPU of this process per row in us."""

    rate: float
    cpu: float


def drain(server: EmbeddedPostgres, rows: int, rounds: int) -> list[Target]:
    """Compare the relay with a loop of the same two statements."""
    bare, relay = drained(server, rows, rounds)
    print(f"  bare select and delete        {spread([each.rate for each in bare])} rows/s")
    print(f"  relay to a null sink          {spread([each.rate for each in relay])} rows/s")
    ratio = median_ratio([each.rate for each in relay], [each.rate for each in bare])
    return [Target("drain / bare select and delete", ratio, 0.6)]


def drained(
    server: EmbeddedPostgres, rows: int, rounds: int
) -> tuple[list[Drained], list[Drained]]:
    """Drain by the bare loop and by the relay in turn, `rounds` times each."""
    bare: list[Drained] = []
    relay: list[Drained] = []
    url = new_database(server, "drain")
    for _ in range(rounds):
        for found, run in ((bare, _bare), (relay, drain_by_relay)):
            fill(url, Rows(rows))
            began, busy = perf_counter(), process_time()
            asyncio.run(run(url))
            took, worked = perf_counter() - began, process_time() - busy
            found.append(Drained(rows / took, worked / rows * 1e6))
    return bare, relay


def writes(server: EmbeddedPostgres, rows: int) -> list[Target]:
    """Count row changes, and statements per batch as sent over the wire."""
    url = new_database(server, "writes")
    fill(url, Rows(rows))
    with PostgresProxy(url) as proxy:
        asyncio.run(drain_by_relay(proxy.url))
        touching = [text for text in proxy.statements if ON_OUTBOX.search(text)]
    inserted, deleted, updated = changes(url, (rows, rows, 0))
    print(f"  {rows:,} rows: {inserted:,} inserted, {deleted:,} deleted, {updated:,} updated")
    print(f"  {len(touching):,} statements on the outbox")
    # Three statements belong to no batch: the query for failed messages at the start, the last
    # read, which finds nothing, and the query that confirms that the outbox is empty.
    a_batch = (len(touching) - 3) / (rows / BATCH)
    return [
        Target("rows not inserted exactly once", abs(inserted - rows), 0, most=True),
        Target("rows not deleted exactly once", abs(deleted - rows), 0, most=True),
        Target("rows updated", updated, 0, most=True),
        Target("statements a batch", a_batch, 2, most=True),
    ]


def profile(server: EmbeddedPostgres, rows: int) -> None:
    """Print a profile of a drain."""
    url = new_database(server, "profile")
    fill(url, Rows(rows))
    profiler = cProfile.Profile()
    profiler.runcall(asyncio.run, drain_by_relay(url))
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(30)


async def drain_by_relay(url: str) -> None:
    """Relay all rows to a null sink."""
    await Publisher(Database(url), NullSink(), SETTINGS).run(until_empty=True)


async def _bare(url: str) -> None:
    """Read by key and delete these rows, on one connection, until the outbox is empty."""
    read, delete = statement("outbox_read", "outbox"), statement("outbox_delete", "outbox")
    places = dict.fromkeys(range(SHARDS), _HEAD)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while True:
            found = await (await connection.execute(read, _bounds(places))).fetchall()
            rows = [row for row in found if row[-1] is None]  # the others are the ends of ranges
            if not rows:
                return
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
        "passed": "{}",
        "topics": "{}",
    }
