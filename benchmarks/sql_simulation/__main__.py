"""``make simulate-sql N=1000 SEED=1``: the real statements, of several sessions on a real server.

Schedule k of seed S is the schedule of seed S + k. With DEFECT=name a defect is planted in a
statement, and the run must find it. Exits with 1 when a rule was broken.
"""

import sys
from argparse import ArgumentParser
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from os import cpu_count
from time import monotonic

from .campaign import broken_in
from .defects import DEFECTS

SLICE = 100
"""The number of schedules that a process runs on one server."""


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("schedules", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--defect", choices=[*DEFECTS], help="plant this defect in its statement")
    parser.add_argument("--processes", type=int, default=cpu_count() or 1)
    given = parser.parse_args()
    began, last = monotonic(), given.seed + given.schedules
    slices = [range(n, min(n + SLICE, last)) for n in range(given.seed, last, SLICE)]
    broken: dict[int, list[str]] = {}
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        for found in pool.map(partial(broken_in, defect=given.defect), slices):
            broken |= found
    seconds = monotonic() - began
    print(f"{given.schedules} schedules from seed {given.seed}, {seconds:.0f} s")
    print(f"{len(broken)} broke a rule")
    for seed, rules in [*sorted(broken.items())][:1]:
        print(f"seed {seed} broke:", *rules, sep="\n  ")
    if others := sorted(broken)[1:]:
        print("and the seeds", *others)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
