"""The verdict on a schedule: what happened, and which rules that broke."""

import logging
from contextlib import nullcontext

from .defects import DEFECTS
from .history import History
from .judge import judge
from .random_schedules import random_schedule
from .relay_program import small_limits
from .schedule import Schedule
from .simulate import Run, terms_of, terms_of_target
from .tally import Tally


def verdict(schedule: Schedule, defect: str | None = None) -> tuple[History, list[str]]:
    """Run the relay, with a planted defect or none."""
    with small_limits(schedule.sweeps), DEFECTS[defect]() if defect else nullcontext():
        run = Run(schedule)
        history = run()
    broken = judge(history, terms_of(schedule.of_target(0)))
    for number, other in enumerate(run.histories[1:], start=1):
        terms = terms_of_target(schedule, number, run.opened_at[number])
        broken += [f"target {number}: {each}" for each in judge(other, terms)]
        history.counts += other.counts
    return history, broken


def tally_of(seeds: range, defect: str | None) -> Tally:
    """Run the schedules of `seeds`."""
    logging.disable()  # failures are intended here
    tally = Tally()
    for seed in seeds:
        schedule = random_schedule(seed)
        tally.note(schedule, *verdict(schedule, defect))
    return tally
