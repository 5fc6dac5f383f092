"""The verdict on a schedule: what happened, and which rules that broke."""

import logging
import re
from contextlib import nullcontext
from functools import partial

from benchmarks.points import counted

from .defects import DEFECTS
from .history import History
from .judge import judge
from .lanes import Lane, differences, only_rows
from .points import POINTS
from .random_schedules import random_schedule
from .relay_program import small_limits
from .schedule import Schedule
from .simulate import Run, terms_of, terms_of_target
from .tally import Tally


def verdict(
    schedule: Schedule, defect: str | None = None, lane: Lane = "pages"
) -> tuple[History, list[str]]:
    """Run the relay, with a planted defect or none."""
    (history, *others), broken = examine(schedule, defect, lane)
    for other in others:
        history.counts += other.counts
    return history, broken


def examine(
    schedule: Schedule, defect: str | None = None, lane: Lane = "pages"
) -> tuple[list[History], list[str]]:
    """The same with the history of each target; that with pages, if it runs in both lanes."""
    if lane == "both":
        histories, broken = examine(schedule, defect, "pages")
        others, broken_without = examine(schedule, defect, "rows")
        broken += [f"{each}, without pages" for each in broken_without]
        for number, (mine, other) in enumerate(zip(histories, others, strict=True)):
            terms = terms_of(schedule.of_target(number))
            found = differences(mine, other, terms, blocks=schedule.block)
            broken += map(partial(_of_target, number), found)
        return histories, broken
    with (
        small_limits(schedule.sweeps),
        only_rows() if lane == "rows" else nullcontext(),
        DEFECTS[defect]() if defect else nullcontext(),
    ):
        run = Run(schedule)
        history = run()
    broken = judge(history, terms_of(schedule.of_target(0)))
    for number, other in enumerate(run.histories[1:], start=1):
        terms = terms_of_target(schedule, number, run.opened_at[number])
        broken += map(partial(_of_target, number), judge(other, terms))
    return run.histories, broken


def _of_target(number: int, sentence: str) -> str:
    return f"target {number}: {sentence}" if number else sentence


def rule_of(sentence: str) -> str:
    """The rule that a sentence says was broken, without its target, events and times."""
    plain = re.sub(r"^target \d+: | of target \d+", "", sentence)
    return re.sub(r"\[.*?\]|\d[\d.]*", "#", plain)


def breaks(schedule: Schedule, rule: str, defect: str | None = None, lane: Lane = "pages") -> bool:
    """Whether a run breaks this rule: with a planted defect, and without it none at all."""
    is_broken = any(rule_of(each) == rule for each in examine(schedule, defect, lane)[1])
    return is_broken and (defect is None or not examine(schedule, lane=lane)[1])


def tally_of(seeds: range, defect: str | None, lane: Lane = "pages") -> Tally:
    """Run the schedules of `seeds`."""
    logging.disable()  # failures are intended here
    tally = Tally()
    with counted(POINTS, tally.points):
        for seed in seeds:
            schedule = random_schedule(seed)
            tally.note(schedule, *verdict(schedule, defect, lane))
    return tally
