"""``make storm``: writers of one entity where nobody waits for a row lock, as on Aurora DSQL.

It prints the share of the writes that are stored, for each policy of retries, number of writers
and time of a COMMIT. The database is PostgreSQL behind the rules of the DSQL stand-in. With
``--virtual`` there is none: time is virtual, so the machine makes no difference.
"""

import asyncio
import logging
import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import quantiles
from time import monotonic
from typing import Final, NamedTuple

import psycopg
from tests.support.dsql.governed import GovernedPostgres

from dsql_outbox import (
    AsyncWriter,
    Database,
    Entity,
    Event,
    OutcomeUnknown,
    Receipt,
    WriterSettings,
)
from dsql_outbox.observability.facts import Fact, RetryScheduled
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres
from dsql_outbox.writer.tuned_settings import TunedSettings

from .simulated_storm import simulated_storm


def _policy(
    retries: int, base: float = 0.1, cap: float = 2.0, jitter: float = 0.25
) -> TunedSettings:
    return TunedSettings(
        timeout=None,
        max_retries=retries,
        base=base,
        cap=cap,
        jitter=jitter,
        backlog_check=None,
    )


POLICIES: Final[Mapping[str, WriterSettings]] = {
    "ours: the default": WriterSettings(backlog_check=None),
    "ours: origin()": _policy(3, jitter=0.0),
    "before: 3 retries, jitter 0.25": _policy(3),
    "ours: 12 retries, jitter 1": _policy(12, jitter=1.0),
    "AWS: the skill's, 5 tries": _policy(4, base=0.05, cap=5.0, jitter=0.5),
    "AWS: connector for Python": _policy(3, base=0.001, cap=0.1),
    "AWS: connectors for Go, JDBC": _policy(3, cap=5.0),
}
"""AWS's waits as near as our settings come: the share of its skill's jitter shrinks, ours stays."""


class Stored(NamedTuple):
    """The result of one storm."""

    receipts: int
    calls: int
    conflicts: int
    p95: float
    longest: float
    seconds: float


class Conflicts:
    """A hook that counts conflicts, also those of calls that fail."""

    count = 0

    def __call__(self, fact: Fact) -> None:
        """Count a retry."""
        self.count += isinstance(fact, RetryScheduled)


async def storm(
    url: str, settings: WriterSettings, writers: int, writes: int, entities: int = 1
) -> Stored:
    """Let `writers` writers, in one loop, write `writes` events each, of one of the entities."""
    times: list[float] = []
    receipts: list[Receipt] = []
    conflicts = Conflicts()

    async def write_all(writer: AsyncWriter, car: str) -> None:
        for _ in range(writes):
            began = monotonic()
            event = Event.new("CarMoved", [Entity("Car", car, {"km": began})])
            with suppress(psycopg.OperationalError, OutcomeUnknown):  # a conflict, or the time
                receipts.append(await writer.write(event))
            times.append(monotonic() - began)

    database = Database(url, opens_per_second=1_000)
    opened = [AsyncWriter(database, settings, hooks=[conflicts]) for _ in range(writers)]
    began = monotonic()
    cars = (f"CAR-{n % entities}" for n in range(writers))
    await asyncio.gather(*map(write_all, opened, cars))
    took = monotonic() - began
    for each in opened:
        await each.close()
    p95 = quantiles(times, n=20)[-1]
    return Stored(len(receipts), len(times), conflicts.count, p95, max(times), took)


def main_in_virtual_time(
    writers: Sequence[int], attempts: Sequence[float], writes: int, only: str
) -> int:
    head = f"{'policy':30} {'writers':>7} {'attempt':>7} {'stored':>9} {'longest':>9}"
    print(f"{head} {'conflicts':>10}")
    for name, settings in POLICIES.items():
        if only in name:
            for number in writers:
                for milliseconds in attempts:
                    seconds = milliseconds / 1000
                    found = [
                        simulated_storm(settings, number, writes, seconds, seed)
                        for seed in range(12)
                    ]
                    share = min(each.stored / each.calls for each in found)
                    again = sum(e.conflicts for e in found) / sum(e.stored for e in found)
                    longest = max(each.longest for each in found)
                    print(
                        f"{name:30} {number:7} {milliseconds:4g} ms {share:9.1%}"
                        f" {longest:7.1f} s {again:10.2f}"
                    )
    return 0


def main(writers: Sequence[int], commits: Sequence[float], writes: int, only: str) -> int:
    logging.disable()
    print(f"{'policy':30} {'writers':>7} {'commit':>7} {'stored':>13} {'p95':>7} {'longest':>8}")
    with EmbeddedPostgres(settings={"fsync": "off"}) as server:
        for name, settings in POLICIES.items():
            if only not in name:
                continue
            for number in writers:
                for milliseconds in commits:
                    url = server.create_database(f"storm_{abs(hash((name, number, milliseconds)))}")
                    apply(Database(url))
                    with GovernedPostgres(url, commit_time=milliseconds / 1000) as governed:
                        found = asyncio.run(storm(governed.url, settings, number, writes))
                    share = f"{found.receipts} = {found.receipts / found.calls:.1%}"
                    print(
                        f"{name:30} {number:7} {milliseconds:4g} ms {share:>13}"
                        f" {found.p95:5.1f} s {found.longest:6.1f} s",
                        flush=True,
                    )
    return 0


def _numbers(text: str) -> list[float]:
    return [float(each) for each in text.split(",")]


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--writers", type=_numbers, default=[4.0, 8.0, 20.0])
    parser.add_argument("--commits", type=_numbers, default=[15.0, 30.0], help="milliseconds")
    parser.add_argument("--virtual", action="store_true", help="--commits are whole attempts")
    parser.add_argument("--writes", type=int, default=20, help="of each writer")
    parser.add_argument("--only", default="", help="policies whose name has this text")
    given = parser.parse_args()
    run = main_in_virtual_time if given.virtual else main
    sys.exit(run([int(n) for n in given.writers], given.commits, given.writes, given.only))
