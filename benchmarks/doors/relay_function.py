"""The relay's function beside the call that it wraps: the same rows, to a sink that drops them.

``python -m benchmarks.doors.relay_function [ROWS [ROUNDS]]`` fails when the limit is missed.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from time import perf_counter, process_time
from typing import NamedTuple

from benchmarks.measure import Target, machine, median_ratio, spread
from benchmarks.relay.rows import NullSink, Rows, fill, new_database

from dsql_outbox import Database, Publisher
from dsql_outbox.doors.aws_lambda import relay_handler
from dsql_outbox.publisher import Sink
from dsql_outbox.testing import EmbeddedPostgres

LIMIT = 1.2


class Took(NamedTuple):
    """Milliseconds of one way to relay all rows."""

    time: float
    cpu: float


class Context:
    """Lambda's context, with a minute left."""

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


@asynccontextmanager
async def open_null() -> AsyncGenerator[Sink]:
    yield NullSink()


def by_publisher(database: Database) -> None:
    asyncio.run(Publisher(database, NullSink()).run(until_empty=True))


def by_function(database: Database) -> None:
    answer = relay_handler(database, open_null)({}, Context())
    assert answer["ended"] == "empty", answer


def measure(url: str, rows: int, relay: Callable[[Database], None]) -> Took:
    fill(url, Rows(rows))
    began, busy = perf_counter(), process_time()
    relay(Database(url))
    return Took((perf_counter() - began) * 1000, (process_time() - busy) * 1000)


def main(rows: int = 5_000, rounds: int = 7) -> bool:
    print(machine())
    with EmbeddedPostgres() as server:
        url = new_database(server, "relay_function")
        pairs = [
            (measure(url, rows, by_publisher), measure(url, rows, by_function))
            for _ in range(rounds + 1)
        ][1:]  # the first warms up
    bare, ours = zip(*pairs, strict=True)
    targets: list[Target] = []
    for what in ("time", "cpu"):
        theirs, own = ([getattr(each, what) for each in found] for found in (bare, ours))
        print(f"  {what}: Publisher.run  {spread(theirs)} ms for {rows:,} rows")
        print(f"  {what}: the function   {spread(own)} ms")
        name = f"{what} of the function / Publisher.run"
        targets.append(Target(name, median_ratio(own, theirs), LIMIT, most=True))
    for target in targets:
        print(target)
    return all(target.holds for target in targets)


if __name__ == "__main__":
    sys.exit(not main(*map(int, sys.argv[1:])))
