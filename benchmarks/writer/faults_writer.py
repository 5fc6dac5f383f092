"""``make faults-writer N=10000 SEED=1``: run random schedules of faults against the writer.

After each schedule, `verify` must find nothing. A campaign fails also if the writer never came to
one of its rare points (`points`).
Schedule k of seed S is the same as the single schedule of `N=1 SEED=S+k`. Each process has its
own database and proxy, on one server. If pgbouncer is installed, one slice in four runs
behind it; with `--pooler`, all do.

With `DRIVERS=consumers`, most callers are consumers: each message is handled by `once`, `once_many`
or `remember`, and some are delivered again. Each message is remembered if and only if its rows and
events are stored, and none overtakes another one of its subject in a batch. `DRIVERS=all` has both.

With `DRIVERS=all`, most callers have sessions of their own: each unit of work stores a row of the
caller's table and an event, by `append_to` or by `transact`, on the drivers that are named. No row
may be without its event, and no event without its row. Their functions raise or swallow errors,
calls are interrupted, tasks are cancelled twice, and some sessions hide the error of a COMMIT.
"""

import logging
import sys
from argparse import ArgumentParser
from asyncio import run
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from benchmarks.points import counted, missed
from tests.support.pgbouncer import PROGRAM, PgBouncer
from tests.support.verified import findings_in
from tests.support.writer.checked_tables import Tables
from tests.support.writer.consumer_units import CONSUMERS
from tests.support.writer.schedules import Tally, prepare_database, run_schedule
from tests.support.writer.session_units import WAYS, Way
from tests.support.writer.slow_openings import SlowOpenings

from dsql_outbox.outbox.database.database import DEFAULT_SCHEMA
from dsql_outbox.schema.migrator import ddl
from dsql_outbox.testing import EmbeddedPostgres

from .points import POINTS

SLICE = 50
"""The number of schedules that a process runs before it reports."""

CAMPAIGN = 1_000
"""The number of schedules in which the writer must come to each of its rare points."""


def run_slice(url: str, seeds: range, ways: Sequence[Way], *, pooled: bool) -> Tally:
    """Run the schedules of `seeds` on their own database."""
    logging.disable()  # failures are intended here
    tally = Tally()
    name = url.rpartition("/")[2]
    with ExitStack() as stack:
        stack.enter_context(counted(POINTS, tally.points))
        tables = stack.enter_context(Tables(url))
        pooler = stack.enter_context(PgBouncer(url)) if pooled else None
        proxy = stack.enter_context(SlowOpenings(pooler.url(name) if pooler else url))

        def is_quiet() -> bool:
            assert pooler is not None
            return pooler.is_quiet(name) and tables.working() == 0

        tables.connection.execute(ddl(DEFAULT_SCHEMA).encode())
        prepare_database(tables)
        for seed in seeds:
            try:
                quiet = is_quiet if pooled else None
                tally.add(run_schedule(seed, proxy, tables, quiet, ways))
                tally.mismatches += [f"seed {seed}: {each}" for each in run(findings_in(url))]
            except Exception as error:  # noqa: BLE001 - a schedule that does not end is a mismatch
                tally.mismatches.append(f"seed {seed}: {error!r}")
                break
    return tally


def run_all(  # noqa: PLR0913 - the options of the command
    server: EmbeddedPostgres,
    seed: int,
    schedules: int,
    processes: int,
    ways: Sequence[Way],
    *,
    pooler: bool,
) -> Tally:
    """Run all schedules in `processes` processes."""
    last = seed + schedules
    slices = [range(n, min(n + SLICE, last)) for n in range(seed, last, SLICE)]
    total = Tally()
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        running = [
            pool.submit(
                partial(
                    _run_in_database,
                    server.url,
                    s,
                    ways,
                    pooled=pooler or (not ways and _is_pooled(s.start)),
                )
            )
            for s in slices
        ]
        for done, future in enumerate(as_completed(running), 1):
            part = future.result()
            total.add(part)
            for mismatch in part.mismatches:
                print(f"mismatch, {mismatch}", file=sys.stderr, flush=True)
            if done % 20 == 0:
                print(f"{done * SLICE} schedules, {len(total.mismatches)} mismatches", flush=True)
    return total


def _is_pooled(first: int) -> bool:
    return PROGRAM is not None and first // SLICE % 4 == 3


def _run_in_database(server_url: str, seeds: range, ways: Sequence[Way], *, pooled: bool) -> Tally:
    name = f"schedules_{seeds.start}"
    url = f"{server_url.rpartition('/')[0]}/{name}"
    with Tables(server_url) as server:
        server.connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            return run_slice(url, seeds, ways, pooled=pooled)
        finally:
            server.connection.execute(f"DROP DATABASE {name} (FORCE)".encode())


def ways_of(drivers: str) -> list[Way]:
    """Return the ways of the drivers that a command names."""
    if drivers == "consumers":
        return [*CONSUMERS]
    ways = [*WAYS, *CONSUMERS]
    return [way for way in ways if drivers == "all" or way.driver in drivers.split(",")]


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("schedules", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--processes", type=int, default=2 * (cpu_count() or 1))
    parser.add_argument("--pooler", action="store_true")
    parser.add_argument("--drivers", default="", help="all, consumers, or asyncpg,..")
    options = parser.parse_args()
    if PROGRAM is None:
        print("no schedule is behind a pooler: pgbouncer is not installed", file=sys.stderr)
        if options.pooler:
            return 1
    memory = Path("/dev/shm")
    began = monotonic()
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        Path(folder).chmod(0o1777)  # root's PostgreSQL runs as another user
        settings = {"fsync": "off", "max_connections": "300"}
        with EmbeddedPostgres(Path(folder) / "postgres", settings=settings) as server:
            tally = run_all(
                server,
                options.seed,
                options.schedules,
                options.processes,
                ways_of(options.drivers),
                pooler=options.pooler,
            )
    print(f"seed {options.seed}, {options.schedules} schedules, {monotonic() - began:.0f} s")
    for name, count in sorted(tally.outcomes.items()):
        print(f"  {count:>8} {name}")
    for name, count in sorted(tally.ways.items()):
        print(f"  {count:>8} {name}")
    for point in POINTS:
        print(f"  {tally.points[point.name]:>8} times: {point.name}")
    print(f"  {tally.rows:>8} events stored")
    print(f"  {len(tally.mismatches):>8} mismatches")
    is_campaign = options.schedules >= CAMPAIGN and not options.drivers
    if never := missed(POINTS, tally.points) if is_campaign else []:
        print("the writer never came to:", *never, sep="\n  ")
    return 1 if tally.mismatches or never else 0


if __name__ == "__main__":
    sys.exit(main())
