"""The circuit breaker of a sink."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.publisher.relay.memory.breaker import OPEN_FOR, Breaker


def failed(times: int, *, at: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(times):
        breaker.note_failure(at)
    return breaker


def test_at_first_nothing_fails() -> None:
    assert (failed(0).is_failing, failed(0).seconds_left(0.0)) == (False, 0.0)


@pytest.mark.parametrize(("times", "wait"), [(1, 0.1), (2, 0.2), (4, 0.8)])
def test_single_failures_are_tried_again_soon(times: int, wait: float) -> None:
    breaker = failed(times, at=7.0)
    assert (breaker.is_failing, breaker.seconds_left(7.0)) == (True, pytest.approx(wait))


def test_failures_in_a_row_open_it() -> None:
    breaker = failed(5)
    assert [breaker.seconds_left(t) for t in (0.0, 4.0, 5.0)] == [5.0, 1.0, 0.0]
    assert breaker.is_failing


def test_a_failed_probe_opens_it_again() -> None:
    breaker = failed(5)
    breaker.note_failure(5.0)
    assert [breaker.seconds_left(t) for t in (5.0, 9.0, 10.0)] == [5.0, 1.0, 0.0]


def test_a_success_closes_it_and_forgets_the_failures() -> None:
    breaker = failed(5)
    breaker.note_success()
    assert (breaker.is_failing, breaker.seconds_left(1.0)) == (False, 0.0)
    breaker.note_failure(5.0)
    assert breaker.seconds_left(5.0) == pytest.approx(0.1)


@given(st.lists(st.floats(0, 10), max_size=2_000))
def test_however_long_it_fails_the_next_try_is_never_further_away_than_open_for(
    pauses: list[float],
) -> None:
    breaker, now = Breaker(), 0.0
    for pause in pauses:
        breaker.note_failure(now)
        assert 0 <= breaker.seconds_left(now) <= OPEN_FOR * 1.000_001
        assert breaker.seconds_left(now + OPEN_FOR) <= 1e-9 * (now + OPEN_FOR)
        now += pause
