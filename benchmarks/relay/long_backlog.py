"""The parts `backlog` and `memory`: a publisher's time per batch and memory, at a long backlog."""

import asyncio
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter, sleep

import psycopg
from benchmarks.measure import Target
from benchmarks.writer.load_million import GROWTH, LIMIT, Memory

from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Publisher
from dsql_outbox.testing import EmbeddedPostgres

from .drain import SETTINGS
from .rows import BATCH, NullSink, Rows, fill, new_database

_WARM = 7
"""Rounds before the measured ones: the driver prepares a statement at its sixth execution."""

_MEASURED = 9
"""Measured rounds; with those before, fewer than the batches of the short backlog."""

_SUSTAINED = 100
"""Rounds at most, enough that some read the heads of the shards again, where dead rows are."""


def backlog(server: EmbeddedPostgres, rows: int, dead: int) -> list[Target]:
    """Compare a batch at a long backlog with one at a short backlog, and with many dead rows."""
    long = new_database(server, "backlog_long")
    fill(long, Rows(rows))
    short = new_database(server, "backlog_short")
    few_rows = max(rows // 100, (_WARM + _MEASURED + 2) * BATCH)
    fill(short, Rows(few_rows))
    took = asyncio.run(_by_turns(long, short))
    few, many = (statistics.median(found) * 1000 for found in (took[short], took[long]))
    print(f"  batch at {few_rows:,} rows {few:.2f} ms, at {rows:,} rows {many:.2f} ms")
    left = rows - dead - (_WARM + _MEASURED) * BATCH
    rounds = min(_SUSTAINED, left // (3 * BATCH) - _WARM - 1)
    fresh = asyncio.run(_sustained(long, rounds))
    with _old_snapshot(long):
        _delete_oldest(long, dead)
        burdened = asyncio.run(_sustained(long, rounds))
    with psycopg.connect(long, autocommit=True) as connection:
        connection.execute("VACUUM outbox.outbox")
    fresh += asyncio.run(_sustained(long, rounds))
    print(f"  batch, {_both(fresh)}; with dead rows {_both(burdened)}")
    # The mean, not the median: only the few rounds that read heads again pay for dead rows.
    burden = statistics.mean(burdened) / statistics.mean(fresh)
    return [
        Target(f"batch at {rows:,} / at {few_rows:,} rows", many / few, 1.2, most=True),
        Target(f"batch with {dead:,} dead rows / without", burden, 1.3, most=True),
    ]


def memory(server: EmbeddedPostgres, rows: int, seconds: float) -> list[Target]:
    """Measure the memory of ``dsql-outbox publish`` while it relays a long backlog."""
    url = new_database(server, "memory")
    fill(url, Rows(rows))
    words = ["publish", "--database", url, "--sink", "stdout:"]
    with subprocess.Popen(
        [sys.executable, "-m", "dsql_outbox", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        with Memory(process.pid) as found:
            try:
                sleep(seconds)  # not a wait for something: the memory is sampled meanwhile
            finally:
                process.send_signal(signal.SIGTERM)
        process.wait()
    with psycopg.connect(url) as connection:
        ((left,),) = connection.execute("SELECT count(*) FROM outbox.outbox").fetchall()
    print(f"  {rows:,} rows waited, {left:,} were left; growth {found.growth:+.1%}")
    return [
        Target("resident memory", found.peak, LIMIT, most=True, unit=" MiB"),
        Target("growth of memory", found.growth, GROWTH, most=True),
    ]


async def _by_turns(*urls: str) -> dict[str, list[float]]:
    """The seconds per round, per database; the databases take turns."""
    publishers = {url: Publisher(Database(url), NullSink(), SETTINGS) for url in urls}
    took: dict[str, list[float]] = {url: [] for url in urls}
    for _ in range(_WARM + _MEASURED):
        for url, publisher in publishers.items():
            took[url].append(await _timed(publisher))
    for publisher in publishers.values():
        await publisher.close()
    return {url: found[_WARM:] for url, found in took.items()}


async def _sustained(url: str, rounds: int) -> list[float]:
    """The seconds per round, of rounds one after the other."""
    async with Publisher(Database(url), NullSink(), SETTINGS) as publisher:
        for _ in range(_WARM):
            await publisher.run_once()
        return [await _timed(publisher) for _ in range(rounds)]


async def _timed(publisher: Publisher) -> float:
    began = perf_counter()
    done = await publisher.run_once()
    took = perf_counter() - began
    if not done.delivered:
        raise RuntimeError("a round delivered nothing: the backlog is too short")
    return took


@contextmanager
def _old_snapshot(url: str) -> Iterator[None]:
    """Hold an old snapshot, so that the server cannot remove deleted rows during the block."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM outbox.outbox_leases")
        yield
        connection.execute("COMMIT")


def _both(seconds: Sequence[float]) -> str:
    mean, median = statistics.mean(seconds), statistics.median(seconds)
    return f"mean {mean * 1000:.2f} ms, median {median * 1000:.2f} ms"


def _delete_oldest(url: str, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "DELETE FROM outbox.outbox WHERE (shard, position, event_id) IN"
            " (SELECT shard, position, event_id FROM outbox.outbox ORDER BY position LIMIT %s)",
            [rows],
        )
