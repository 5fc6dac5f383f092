"""The relay and its leases in virtual time, on models of the tables and the broker."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from benchmarks.points import counted, missed
from benchmarks.simulation.defects import DEFECTS
from benchmarks.simulation.lanes import Lane
from benchmarks.simulation.page_defects import PAGE_DEFECTS
from benchmarks.simulation.points import POINTS
from benchmarks.simulation.random_schedules import random_schedule
from benchmarks.simulation.schedule import Schedule
from benchmarks.simulation.verdict import verdict
from benchmarks.writer import points as writer
from tests.support.publisher.kept_schedules import FINDS, KEPT

SLICE = 20
BOTH = 10

FOUND_AT = {
    "drop_a_delete": 1,
    "reuse_a_key": 1,
    "renew_without_progress": 29,
    "count_an_outage": 0,
    "pass_over_the_first": 2,
    "trust_the_host": 7,
    "trust_the_order_of_rows": 3,
    "end_at_a_refusal": 26,
    "ignore_the_epoch": 12,
    "keep_old_rows": 12,
    "forget_due_retries": 59,
    "forget_passed_rows": 235,
    "bury_without_lease": 261,
    "record_without_lease": 25,
    "forget_the_wait": 5,
    "try_blocked_rows": 11,
    "wait_as_at_first": 0,
    "never_cut_a_call": 132,
    "reuse_a_dedupe_id": 1,
    "count_from_the_answer": 44,
    "send_paused_topics": 4,
    "leave_at_the_end": 4,
    "never_go_home": 39,
    "settle_behind_a_failure": 2,
    "count_the_unattempted": 75,
    "send_two_runs_at_once": 4,
    "store_behind_a_refusal": 124,
    "send_replays_in_runs": 248,
    "open_without_waiting": 2,
    "open_with_what_came_before": 2,
    "discard_by_the_clock": 218,
    "delete_before_the_function": 2,
    "delete_what_failed": 2,
    "pause_for_all_targets": 741,
    "give_up_early": 0,
    "give_up_late": 0,
    "send_what_is_left_out": 2,
    "settle_what_is_left_out_early": 340,
    "keep_what_is_left_out": 2,
    "count_a_broken_map": 9,
    "send_behind_an_error_of_the_map": 1,
    "skip_a_late_commit": 21,
    "delete_before_the_confirm": 0,
    "send_behind_a_refusal": 105,
    "send_without_a_fence": 2,
    "keep_a_run_in_its_page": 2,
    "cut_a_run_in_two": 7,
    "page_beside_a_queue": 0,
    "page_beside_a_page": 2,
    "know_no_row_of_a_page": 1,
    "go_on_behind_a_failure_in_a_page": 380,
    "send_what_left_its_page_again": 1,
    "send_pages_without_a_fence": 9,
    "send_any_run_of_a_page": 37,
    "delete_a_page_with_a_failure": 21,
}
"""The first seeds that find a defect today, in a relay with pages."""


def lanes(defect: str) -> Sequence[Lane]:
    """Where a defect can be: with pages, and without them."""
    return ("pages",) if defect in PAGE_DEFECTS else ("pages", "rows")


FEW = 400
"""How many seeds find any defect, whatever changes in the random schedules."""

SEEDS = 40
"""The same of a schedule that was kept for the defect."""


@pytest.mark.parametrize(
    "first",
    [0, SLICE, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2 * SLICE, 100, SLICE))],
)
def test_whatever_fails_the_relay_keeps_its_promises(first: int) -> None:
    """No loss, no disorder, nothing charged that is no fault, and the healthy leave in time."""
    schedules = map(random_schedule, range(first, first + SLICE))
    broken = {each.seed: rules for each in schedules if (rules := verdict(each)[1])}
    assert broken == {}


@pytest.mark.parametrize(
    "first",
    [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(BOTH, 100, BOTH))],
)
def test_pages_change_nothing_that_a_user_sees(first: int) -> None:
    """A relay that keeps no row in a page ends the same messages in the same way and order."""
    schedules = map(random_schedule, range(first, first + BOTH))
    broken = {each.seed: rules for each in schedules if (rules := verdict(each, lane="both")[1])}
    assert broken == {}


@pytest.mark.parametrize("name", KEPT)
def test_a_schedule_that_broke_a_rule_once_breaks_none(name: str) -> None:
    assert verdict(KEPT[name], lane="both")[1] == []


@pytest.mark.parametrize(
    ("defect", "lane"),
    [
        pytest.param(defect, lane, marks=[pytest.mark.slow] * (lane == "rows"))
        for defect in DEFECTS
        for lane in lanes(defect)
    ],
)
def test_a_planted_defect_is_found(defect: str, lane: Lane) -> None:
    """By its kept schedule, or by the same with another seed, if the relay takes other times."""
    kept = FINDS[defect]
    assert verdict(kept, lane=lane)[1] == []
    schedules = (replace(kept, seed=seed) for seed in (kept.seed, *range(SEEDS)))
    assert_found(defect, lane, schedules)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defect", "lane"), [(defect, lane) for defect in FOUND_AT for lane in lanes(defect)]
)
def test_random_schedules_find_a_planted_defect(defect: str, lane: Lane) -> None:
    first = FOUND_AT[defect]
    assert_found(defect, lane, map(random_schedule, range(first, first + FEW)))


def assert_found(defect: str, lane: Lane, schedules: Iterable[Schedule]) -> None:
    broken = next(filter(None, (verdict(each, defect, lane)[1] for each in schedules)))
    assert not [rule for rule in broken if "TypeError" in rule], "it fits the code no longer"


def test_a_run_counts_the_rare_points_to_which_the_relay_comes() -> None:
    """Those of the writer have methods to count at, too."""
    counts = Counter[str]()
    with counted(POINTS, counts), counted(writer.POINTS, counts):
        verdict(random_schedule(2))
    assert "row waited for its predecessor" not in missed(POINTS, counts)
    assert missed(writer.POINTS, counts) == [point.name for point in writer.POINTS]
