"""``make simulate N=10000 SEED=1``: the relay and its leases in virtual time.

Schedule k of seed S is the schedule of seed S + k. With DEFECT=name a defect is planted
in the publisher, and the run must find it. Exits with 1 when a rule was broken, or when the relay
never came to one of its rare points (`points`) in as many schedules as a campaign has. The first
schedule that broke one is made smaller, for up to 100 s, and printed as Python and as a
timeline. With KEEP="a name" it becomes a test. The relay keeps rows in pages, and with LANE=rows
it keeps none there. With LANE=both each schedule runs with pages and without, and must end in
the same way (`lanes`).
"""

import logging
import sys
from argparse import ArgumentParser
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import count
from multiprocessing import get_context
from os import cpu_count
from time import monotonic
from typing import get_args

from benchmarks.points import missed

from .defects import DEFECTS
from .keep import KEPT, keep
from .lanes import Lane
from .points import POINTS
from .random_schedules import random_schedule
from .schedule import Schedule
from .smaller import events, literal, smaller
from .tally import Tally
from .timeline import moments, timeline
from .verdict import breaks, examine, rule_of, tally_of

SLICE = 100
"""The number of schedules that a process runs before it reports."""

CAMPAIGN = 10_000
"""The number of schedules in which the relay must come to each of its rare points."""

SHRINK = 100.0
"""Seconds in which a schedule is made smaller."""

EVERY = 30.0
"""Seconds between two lines of a long run."""


def run_all(seed: int, schedules: int, processes: int, defect: str | None, lane: Lane) -> Tally:
    """Run all schedules in `processes` processes."""
    last = seed + schedules
    slices = [range(n, min(n + SLICE, last)) for n in range(seed, last, SLICE)]
    total = Tally()
    told = monotonic()
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        running = [pool.submit(tally_of, part, defect, lane) for part in slices]
        for done, future in enumerate(as_completed(running), 1):
            total.add(future.result())
            if monotonic() - told > EVERY:
                told = monotonic()
                broken = len(total.broken)
                print(f"{done * SLICE} of {schedules} schedules, {broken} broke a rule", flush=True)
    return total


def smallest(seed: int, broken: list[str], defect: str | None, lane: Lane) -> Schedule:
    """Print the rules that a seed broke, and a small schedule that breaks the first of them."""
    print(f"seed {seed} broke:", *broken, sep="\n  ", flush=True)
    whole, rule, began, runs = random_schedule(seed), rule_of(broken[0]), monotonic(), count()

    def fails(schedule: Schedule) -> bool:
        next(runs)
        return breaks(schedule, rule, defect, lane)

    small = smaller(whole, fails, SHRINK)
    took = f"{next(runs):,} runs in {monotonic() - began:.0f} s"
    histories, rules = examine(small, defect, lane)
    print(f"\n{literal(small)}\n", *timeline(small, histories, rules), sep="\n")
    before, after = (
        len(moments(whole, examine(whole, defect, lane)[0])),
        len(moments(small, histories)),
    )
    print(f"\nof {events(whole)} events and faults {events(small)} are left, after {took}")
    print(f"of {before:,} moments {after:,} are left")
    return small


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("schedules", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--defect", choices=[*DEFECTS], help="plant this defect in the relay")
    parser.add_argument("--lane", choices=get_args(Lane), default="pages")
    parser.add_argument("--processes", type=int, default=cpu_count() or 1)
    parser.add_argument(
        "--keep",
        metavar="NAME",
        help="keep the smallest schedule as a test under this name, or a defect's under its own",
    )
    given = parser.parse_args()
    if given.keep is not None and given.defect not in {None, given.keep}:
        parser.error(f"the schedule of a defect has its name: KEEP={given.defect}")
    began = monotonic()
    tally = run_all(given.seed, given.schedules, given.processes, given.defect, given.lane)
    print(f"seed {given.seed}, {monotonic() - began:.0f} s", *tally.lines(), sep="\n")
    logging.disable()
    for seed in sorted(tally.broken)[:1]:
        small = smallest(seed, tally.broken[seed], given.defect, given.lane)
        if given.keep is not None:
            keep(small, given.keep, "KEPT" if given.defect is None else "FINDS")
            print(f"kept in {KEPT} as {given.keep!r}")
    if others := sorted(tally.broken)[1:]:
        print("and the seeds", *others)
    is_campaign = given.schedules >= CAMPAIGN and given.defect is None
    if never := missed(POINTS, tally.points) if is_campaign else []:
        print("the relay never came to:", *never, sep="\n  ")
    return 1 if tally.broken or never else 0


if __name__ == "__main__":
    sys.exit(main())
