"""The judge of the nemesis goes red for every kind of wrong, and for nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from random import Random
from uuid import UUID

import pytest
from benchmarks.nemesis.check import (
    USUAL_WINDOW,
    Committed,
    Delivery,
    Pause,
    judge,
    pauses,
    takeovers,
)
from benchmarks.nemesis.load import digest
from hypothesis import given
from hypothesis import strategies as st

Events = dict[UUID, Committed]

KEYS = ("Car/1", "Car/2", "Car/3")


def committed(keys: Sequence[str]) -> Events:
    """An event a key, one a second; a subject's versions have holes, as real ones have."""
    found: Events = {}
    for n, key in enumerate(keys):
        found[UUID(int=n + 1)] = Committed(key, 2 * n + 1, digest(str(n).encode()), float(n))
    return found


def delivery(event_id: UUID, event: Committed, delay: float = 0.5) -> Delivery:
    return Delivery(event_id, *event[:3], event.at + delay)


def in_order(events: Events) -> list[Delivery]:
    return [delivery(*item) for item in events.items()]


runs = st.lists(st.sampled_from(KEYS), min_size=1, max_size=30).map(committed)
chosen = st.randoms(use_true_random=False)


def shuffled(events: Events, random: Random) -> list[Delivery]:
    """Any order that keeps the subjects' own, with some sent again after they were sent."""
    by_key = {key: list(found) for key, found in groupby(sorted(in_order(events), key=_key), _key)}
    result: list[Delivery] = []
    while by_key:
        key = random.choice(sorted(by_key))
        result.append(by_key[key].pop(0))
        if not by_key[key]:
            del by_key[key]
        if random.random() < 0.3:
            result.append(random.choice(result))
    return result


def _key(found: Delivery) -> str:
    return found.key


@given(events=runs, random=chosen)
def test_each_subject_in_order_with_repeats_is_as_it_should_be(
    events: Events, random: Random
) -> None:
    deliveries = shuffled(events, random)
    verdict = judge(events, deliveries)
    assert verdict.holds, verdict.counts
    assert verdict.duplicates == len(deliveries) - len(events)


@given(events=runs, random=chosen)
def test_an_event_that_never_came_is_lost(events: Events, random: Random) -> None:
    gone = random.choice(list(events))
    deliveries = [found for found in shuffled(events, random) if found.event_id != gone]
    verdict = judge(events, deliveries)
    assert list(verdict.lost) == [gone]
    assert not verdict.holds


@given(events=st.lists(st.just(KEYS[0]), min_size=2, max_size=20).map(committed), random=chosen)
def test_two_of_a_subject_that_change_places_are_out_of_order(
    events: Events, random: Random
) -> None:
    deliveries = in_order(events)
    first, second = sorted(random.sample(range(len(deliveries)), 2))
    deliveries[first], deliveries[second] = deliveries[second], deliveries[first]
    verdict = judge(events, deliveries)
    assert verdict.disordered
    assert verdict.counts | {"first deliveries out of order": 0} == dict.fromkeys(verdict.counts, 0)


def test_all_that_come_after_a_later_one_of_their_subject_are_out_of_order() -> None:
    events = committed([KEYS[0]] * 3)
    first, second, third = in_order(events)
    verdict = judge(events, [third, first, second])
    assert list(verdict.disordered) == [first.event_id, second.event_id]


@given(events=runs, random=chosen)
def test_a_message_of_an_event_that_was_not_committed_is_foreign(
    events: Events, random: Random
) -> None:
    deliveries = shuffled(events, random)
    gone = random.choice(list(events))
    rest = {event_id: event for event_id, event in events.items() if event_id != gone}
    verdict = judge(rest, deliveries)
    assert set(verdict.foreign) == {gone}
    assert not verdict.holds


@pytest.mark.parametrize("field", ["key", "sequence", "digest"])
@given(events=runs, random=chosen)
def test_a_message_that_does_not_say_what_was_committed_is_altered(
    field: str, events: Events, random: Random
) -> None:
    deliveries = in_order(events)
    n = random.randrange(len(deliveries))
    wrong = {"key": "Car/9", "sequence": 1_000, "digest": digest(b"other")}[field]
    deliveries[n] = deliveries[n]._replace(**{field: wrong})
    verdict = judge(events, deliveries)
    assert list(verdict.altered) == [deliveries[n].event_id]
    assert not verdict.holds


def test_an_old_event_again_after_a_newer_one_is_a_duplicate_and_no_disorder() -> None:
    events = committed([KEYS[0]] * 2)
    first, second = in_order(events)
    verdict = judge(events, [first, second, first])
    assert verdict.holds
    assert (verdict.duplicates, verdict.duplicates_shown) == (1, 0)


def test_a_stream_with_the_usual_window_shows_what_comes_after_it() -> None:
    events = committed([KEYS[0]])
    (first,) = in_order(events)
    times = [0.0, USUAL_WINDOW - 1, USUAL_WINDOW + 1, USUAL_WINDOW + 2]
    verdict = judge(events, [first._replace(at=first.at + at) for at in times])
    assert (verdict.duplicates, verdict.duplicates_shown) == (3, 1)


def test_a_verdict_holds_only_without_a_wrong_of_any_kind() -> None:
    events = committed([KEYS[0]])
    good = judge(events, in_order(events))
    assert good.holds
    for name in ("lost", "disordered", "foreign", "altered"):
        assert not replace(good, **{name: [UUID(int=1)]}).holds


def test_a_pause_lasts_from_the_commit_or_the_delivery_before_to_the_delivery() -> None:
    events = committed([KEYS[0], KEYS[1], KEYS[0]])
    first, other, late = in_order(events)
    deliveries = [first._replace(at=2.5), other, late._replace(at=9.0), first._replace(at=9.5)]
    found = pauses(events, deliveries, {KEYS[0]: "a", KEYS[1]: "b"})
    assert found == {"a": [Pause(0.0, 2.5), Pause(2.5, 9.0)], "b": [Pause(1.0, 1.5)]}


def test_a_takeover_is_the_longest_wait_of_a_group_after_the_harm() -> None:
    groups = {
        "kept": [Pause(0.0, 0.1), Pause(1.0, 1.1), Pause(2.0, 2.1)],
        "orphaned": [Pause(0.0, 0.1), Pause(1.5, 4.0), Pause(5.0, 5.1)],
    }
    assert takeovers([1.0], [], groups) == [2.5]
    assert takeovers([2.0], [], groups) == [2.0], "not from before the harm"
    began_before = {"kept": [Pause(0.0, 2.2)], "orphaned": [Pause(2.0, 3.0)]}
    assert takeovers([2.0], [], began_before) == [1.0]
    assert takeovers([9.0], [], groups) == [], "nothing came after it"


def test_a_takeover_that_an_outage_made_longer_is_left_out() -> None:
    groups = {"orphaned": [Pause(1.0, 4.0), Pause(5.0, 5.5)]}
    assert takeovers([1.0, 4.5], [Pause(3.0, 3.5)], groups) == [0.5]
