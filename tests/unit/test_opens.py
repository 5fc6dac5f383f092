"""How fast connections may be opened: never more than a burst and the rate allow."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.outbox._opens import OPENS_PER_SECOND, OpenRate

ROUNDING = 1e-6


def openings(rate: OpenRate, asked: list[float]) -> list[float]:
    """When each opening happens, of those asked for at these times."""
    return [now + rate.reserve(now) for now in asked]


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
    for n, start in enumerate(opened):
        for count, end in enumerate(opened[n:], start=1):
            assert count <= burst + per_second * (end - start) + ROUNDING * per_second


@given(st.floats(0.5, 1_000), st.integers(1, 50))
def test_a_whole_burst_waits_for_nothing_and_the_next_waits_its_turn(
    per_second: float, burst: int
) -> None:
    rate = OpenRate(per_second, burst)
    waits = [rate.reserve(0.0) for _ in range(burst + 2)]
    assert waits[:burst] == pytest.approx([0.0] * burst, abs=ROUNDING)
    assert waits[burst:] == pytest.approx([1 / per_second, 2 / per_second])


def test_idle_time_fills_the_burst_again_and_not_more() -> None:
    rate = OpenRate(10, burst=2)
    assert openings(rate, [0.0] * 3) == pytest.approx([0.0, 0.0, 0.1])
    assert openings(rate, [1_000.0] * 3) == pytest.approx([1_000.0, 1_000.0, 1_000.1])


def test_nobody_waits_who_comes_at_the_rate() -> None:
    rate = OpenRate(10, burst=1)
    assert [rate.reserve(n / 10) for n in range(50)] == pytest.approx([0.0] * 50)


def test_the_rate_is_what_a_cluster_takes() -> None:
    assert OPENS_PER_SECOND == 100
    rate = OpenRate()
    assert openings(rate, [0.0] * 200)[-1] == pytest.approx(1.0)
