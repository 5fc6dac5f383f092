"""When to try again, and when to give up."""

from dataclasses import replace
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.writer.simulated_storm import simulated_storm

from dsql_outbox.observability.facts import RetryBudget
from dsql_outbox.observability.hooks import Scopes
from dsql_outbox.outbox import Database
from dsql_outbox.outbox.failure import DatabaseFailure, FailureKind
from dsql_outbox.writer import WriterSettings
from dsql_outbox.writer.attempt.journal import Journal
from dsql_outbox.writer.budgets import budgets_of
from dsql_outbox.writer.tuned_settings import TunedSettings

NO_JITTER = 0.0
DATABASE = Database("postgresql://writer:secret@db.example/shop")
COUNTED = [FailureKind.CONFLICT, FailureKind.COLLISION]
TIMED = [
    FailureKind.OUTAGE,
    FailureKind.OUT_OF_MEMORY,
    FailureKind.BUSY,
    FailureKind.INTERNAL,
    FailureKind.IN_DOUBT,
]


def failure(kind: FailureKind, sqlstate: str | None = None) -> DatabaseFailure:
    return DatabaseFailure(kind, RuntimeError("a failure"), sqlstate, None)


def retries(
    settings: WriterSettings | None = None,
    *,
    deadline: float | None = None,
    random: float = NO_JITTER,
) -> Journal:
    budgets = budgets_of(settings or WriterSettings.origin())
    return Journal(uuid4(), Scopes((), None), DATABASE, budgets, deadline, random=lambda: random)


@pytest.mark.parametrize("kind", COUNTED)
def test_the_waits_after_failures_1_2_3_are_100_200_400_ms_and_none_follows(
    kind: FailureKind,
) -> None:
    """Facts 6, 8 and 10."""
    pause = retries()
    waits = [pause.next_wait(failure(kind), now=0.0) for _ in range(4)]
    assert waits == [0.1, 0.2, 0.4, None]
    assert pause.conflicts == 4


def test_a_schema_change_is_waited_for_as_a_conflict_but_ten_times() -> None:
    pause = retries()
    waits = [pause.next_wait(failure(FailureKind.SCHEMA_CHANGED), now=0.0) for _ in range(11)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0, 2.0, None]
    assert pause.next_wait(failure(FailureKind.CONFLICT), now=0.0) == 0.1
    assert pause.conflicts == 12
    assert not pause.is_last_try


def test_the_budget_is_that_of_the_last_failure() -> None:
    pause = retries()
    for kind, now, expected in (
        (FailureKind.CONFLICT, 0.0, "conflict, 1 of 3"),
        (FailureKind.COLLISION, 0.1, "conflict, 2 of 3"),
        (FailureKind.SCHEMA_CHANGED, 0.3, "schema change, 1 of 10"),
        (FailureKind.OUTAGE, 1.0, "outage, 0.0 of 10 s"),
        (FailureKind.IN_DOUBT, 5.1, "outage, 4.1 of 10 s"),
        (FailureKind.CONFLICT, 6.0, "conflict, 3 of 3"),
        (FailureKind.CONFLICT, 6.0, "conflict, 3 of 3"),
    ):
        pause.next_wait(failure(kind), now)
        assert str(pause.budget) == expected


def test_without_a_count_the_time_of_the_call_ends_the_retries_of_a_conflict() -> None:
    """Both kinds of conflict and an outage share the time."""
    pause = retries(WriterSettings(), deadline=130.0, random=1.0)
    kinds = [FailureKind.CONFLICT, FailureKind.SCHEMA_CHANGED, FailureKind.OUTAGE]
    waits, now, n = [], 100.0, 0
    while (wait := pause.next_wait(failure(kinds[n % 3]), now)) is not None:
        if n == 0:
            assert str(pause.budget) == "conflict 1, 30.0 s left"
        waits.append(wait)
        now, n = now + wait, n + 1
    assert waits[:4] == [0.2, 0.2, 0.2, 0.4]
    assert len(waits) > 12
    assert 128.0 <= now < 130.0
    assert pause.is_cut_short
    assert not pause.is_last_try


@given(random=st.floats(0, 1), cap=st.floats(0.5, 10), jitter=st.floats(0, 3))
def test_the_longest_waits_are_spread_too(random: float, cap: float, jitter: float) -> None:
    """Else all losers of a storm come back together, after exactly the cap."""
    pause = retries(TunedSettings(cap=cap, jitter=jitter), random=random)
    waits = [pause.next_wait(failure(FailureKind.CONFLICT), now=0.0) for _ in range(50)]
    assert waits[-1] == pytest.approx(cap * (1 + jitter * random) / (1 + jitter))


def test_facts_of_a_failure_name_the_host_and_no_secret() -> None:
    pause = retries()
    pause.next_wait(failure(FailureKind.OUTAGE), now=0.0)
    told = pause.as_fact(failure(FailureKind.OUTAGE))
    assert (told.host, told.was_reached) == ("db.example:5432", False)
    assert told.budget == RetryBudget("outage", 0.0, 10.0)
    assert "secret" not in repr(told)


def test_no_retry_means_no_wait() -> None:
    pause = retries(WriterSettings(max_retries=0))
    assert pause.next_wait(failure(FailureKind.CONFLICT), now=0.0) is None


@given(random=st.floats(0, 1), jitter=st.floats(0, 3), base=st.floats(1e-6, 1))
def test_jitter_only_adds_and_at_most_its_share(random: float, jitter: float, base: float) -> None:
    """Fact 6."""
    settings = TunedSettings(base=base, cap=1e9, jitter=jitter, max_retries=5)
    pause = retries(settings, random=random)
    for n in range(5):
        wait = pause.next_wait(failure(FailureKind.CONFLICT), now=0.0)
        assert wait is not None
        least = base * 2**n
        assert least <= wait <= least * (1 + jitter) * (1 + 1e-9)


@given(
    random=st.floats(0, 1),
    base=st.floats(1e-6, 1e6),
    cap=st.floats(1e-6, 1e6),
    jitter=st.floats(0, 10),
)
def test_no_wait_exceeds_the_cap_whatever_the_attempts_number(
    random: float, base: float, cap: float, jitter: float
) -> None:
    """Fact 7: no float overflows on the way, however many attempts."""
    settings = TunedSettings(base=base, cap=cap, jitter=jitter, max_retries=1_100)
    pause = retries(settings, random=random)
    waits = [pause.next_wait(failure(FailureKind.CONFLICT), now=0.0) for _ in range(1_100)]
    assert all(wait is not None and 0 < wait <= cap for wait in waits)
    assert waits[-1] is not None
    assert waits[-1] >= cap / (1 + jitter) * (1 - 1e-9)


def test_the_default_cap_is_two_seconds() -> None:
    """Fact 7."""
    pause = retries(replace(TunedSettings.origin(), max_retries=10, jitter=0.25), random=1.0)
    waits = [pause.next_wait(failure(FailureKind.CONFLICT), now=0.0) for _ in range(10)]
    assert waits == [0.125, 0.25, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("kind", TIMED)
def test_an_outage_is_timed_not_counted(kind: FailureKind) -> None:
    pause = retries(replace(WriterSettings.origin(), max_retries=0))
    waits, now = [], 100.0
    while (wait := pause.next_wait(failure(kind), now)) is not None:
        waits.append(wait)
        now += wait
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert now - 100.0 <= 10.0
    assert pause.conflicts == 0


def test_the_time_of_the_attempts_counts_as_outage() -> None:
    pause = retries(WriterSettings(max_outage=10.0))
    assert pause.next_wait(failure(FailureKind.OUTAGE), now=0.0) == 0.1
    assert pause.next_wait(failure(FailureKind.OUTAGE), now=9.9) is None


def test_an_answer_of_the_database_ends_the_outage() -> None:
    pause = retries(WriterSettings(max_outage=1.0))
    assert pause.next_wait(failure(FailureKind.OUTAGE), now=0.0) == 0.1
    assert pause.next_wait(failure(FailureKind.OUTAGE), now=0.1) == 0.2
    assert pause.next_wait(failure(FailureKind.CONFLICT), now=0.9) == 0.1
    assert pause.next_wait(failure(FailureKind.OUTAGE), now=5.0) == 0.1


def test_too_high_a_rate_of_connections_is_answered_by_the_longest_wait() -> None:
    assert retries().next_wait(failure(FailureKind.CROWDED, "53400"), now=0.0) == 2.0
    assert retries().next_wait(failure(FailureKind.OUTAGE, "53300"), now=0.0) == 0.1


@pytest.mark.parametrize("kind", [*COUNTED, FailureKind.SCHEMA_CHANGED, *TIMED])
def test_no_wait_begins_that_would_end_after_the_deadline(kind: FailureKind) -> None:
    """Fact 23: the caller's time is not slept away."""
    assert retries(deadline=10.2).next_wait(failure(kind), now=10.0) == 0.1
    assert retries(deadline=10.1).next_wait(failure(kind), now=10.0) is None


def test_what_is_fatal_is_not_tried_again() -> None:
    """Fact 13."""
    assert retries().next_wait(failure(FailureKind.FATAL), now=0.0) is None


@pytest.mark.parametrize(("left", "longest"), [(60.0, 2.0), (20.0, 1.0), (8.0, 0.4), (0.5, 0.2)])
def test_the_less_time_a_call_has_left_the_shorter_it_waits(left: float, longest: float) -> None:
    """A counted budget keeps its waits, whatever the deadline."""
    waits: list[float | None] = []
    for settings in (WriterSettings(), WriterSettings(max_retries=50)):
        pause = retries(settings, deadline=100.0, random=1.0)
        for _ in range(9):
            pause.next_wait(failure(FailureKind.CONFLICT), now=0.0)
        waits.append(pause.next_wait(failure(FailureKind.CONFLICT), now=100.0 - left))
    assert waits == [longest, 2.0 if left > 2.0 else None]


def test_a_storm_loses_fewer_events_than_with_waits_that_only_grow() -> None:
    """In virtual time: the calls that have waited longest try most often."""
    grow = WriterSettings(max_retries=10**6)
    found = {
        settings: [simulated_storm(settings, 20, 30, 0.06, seed) for seed in range(3)]
        for settings in (WriterSettings(), grow)
    }
    ours, theirs = ([each.calls - each.stored for each in runs] for runs in found.values())
    assert sum(ours) < sum(theirs) / 2
