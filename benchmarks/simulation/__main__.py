"""``make simulate N=10000 SEED=1``: the relay and its leases in virtual time.

Schedule k of seed S is the schedule of seed S + k. With DEFECT=name a defect is planted
in the publisher, and the run must find it. Exits with 1 when a rule was broken. A schedule
that broke one is made smaller and printed as a literal, which
tests/unit/publisher/test_simulation.py can keep.
"""

import logging
import sys
from argparse import ArgumentParser
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from os import cpu_count
from time import monotonic

from .defects import DEFECTS
from .random_schedules import random_schedule
from .schedule import Schedule
from .smaller import literal, smaller
from .tally import Tally
from .verdict import tally_of, verdict

SLICE = 100
"""The number of schedules that a process runs before it reports."""

EVERY = 30.0
"""Seconds between two lines of a long run."""


def run_all(seed: int, schedules: int, processes: int, defect: str | None) -> Tally:
    """Run all schedules in `processes` processes."""
    last = seed + schedules
    slices = [range(n, min(n + SLICE, last)) for n in range(seed, last, SLICE)]
    total = Tally()
    told = monotonic()
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        running = [pool.submit(tally_of, part, defect) for part in slices]
        for done, future in enumerate(as_completed(running), 1):
            total.add(future.result())
            if monotonic() - told > EVERY:
                told = monotonic()
                broken = len(total.broken)
                print(f"{done * SLICE} of {schedules} schedules, {broken} broke a rule", flush=True)
    return total


def show(seed: int, broken: list[str], defect: str | None) -> None:
    """Print the rules that a seed broke, and a small schedule that breaks the first of them."""
    print(f"seed {seed} broke:", *broken, sep="\n  ")

    def fails(schedule: Schedule) -> bool:
        return bool(verdict(schedule, defect)[1])

    print(literal(smaller(random_schedule(seed), fails)))


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("schedules", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--defect", choices=[*DEFECTS], help="plant this defect in the relay")
    parser.add_argument("--processes", type=int, default=cpu_count() or 1)
    given = parser.parse_args()
    began = monotonic()
    tally = run_all(given.seed, given.schedules, given.processes, given.defect)
    print(f"seed {given.seed}, {monotonic() - began:.0f} s", *tally.lines(), sep="\n")
    logging.disable()
    for seed in sorted(tally.broken)[:1]:
        show(seed, tally.broken[seed], given.defect)
    if others := sorted(tally.broken)[1:]:
        print("and the seeds", *others)
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
