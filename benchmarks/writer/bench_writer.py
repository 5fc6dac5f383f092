"""``make bench-writer``: compare the writer with the bare driver and with pgbench.

Each round runs all variants one after the other, and ratios are computed per
round, so that a slow moment of the machine affects all of them. Exits with 1
when a target is missed.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from time import perf_counter, process_time
from typing import Any
from uuid import uuid4

import anyio
import psycopg
from benchmarks.measure import Target, embedded, event, machine, spread
from benchmarks.writer import pgbench

from dsql_outbox.outbox import Database, parse_event
from dsql_outbox.schema import statement
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings
from dsql_outbox.writer.statement.parameters import Parameters, one_parameters, prepare

BATCH = 100
CLIENTS = 8

Results = dict[str, list[float]]


class Writes:
    """The variants that are measured, on connections that stay open."""

    def __init__(self, url: str, pgbench: tuple[Path, list[str]], number: int) -> None:
        self.url = url
        self.pgbench = pgbench
        self.number = number
        self.results: Results = defaultdict(list)
        self._statement = statement("event_write_one", "outbox")
        self._bare = psycopg.connect(url, autocommit=True)
        self._writer = Writer(Database(url), WriterSettings(max_connections=1))
        self._random = Random(1)

    def round(self, seconds: int) -> None:
        """Run every variant once; pgbench runs for `seconds`."""
        self._measure("bare psycopg", self._write_bare, self._made_beforehand())
        self._measure("write", self._write, self._events())
        self._pgbench("pgbench, 1 connection", 1, seconds)
        self._measure(f"write_many of {BATCH}", self._write_many, self._events())
        self._write_at_once(f"write, {CLIENTS} connections", self._events())
        self._pgbench(f"pgbench, {CLIENTS} connections", CLIENTS, seconds)

    def close(self) -> None:
        """Close the connections."""
        self._bare.close()
        self._writer.close()

    def _measure(
        self, name: str, run: Callable[[Sequence[Any]], None], work: Sequence[Any]
    ) -> None:
        with self._measured(name, len(work)):
            run(work)

    @contextmanager
    def _measured(self, name: str, events: int) -> Iterator[None]:
        wall, cpu = perf_counter(), process_time()
        yield
        self.results[f"{name}: CPU us"].append((process_time() - cpu) / events * 1e6)
        self.results[f"{name}: events/s"].append(events / (perf_counter() - wall))

    def _pgbench(self, name: str, clients: int, seconds: int) -> None:
        path, options = self.pgbench
        rate = pgbench.rate(self.url, path, options, clients, seconds)
        self.results[f"{name}: events/s"].append(rate)

    def _events(self) -> list[bytes]:
        subjects = (self._random.randint(1, pgbench.SUBJECTS) for _ in range(self.number))
        return [event(f"CAR-0-{subject}", n) for n, subject in enumerate(subjects)]

    def _made_beforehand(self) -> list[Parameters]:
        parsed = map(parse_event, self._events())
        prepared = [
            prepare(each, uuid4().hex, "events.CarMoved", "/dsql-outbox", {}) for each in parsed
        ]
        return [one_parameters(each, 16) for each in prepared]

    def _write_bare(self, work: Sequence[Parameters]) -> None:
        for parameters in work:
            self._bare.execute(self._statement, parameters).fetchall()

    def _write(self, work: Sequence[bytes]) -> None:
        for each in work:
            self._writer.write(each)

    def _write_many(self, work: Sequence[bytes]) -> None:
        for start in range(0, len(work), BATCH):
            self._writer.write_many(work[start : start + BATCH])

    def _write_at_once(self, name: str, work: Sequence[bytes]) -> None:
        anyio.run(self._write_by_tasks, name, work)

    async def _write_by_tasks(self, name: str, work: Sequence[bytes]) -> None:
        settings = WriterSettings(max_connections=CLIENTS)
        async with AsyncWriter(Database(self.url), settings) as writer:
            await _write_all(writer, self._events()[: CLIENTS * 10])  # connect, prepare
            with self._measured(name, len(work)):
                await _write_all(writer, work)


async def _write_all(writer: AsyncWriter, work: Sequence[bytes]) -> None:
    async def lane(events: Iterator[bytes]) -> None:
        for each in events:
            await writer.write(each)

    todo = iter(work)  # shared by the tasks: a free task takes the next event
    async with anyio.create_task_group() as group:
        for _ in range(CLIENTS):
            group.start_soon(lane, todo)


def targets(results: Results) -> list[Target]:
    """The targets, with the medians of the rounds."""

    def ratio(one: str, other: str) -> float:
        rounds = zip(results[f"{one}: events/s"], results[f"{other}: events/s"], strict=True)
        return statistics.median(a / b for a, b in rounds)

    costs = zip(results["write: CPU us"], results["bare psycopg: CPU us"], strict=True)
    over = statistics.median(ours - bare for ours, bare in costs)
    eight, many = f", {CLIENTS} connections", f"write_many of {BATCH}"
    one = ratio("write", "pgbench, 1 connection")
    at_once = ratio(f"write{eight}", f"pgbench{eight}")
    return [
        Target("CPU over the bare driver, a write", over, 15, most=True, unit=" us"),
        Target("write / pgbench -M prepared, 1 connection", one, 0.85),
        Target(f"write / pgbench -M prepared{eight}", at_once, 0.70),
        Target(f"{many} / write, 1 connection", ratio(many, "write"), 5),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=3000, help="of each kind in a round")
    parser.add_argument("--seconds", type=int, default=2, help="of each pgbench run")
    words = parser.parse_args()
    with ExitStack() as stack:
        url = stack.enter_context(embedded())
        writes = Writes(url, stack.enter_context(pgbench.script()), words.events)
        stack.callback(writes.close)
        writes.round(1)  # statements prepared, tables no longer empty
        writes.results.clear()
        for _ in range(words.rounds):
            writes.round(words.seconds)
    print(f"{machine()}; {words.rounds} rounds, medians and half the spread")
    for name, values in writes.results.items():
        print(f"  {name:<40} {spread(values)}")
    found = targets(writes.results)
    print(*found, sep="\n")
    return 0 if all(target.holds for target in found) else 1


if __name__ == "__main__":
    sys.exit(main())
