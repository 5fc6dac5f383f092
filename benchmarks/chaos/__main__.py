"""``make chaos``: the chaos and pressure scenarios of another project's harness.

The scenarios are those of hardbyte/postgresql-job-queue-benchmarking: two replicas of the adapter
produce and relay jobs, and something happens. Here the server is an embedded one, which is
stopped and started, and the phases are shorter. Exits with 1 if a scenario failed.
"""

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, NamedTuple

import psycopg
from benchmarks.measure import load, machine

from dsql_outbox.testing import EmbeddedPostgres

from .replicas import STOP, Deliveries, Replica, Sample, deliveries
from .scenarios import CHAOS, PRESSURE, Scenario, Stage

_ENOUGH = 0.9  # of the baseline, after the stress
_REPLICAS = 2


class Result(NamedTuple):
    """Rates are jobs per second that were finished, the claim is p99 in milliseconds."""

    scenario: str
    baseline: float
    stress: float
    recovery: float
    claim: float
    depth: float
    verdict: Deliveries
    jobs: int
    stop: float | None
    load: float

    @property
    def passed(self) -> bool:
        """Whether it recovered, lost nothing, kept the order and ended in time."""
        return (
            self.recovery >= _ENOUGH * self.baseline > 0
            and self.verdict.lost == self.verdict.out_of_order == 0
            and self.stop is not None
            and self.stop <= STOP
        )

    def cells(self) -> list[str]:
        """The cells of its row in the table."""
        stop = "failed" if self.stop is None else f"{self.stop:.1f}"
        rates = (f"{each:.0f}" for each in (self.baseline, self.stress, self.recovery))
        recovered = f"{self.recovery / self.baseline:.0%}" if self.baseline else "-"
        found = (self.claim, self.depth, *self.verdict)
        counts = (f"{each:,.0f}" for each in found)
        end = (stop, f"{self.load:.0f}", "yes" if self.passed else "NO")
        return [self.scenario, f"{self.jobs:,}", *rates, recovered, *counts, *end]


_HEADER = [
    *("scenario", "jobs", "baseline", "stress", "recovery", "ratio", "claim p99", "depth"),
    *("lost", "duplicates", "out of order", "stop s", "load", "passed"),
]


async def run(name: str, scenario: Scenario, given: Namespace, folder: Path) -> Result:
    """Run one scenario on a server of its own."""
    with EmbeddedPostgres() as server, (folder / f"{name}.log").open("wb") as log:
        url = server.create_database("dsql_outbox_bench")
        file, rate_file = folder / f"{name}.jobs", folder / f"{name}.rate"
        file.write_bytes(b"")
        environment = {
            "DATABASE_URL": url,
            "PRODUCER_RATE_CONTROL_FILE": str(rate_file),
            "WORKER_COUNT": str(given.workers),
            "JOB_WORK_MS": str(given.work_ms),
            "SAMPLE_EVERY_S": "1",
            "DELIVERIES_FILE": str(file),
        }
        replicas = [Replica(each, environment, log) for each in range(_REPLICAS)]
        stage = Stage(server, url, replicas, given.rate, rate_file, given.seconds)
        stage.offer(given.rate)
        try:
            for each in replicas:
                await each.start()
            times = await _phases(stage, scenario)
            stage.offer(0)
            await _drained(url, file, 2 * given.seconds)
            stops = [await each.end() for each in replicas]
        finally:
            for each in replicas:
                await each.kill()
        stored = _stored(url)
        samples = [sample for each in replicas for sample in each.samples]
        baseline, stress, recovery = (_rate(samples, *bounds) for bounds in times)
        claims = [each.value for each in samples if each.metric == "claim_p99_ms"]
        depths = [each.value for each in samples if each.metric == "queue_depth"]
        verdict = deliveries(file, stored)
        stop = None if None in stops else max(each for each in stops if each is not None)
        return Result(
            scenario=name,
            baseline=baseline,
            stress=stress,
            recovery=recovery,
            claim=max(claims, default=0),
            depth=max(depths, default=0),
            verdict=verdict,
            jobs=len(stored),
            stop=stop,
            load=load(),
        )


async def _phases(stage: Stage, scenario: Scenario) -> list[tuple[float, float]]:
    """Baseline, stress and recovery, each with its begin and its end."""
    for each in stage.replicas:
        await each.works()
    await asyncio.sleep(stage.seconds)  # warm-up
    times: list[tuple[float, float]] = []
    for phases in (1, scenario.phases, 1):
        began = monotonic()
        if len(times) == 1:
            async with scenario.harm(stage):
                await asyncio.sleep(phases * stage.seconds)
        else:
            await asyncio.sleep(phases * stage.seconds)
        times.append((began, monotonic()))
    return times


def _rate(samples: Iterable[Sample], began: float, ended: float) -> float:
    """The completed jobs per second of all replicas in a phase."""
    found: dict[int, list[float]] = {}
    for each in samples:
        if each.metric == "completion_rate" and began < each.at <= ended:
            found.setdefault(each.instance, []).append(each.value)
    return sum(mean(each) for each in found.values())


async def _drained(url: str, file: Path, limit: float) -> None:
    """Wait until the outbox is empty, or no job was finished for so long; the rest is lost."""
    done, ends_at = -1, monotonic() + limit
    while monotonic() < ends_at:
        with suppress(psycopg.Error):
            if not await asyncio.to_thread(_rows, url, "SELECT 1 FROM outbox.outbox LIMIT 1"):
                return
        if (now := (await asyncio.to_thread(file.stat)).st_size) != done:
            done, ends_at = now, monotonic() + limit
        await asyncio.sleep(0.2)


def _stored(url: str) -> set[str]:
    return {each for (each,) in _rows(url, "SELECT id::text FROM outbox.business_events")}


def _rows(url: str, query: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def _row(cells: list[str]) -> str:
    widths = (max(len(each), 9) for each in _HEADER[1:])
    aligned = (cell.rjust(width) for cell, width in zip(cells[1:], widths, strict=True))
    return "  ".join([cells[0].ljust(20), *aligned])


def _summary(results: list[Result]) -> None:
    for title, names in (("chaos", CHAOS), ("pressure", PRESSURE)):
        some = [each for each in results if each.scenario in names]
        if some:
            print(f"{title}: {sum(each.passed for each in some)} of {len(some)}")


async def main(given: Namespace) -> int:
    scenarios = CHAOS | PRESSURE
    chosen = given.only.split(",") if given.only else [*scenarios]
    print(
        f"{_REPLICAS} replicas, {given.rate:g} jobs per second together, {given.workers} workers "
        f"each, {given.work_ms:g} ms per job, phases of {given.seconds:g} s\n{machine()}\n\n"
        + _row(_HEADER)
    )
    with TemporaryDirectory() as scratch:
        folder = Path(given.logs or scratch)
        results: list[Result] = []
        for name in chosen:
            results.append(await run(name, scenarios[name], given, folder))
            print(_row(results[-1].cells()), flush=True)
    _summary(results)
    return 0 if all(each.passed for each in results) else 1


parser = ArgumentParser(prog="make chaos")
parser.add_argument("--rate", type=float, default=600, help="jobs per second, of all replicas")
parser.add_argument("--workers", type=int, default=8, help="workers of each replica")
parser.add_argument("--work-ms", type=float, default=1, help="milliseconds of work per job")
parser.add_argument("--seconds", type=float, default=20, help="the length of a phase")
parser.add_argument("--only", help="scenarios, separated by commas")
parser.add_argument("--logs", help="an existing folder that keeps logs and deliveries")

if __name__ == "__main__":
    sys.exit(asyncio.run(main(parser.parse_args())))
