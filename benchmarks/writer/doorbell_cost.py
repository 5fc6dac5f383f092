"""What the doorbell costs a writer: ``python -m benchmarks.writer.doorbell_cost``.

Turns with and without `WriterSettings.doorbell` alternate on one server, at which a client
listens. Prints the median of the ratios of the pairs, in events per second.
"""

import argparse
import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from time import perf_counter
from typing import Final

import psycopg
from benchmarks.relay.rows import new_database
from benchmarks.sample_event import event

from dsql_outbox.outbox import Database
from dsql_outbox.testing import EmbeddedPostgres
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings

_EIGHT: Final = 8
_BATCH: Final = 100

_numbers = count()


def _event() -> bytes:
    n = next(_numbers)
    return event(f"CAR-{n}", n)


async def _sync(url: str, settings: WriterSettings, seconds: float) -> float:
    def run() -> float:
        with Writer(Database(url), settings) as writer:
            writer.write(_event())
            began, written = perf_counter(), 0
            while perf_counter() < began + seconds:
                writer.write(_event())
                written += 1
            return written / (perf_counter() - began)

    return await asyncio.to_thread(run)


async def _tasks(url: str, settings: WriterSettings, seconds: float, tasks: int = 1) -> float:
    async with AsyncWriter(Database(url), settings) as writer:
        await writer.write(_event())
        began, written = perf_counter(), 0

        async def write() -> None:
            nonlocal written
            while perf_counter() < began + seconds:
                await writer.write(_event())
                written += 1

        await asyncio.gather(*(write() for _ in range(tasks)))
        return written / (perf_counter() - began)


async def _eight(url: str, settings: WriterSettings, seconds: float) -> float:
    return await _tasks(url, settings, seconds, _EIGHT)


async def _batches(url: str, settings: WriterSettings, seconds: float) -> float:
    async with AsyncWriter(Database(url), settings) as writer:
        began, written = perf_counter(), 0
        while perf_counter() < began + seconds:
            await writer.write_many([_event() for _ in range(_BATCH)])
            written += _BATCH
        return written / (perf_counter() - began)


_WAYS: Final[Mapping[str, Callable[[str, WriterSettings, float], Awaitable[float]]]] = {
    "one thread": _sync,
    "one task": _tasks,
    "eight tasks": _eight,
    "batches of 100": _batches,
}


async def _measure(url: str, pairs: int, seconds: float) -> None:
    for way, run in _WAYS.items():
        await run(url, WriterSettings(doorbell=True), seconds)
        ratios: list[float] = []
        rates: list[float] = []
        for pair in range(pairs):
            found: dict[bool, float] = {}
            for doorbell in (pair % 2 == 0, pair % 2 == 1):
                found[doorbell] = await run(url, WriterSettings(doorbell=doorbell), seconds)
            ratios.append(found[True] / found[False])
            rates.append(found[False])
        low, high = min(ratios), max(ratios)
        print(
            f"{way}: {statistics.median(ratios):.3f} ({low:.2f} to {high:.2f}), "
            f"{statistics.median(rates):,.0f} events/s without",
            flush=True,
        )


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0)
    given = parser.parse_args()
    with EmbeddedPostgres() as server:
        url = new_database(server, "doorbell")
        with psycopg.connect(url, autocommit=True) as listener:
            listener.execute("LISTEN dsql_outbox")
            asyncio.run(_measure(url, given.pairs, given.seconds))


if __name__ == "__main__":
    _main()
