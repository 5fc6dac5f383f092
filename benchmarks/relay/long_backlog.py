"""The parts `backlog` and `memory`: a publisher's time per batch and memory, at a long backlog."""

import asyncio
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from time import perf_counter, sleep

import psycopg
from benchmarks.measure import Target
from benchmarks.writer.load_million import GROWTH, LIMIT, Memory

from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import Answer, Publisher
from dsql_outbox.testing import EmbeddedPostgres

from .drain import SETTINGS
from .rows import BATCH, NullSink, Rows, fill, new_database

_WARM = 7
"""Batches before the measured ones: the driver prepares a statement at its sixth execution."""

_MEASURED = 9
"""Measured batches; with those before, fewer than the batches of the short backlog."""

_SUSTAINED = 100
"""Batches at most, enough that some sweeps begin again at the head, where dead rows are."""

_OVER = 10
"""Batches that may be on their way when a publisher is stopped, and that are relayed too."""


def backlog(server: EmbeddedPostgres, rows: int, dead: int) -> list[Target]:
    """Compare a batch at a long backlog with one at a short backlog, and with many dead rows."""
    long = new_database(server, "backlog_long")
    fill(long, Rows(rows))
    short = new_database(server, "backlog_short")
    few_rows = max(rows // 100, (_WARM + _MEASURED + 2) * BATCH)
    fill(short, Rows(few_rows))
    few, many = (
        statistics.median(asyncio.run(_batches(url, _MEASURED))) * 1000 for url in (short, long)
    )
    print(f"  batch at {few_rows:,} rows {few:.2f} ms, at {rows:,} rows {many:.2f} ms")
    left = rows - dead - (_WARM + _MEASURED + _OVER) * BATCH
    batches = min(_SUSTAINED, left // (3 * BATCH) - _WARM - _OVER)
    fresh = asyncio.run(_batches(long, batches))
    with _old_snapshot(long):
        _delete_oldest(long, dead)
        burdened = asyncio.run(_batches(long, batches))
    with psycopg.connect(long, autocommit=True) as connection:
        connection.execute("VACUUM outbox.outbox")
    fresh += asyncio.run(_batches(long, batches))
    print(f"  batch, {_both(fresh)}; with dead rows {_both(burdened)}")
    # The mean, not the median: only the few batches that read heads again pay for dead rows.
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


class _TimedSink(NullSink):
    """A null sink that notes when each batch of messages was complete, and calls `then` at last."""

    def __init__(self, batches: int) -> None:
        self._batches = batches
        self._taken = 0
        self.times = [perf_counter()]
        self.then: Callable[[], None] = lambda: None

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        await super().publish(messages, answer)
        self._taken += len(messages)
        if self._taken >= BATCH * len(self.times):
            self.times.append(perf_counter())
        if len(self.times) > self._batches:
            self.then()


async def _batches(url: str, batches: int) -> list[float]:
    """The seconds per batch, of batches one after the other."""
    sink = _TimedSink(_WARM + batches)
    publisher = Publisher(Database(url), sink, SETTINGS)
    sink.then = publisher.stop
    done = await publisher.run(until_empty=True)
    if done.delivered < BATCH * (_WARM + batches):
        raise RuntimeError(f"only {done.delivered} rows were delivered: the backlog is too short")
    took = [end - begin for begin, end in pairwise(sink.times)]
    return took[_WARM : _WARM + batches]


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
