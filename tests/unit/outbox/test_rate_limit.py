"""How fast connections may be opened: never more than a burst and the rate allow."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.outbox.database.rate_limit import OPENS_PER_SECOND, OpenRate

ROUNDING = 1e-6


def openings(rate: OpenRate, asked: list[float]) -> list[float]:
    """When each opening happens, of those asked for at these times."""
    return [rate.reserve(now) for now in asked]


def assert_within(opened: list[float], per_second: float, burst: int) -> None:
    """No window has more openings than the burst and the rate allow in it."""
    for n, start in enumerate(opened):
        for count, end in enumerate(opened[n:], start=1):
            assert count <= burst + per_second * (end - start) + ROUNDING * per_second


@given(
    per_second=st.floats(0.5, 1_000),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 2) | st.just(0.0), max_size=120),
)
def test_no_window_holds_more_than_the_burst_and_the_rate(
    per_second: float, burst: int, pauses: list[float]
) -> None:
    now, asked = 1_000.0, list[float]()
    for pause in pauses:
        asked.append(now := now + pause)
    opened = openings(OpenRate(per_second, burst), asked)
    assert all(first <= second + ROUNDING for first, second in pairwise(opened))
    assert_within(opened, per_second, burst)


@given(st.floats(0.5, 1_000), st.integers(1, 50))
def test_a_whole_burst_waits_for_nothing_and_the_next_waits_its_turn(
    per_second: float, burst: int
) -> None:
    rate = OpenRate(per_second, burst)
    waits = openings(rate, [0.0] * (burst + 2))
    assert waits[:burst] == pytest.approx([0.0] * burst, abs=ROUNDING)
    assert waits[burst:] == pytest.approx([1 / per_second, 2 / per_second])


def test_idle_time_fills_the_burst_again_and_not_more() -> None:
    rate = OpenRate(10, burst=2)
    assert openings(rate, [0.0] * 3) == pytest.approx([0.0, 0.0, 0.1])
    assert openings(rate, [1_000.0] * 3) == pytest.approx([1_000.0, 1_000.0, 1_000.1])


def test_nobody_waits_who_comes_at_the_rate() -> None:
    rate = OpenRate(10, burst=1)
    asked = [n / 10 for n in range(50)]
    assert openings(rate, asked) == pytest.approx(asked)


def test_the_rate_is_what_a_cluster_takes() -> None:
    assert OPENS_PER_SECOND == 100
    rate = OpenRate()
    assert openings(rate, [0.0] * 200)[-1] == pytest.approx(1.0)


@given(
    per_second=st.floats(0.5, 1_000),
    burst=st.integers(1, 50),
    asked=st.lists(
        st.tuples(st.floats(0, 1) | st.just(0.0), st.floats(0, 3), st.booleans()), max_size=120
    ),
)
def test_neither_refused_nor_returned_turns_let_more_be_opened(
    per_second: float, burst: int, asked: list[tuple[float, float, bool]]
) -> None:
    rate, now, opened = OpenRate(per_second, burst), 1_000.0, list[float]()
    for pause, patience, is_interrupted in asked:
        now += pause
        turn = rate.reserve(now, now + patience)
        if turn > now + patience:
            continue
        if is_interrupted and turn > now:
            rate.give_back(turn)
        else:
            opened.append(turn)
    assert_within(sorted(opened), per_second, burst)


def test_a_turn_that_comes_too_late_is_not_taken() -> None:
    rate = OpenRate(10, burst=1)
    assert openings(rate, [0.0, 0.0]) == pytest.approx([0.0, 0.1])
    assert [rate.reserve(0.0, latest=0.15) for _ in range(500)] == pytest.approx([0.2] * 500)
    assert rate.reserve(0.0, latest=math.inf) == pytest.approx(0.2)


def test_a_turn_that_was_given_back_is_the_next_one_taken() -> None:
    rate = OpenRate(10, burst=1)
    _, second, third, fourth = openings(rate, [0.0] * 4)
    rate.give_back(third)
    rate.give_back(second)
    assert openings(rate, [0.0] * 3) == pytest.approx([second, third, fourth + 0.1])


def test_a_turn_that_was_given_back_and_has_passed_is_not_taken() -> None:
    rate = OpenRate(10, burst=1)
    _, second, third = openings(rate, [0.0] * 3)
    rate.give_back(second)
    assert rate.reserve(0.15) == pytest.approx(third + 0.1)
