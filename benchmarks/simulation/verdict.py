"""The verdict on a schedule: what happened, and which rules that broke."""

import logging
from contextlib import nullcontext

from .defects import DEFECTS
from .history import History
from .judge import judge
from .random_schedules import random_schedule
from .relay_program import RelayProgram, small_limits
from .schedule import Schedule
from .simulate import Run, terms_of
from .tally import Tally


def verdict(schedule: Schedule, defect: str | None = None) -> tuple[History, list[str]]:
    """Run the relay, with a planted defect or none."""
    with small_limits(), DEFECTS[defect]() if defect else nullcontext():
        history = Run(schedule, RelayProgram)()
    return history, judge(history, terms_of(schedule))


def tally_of(seeds: range, defect: str | None) -> Tally:
    """Run the schedules of `seeds`."""
    logging.disable()  # failures are intended here
    tally = Tally()
    for seed in seeds:
        schedule = random_schedule(seed)
        tally.note(schedule, *verdict(schedule, defect))
    return tally
