"""Compare group commit with one transaction per event, and with pgbench.

`python -m benchmarks.writer.coalescing [--rounds N] [--seconds S]`; each round runs
all variants. pgbench runs the library's statement.
"""

import argparse
import asyncio
import statistics
from collections import Counter
from collections.abc import Callable
from random import Random
from time import monotonic

import psycopg
from benchmarks.measure import Target, embedded, event, machine, spread
from benchmarks.writer import pgbench

from dsql_outbox.outbox import Database, Receipt
from dsql_outbox.writer import AsyncWriter, WriterSettings

OFF, LANES = WriterSettings(), WriterSettings(coalesce=4)
CALLERS, ONE_ENTITY, CLIENTS = 256, 64, 8


class Run:
    """Callers that write one event after the other for some seconds."""

    def __init__(
        self, settings: WriterSettings, callers: int, subject: Callable[[int], str]
    ) -> None:
        self._settings = settings
        self._callers = callers
        self._subject = subject
        self.rates: list[float] = []
        self.attempts: Counter[int] = Counter()
        self.failed = 0

    def __call__(self, url: str, seconds: float) -> None:
        before = self.attempts.total()
        took = asyncio.run(self._round(url, seconds))
        self.rates.append((self.attempts.total() - before) / took)

    def __str__(self) -> str:
        calls = self.attempts.total() + self.failed
        shares = {n: f"{100 * count / calls:.1f} %" for n, count in sorted(self.attempts.items())}
        return f"{spread(self.rates)} events/s   failed {self.failed} of {calls}, attempts {shares}"

    async def _round(self, url: str, seconds: float) -> float:
        database = Database(url, isolation="repeatable read")
        async with AsyncWriter(database, self._settings) as writer:
            began = monotonic()
            calls = (self._caller(writer, n, began + seconds) for n in range(self._callers))
            await asyncio.gather(*calls)
            return monotonic() - began

    async def _caller(self, writer: AsyncWriter, number: int, until: float) -> None:
        n = 0
        while monotonic() < until:
            n += 1
            try:
                receipt: Receipt = await writer.write(event(self._subject(number), n))
            except psycopg.Error:
                self.failed += 1
            else:
                self.attempts[receipt.attempts] += 1


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=4)
    given = options.parse_args()
    random = Random(1)
    many = Run(LANES, CALLERS, lambda n: f"CAR-{n}-{random.randrange(20_000)}")
    hot_off = Run(OFF, ONE_ENTITY, lambda _: "HOT-OFF")
    hot_on = Run(LANES, ONE_ENTITY, lambda _: "HOT-ON")
    bar: list[float] = []
    with embedded() as url, pgbench.script() as (path, defines):
        for _ in range(given.rounds):
            bar.append(pgbench.rate(url, path, defines, CLIENTS, given.seconds))
            for run in (many, hot_off, hot_on):
                run(url, given.seconds)
    ratios = [mine / theirs for mine, theirs in zip(many.rates, bar, strict=True)]
    gains = [on / off for on, off in zip(hot_on.rates, hot_off.rates, strict=True)]
    print(machine())
    print(f"pgbench, {CLIENTS} connections, an event a transaction  {spread(bar)} events/s")
    print(f"{CALLERS} callers, {LANES.coalesce} lanes             {many}")
    print(f"{ONE_ENTITY} callers on one entity, off   {hot_off}")
    print(f"{ONE_ENTITY} callers on one entity, on    {hot_on}")
    print(f"ratios to pgbench, round by round: {' '.join(f'{ratio:.2f}' for ratio in ratios)}")
    targets = [
        Target("lanes against pgbench", statistics.median(ratios), 2, unit="x"),
        Target("one entity, on against off", statistics.median(gains), 20, unit="x"),
    ]
    print(*targets, sep="\n")
    return 0 if all(target.holds for target in targets) else 1


if __name__ == "__main__":
    raise SystemExit(main())
