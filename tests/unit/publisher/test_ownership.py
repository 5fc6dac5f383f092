"""What a publisher decides about its shards, case by case."""

import math
from collections.abc import Collection

import pytest

from dsql_outbox.publisher import PublisherSettings
from dsql_outbox.publisher.leases.ownership import REST, Ownership, Plan
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.liveness import Lease, Peer, Snapshot

SETTINGS = TunedSettings(lease=10, broker_patience=30, drain=20)
FREE = -math.inf


def own_with(*shards: int, at: float = 0.0) -> Ownership:
    own = Ownership("me", SETTINGS)
    own.note_taken(dict.fromkeys(shards, 6), shards, at)
    return own


def mine(*shards: int, epoch: int = 7) -> list[Lease]:
    return [Lease(shard, "me", epoch, 9) for shard in shards]


def look(
    own: Ownership, leases: list[Lease], now: float, *others: str, busy: Collection[int] = ()
) -> Plan:
    """Plan by a look at leases and at others, who were seen before."""
    own.plan(Snapshot(leases, [Peer(o, now - 3, 3, 10) for o in others]), now, busy=busy)
    return own.plan(Snapshot(leases, [Peer(o, now, 0, 10) for o in others]), now, busy=busy)


# --- shares ----------------------------------------------------------------------------


def test_what_is_free_is_taken_up_to_the_share() -> None:
    own = Ownership("me", SETTINGS)
    leases = [Lease(shard, None, 0, FREE) for shard in range(5)]
    assert len(look(own, leases, 0).take) == 5
    assert len(look(own, leases, 0, "you").take) == 3


def test_a_publisher_whose_sink_was_never_open_takes_no_shard_however_long_that_lasts() -> None:
    own = Ownership("me", SETTINGS, has_sink=False)
    leases = [Lease(shard, None, 0, FREE) for shard in range(5)]
    for now in (0, 40, 4_000):
        assert not look(own, leases, now).take
        assert not own.is_able
        assert own.unowned(now) == 0
    own.note_sink_answer()
    assert own.is_able
    assert len(look(own, leases, 4_001).take) == 5


def test_who_waits_for_its_broker_gets_no_share_until_it_was_seen_twice_without_waiting() -> None:
    own = own_with(0, 1, 2, 3)
    leases = mine(0, 1, 2, 3)
    kept = []
    for now, waits in ((1, True), (4, True), (7, False), (10, False), (13, True)):
        own.plan(Snapshot(leases, [Peer("you", now, 0, 10, waits)]), now)
        kept.append(own.unowned(now) + len(own.usable(now)))
        own.note_taken(dict.fromkeys(range(4), 6), range(4), now)
    assert kept == [4, 4, 4, 2, 4]


def share(owner: str, leases: list[Lease], others: Collection[str]) -> int:
    """The shards of an owner that are left to it, with those that it may take."""
    own = Ownership(owner, SETTINGS)
    held = {each.shard: each.epoch - 1 for each in leases if each.owner == owner}
    own.note_taken(held, held, 0)
    plan = look(own, leases, 0, *(each for each in others if each != owner))
    return len(own.usable(0)) + len(plan.take)


@pytest.mark.parametrize(("shards", "names"), [(16, 10), (16, 3), (4, 5), (1, 1), (6, 6), (0, 2)])
def test_shares_differ_by_one_at_most_and_add_up_to_all_shards(shards: int, names: int) -> None:
    owners = [f"p{n}" for n in range(names)]
    leases = [Lease(shard, None, 0, FREE) for shard in range(shards)]
    shares = [share(owner, leases, owners) for owner in owners]
    assert sum(shares) == shards
    assert shares == sorted(shares, reverse=True)
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("bbbcc", {"a": 1, "b": 2, "c": 2}),
        ("bbccddeeff", {"a": 1, "b": 2, "c": 2, "d": 2, "e": 2, "f": 1}),
        ("bbb", {"a": 1, "b": 2}),
        ("cccccaabbb", {"a": 3, "b": 3, "c": 4}),
    ],
)
def test_no_shard_leaves_its_publisher_that_need_not(before: str, after: dict[str, int]) -> None:
    """A publisher of any name joins or, in the last two cases, has gone."""
    leases = [Lease(shard, owner, 7, 9) for shard, owner in enumerate(before)]
    kept = {owner: min(before.count(owner), most) for owner, most in after.items()}
    assert {owner: share(owner, leases, after) for owner in after} == kept


@pytest.mark.parametrize(("expires_in", "taken"), [(1, False), (-1.9, False), (-2.1, True)])
def test_another_ones_lease_is_taken_after_the_grace(expires_in: float, taken: bool) -> None:
    plan = look(Ownership("me", SETTINGS), [Lease(0, "dead", 4, expires_in)], 0)
    assert plan.take == ({0: 4} if taken else {})


def test_a_lease_that_nobody_renewed_for_its_length_is_taken_whatever_the_database_says() -> None:
    """Its clock has stepped back by 300 s; and the dead one gets no share any more."""
    own = Ownership("me", SETTINGS)
    dead = Peer("dead", 7.0, -290, 20)

    def plan(now: float, ends_at: float = 500.0) -> Plan:
        return own.plan(Snapshot([Lease(0, "dead", 4, 300 - now, ends_at)], [dead]), now)

    assert plan(0).take == {}
    assert plan(21.9).take == {}
    assert plan(21.9).again == pytest.approx(0.15)
    found = plan(22)
    assert (found.take, found.ended) == ({0: 4}, {0: 500.0})
    assert plan(23, 501.0).take == {}, "it was renewed meanwhile"


def test_a_lease_of_unknown_length_ends_by_the_clock_of_the_database() -> None:
    own = Ownership("me", SETTINGS)
    for now in (0, 1000):
        assert own.plan(Snapshot([Lease(0, "other", 4, 300, 500.0)], []), now).take == {}


def test_who_announces_nothing_for_its_lease_gets_no_share_whatever_the_database_says() -> None:
    own, leases = own_with(0, 1), mine(0, 1)
    for now, seen_at in ((0, 6), (3, 9), (12.9, 9)):
        own.plan(Snapshot(leases, [Peer("you", seen_at, -290, 10)]), now)
    assert own._others.names == {"you"}
    own.plan(Snapshot(leases, [Peer("you", 9, -290, 10)]), 13)
    assert own._others.names == set()


@pytest.mark.parametrize(("expires_in", "again"), [(9, 3), (-0.5, 1.5), (-5, 3)])
def test_the_next_look_comes_when_a_lease_can_be_taken(expires_in: float, again: float) -> None:
    assert look(Ownership("me", SETTINGS), [Lease(0, "dead", 4, expires_in)], 0).again == again


@pytest.mark.parametrize(
    ("has", "announced", "progresses", "again"),
    [
        ([], "you", True, 0.3),
        ([0], "you", True, 3),
        ([], "who does not own it", True, 3),
        ([], "you", False, 3),
    ],
)
def test_who_awaits_a_shard_looks_often_until_its_owner_releases_it(
    has: list[int], announced: str, progresses: bool, again: float
) -> None:
    own = own_with(*has)
    leases = [*mine(*has), *(Lease(shard, "you", 4, 9) for shard in (0, 1) if shard not in has)]
    look(own, leases, 0, announced)
    peers = [Peer(announced, 1, 0, 10)]
    plan = own.plan(Snapshot(leases, peers), 1, progresses=progresses)
    assert plan.again == pytest.approx(again)


def test_a_lease_whose_taking_was_not_answered_is_taken_again_with_the_next_epoch() -> None:
    assert look(Ownership("me", SETTINGS), mine(0), 0).take == {0: 7}


# --- what may be sent ------------------------------------------------------------------


def test_the_deadline_counts_from_before_the_renewal_was_sent() -> None:
    own = own_with(0)
    assert own.deadline(0, 7) == 9
    own.note_renewal([0], {0}, 3)
    assert own.deadline(0, 7) == 12
    assert own.usable(11.9) == {0: 7}
    assert own.may_send(0, 7, 11.9)
    assert own.has_lease(0, 7, 11.9)
    assert not own.has_lease(0, 6, 11.9)
    assert own.usable(12) == {}
    assert not own.may_send(0, 7, 12)
    assert not own.has_lease(0, 7, 12)


def test_a_lease_that_ended_is_not_owned_until_it_is_renewed() -> None:
    own = own_with(0)
    assert own.usable(9) == {}
    assert look(own, mine(0), 20).renew == {0: 7}
    own.note_renewal([0], {0}, 20)
    assert own.usable(20) == {0: 7}


def test_what_was_read_before_a_shard_was_lost_is_not_sent_after_it_was_won_back() -> None:
    """It may be delivered by now."""
    own = own_with(0)
    own.note_renewal([0], set(), 3)
    assert own.deadline(0, 7) == -math.inf
    own.note_taken({0: 8}, {0}, 3)
    assert not own.may_send(0, 7, 4)
    assert own.deadline(0, 7) == -math.inf
    assert own.may_send(0, 9, 4)
    assert own.usable(4) == {0: 9}


def test_a_foreign_shard_may_not_be_sent() -> None:
    own = own_with(0)
    assert not own.may_send(1, 7, 0)
    assert own.deadline(1, 7) == -math.inf


# --- drain and release -----------------------------------------------------------------


def test_what_it_lacks_of_its_share_is_known() -> None:
    own = Ownership("me", SETTINGS)
    assert own.unowned(0) == 0, "nobody has looked"
    held = Lease(0, "you", 3, 9)
    own.note_taken(own.plan(Snapshot([held, Lease(1, None, 0, FREE)], []), 0).take, [1], 0)
    assert own.unowned(0) == 1
    assert own.unowned(20) == 2, "its own lease has ended"
    own.stop(0)
    own.plan(Snapshot([held], []), 0)
    assert own.unowned(0) == 0


def test_who_has_more_than_its_share_drains_first_and_then_releases() -> None:
    own = own_with(0, 1, 2, 3)
    plan = look(own, mine(0, 1, 2, 3), 1, "you", busy={0, 1, 2, 3})
    assert (len(plan.renew), plan.release) == (4, {})
    draining = {0, 1, 2, 3} - own.usable(1).keys()
    assert len(draining) == 2
    shard = min(draining)
    assert not own.may_send(shard, 7, 1), "nothing more of it is sent"
    assert own.deadline(shard, 7) == 9, "what is on its way goes on"
    assert own.has_lease(shard, 7, 8.9), "and is settled"
    assert own.leaving == draining
    plan = look(own, mine(0, 1, 2, 3), 1, "you", busy={0, 1, 2, 3} - {shard})
    assert (len(plan.renew), plan.release) == (3, {shard: 7})


def test_what_stays_is_not_released_when_it_is_idle() -> None:
    own = own_with(0, 1)
    assert own.leaving == set()
    assert look(own, mine(0, 1), 1).release == {}


def test_a_release_without_an_answer_is_asked_again_and_the_shard_stays_unused() -> None:
    own = own_with(0, 1)
    (shard,) = look(own, mine(0, 1), 1, "you").release
    assert look(own, mine(0, 1), 2, "you").release == {shard: 7}
    assert look(own, mine(0, 1), 2).release == {shard: 7}, "and when the share is larger again"
    assert shard not in own.usable(2)


def test_a_renewal_that_was_refused_ends_the_sending_at_once() -> None:
    own = own_with(0, 1)
    own.note_renewal([0, 1], {1}, 3)
    assert own.usable(3) == {1: 7}


def test_the_same_share_moves_nothing() -> None:
    own = own_with(0, 1)
    leases = [*mine(0, 1), Lease(2, "you", 1, 9)]
    plan = look(own, leases, 1, "you")
    assert (plan.renew, plan.release, plan.take) == ({0: 7, 1: 7}, {}, {})


def test_a_publisher_counts_when_it_was_seen_alive_twice() -> None:
    own = own_with(0, 1)
    for n in range(5):
        starts_and_dies = Peer(f"p{n}", n, 0.5, 10)
        assert not own.plan(Snapshot(mine(0, 1), [starts_and_dies]), n).release
    assert look(own, mine(0, 1), 9, "you").release


def test_old_publishers_are_pruned() -> None:
    own = own_with(0)
    assert not own.plan(Snapshot(mine(0), [Peer("dead", 0, 99, 10)]), 1).prune
    assert own.plan(Snapshot(mine(0), [Peer("dead", 0, 101, 10)]), 1).prune


@pytest.mark.parametrize(
    ("lease", "age", "counts"),
    [
        (60, 59, True),
        (60, 61, False),
        (2, 1.9, True),
        (2, 2.1, False),
    ],
)
def test_another_counts_for_a_lease_of_its_own(lease: float, age: float, counts: bool) -> None:
    own = own_with(0, 1)
    own.plan(Snapshot(mine(0, 1), [Peer("you", 1, 0, lease)]), 1)
    plan = own.plan(Snapshot(mine(0, 1), [Peer("you", 2, age, lease)]), 2)
    assert bool(plan.release) is counts


@pytest.mark.parametrize(("lease", "forgotten"), [(60, 600), (2, 20)])
def test_another_is_pruned_after_ten_leases_of_its_own(lease: float, forgotten: float) -> None:
    own = own_with(0)
    assert not own.plan(Snapshot(mine(0), [Peer("dead", 0, forgotten - 1, lease)]), 1).prune
    assert own.plan(Snapshot(mine(0), [Peer("dead", 0, forgotten + 1, lease)]), 1).prune


def test_who_stops_sends_nothing_more_and_releases_what_is_not_busy() -> None:
    own = own_with(0, 1)
    own.stop(1)
    assert not own.is_able
    assert own.usable(1) == {}
    assert not own.may_send(0, 7, 1)
    assert own.leaving == {0, 1}
    free = Lease(2, None, 0, FREE)
    plan = look(own, [*mine(0, 1), free], 2, busy={0})
    assert (plan.renew, plan.release, plan.take) == ({0: 7}, {1: 7}, {})
    assert look(own, [*mine(0, 1), free], 2).release == {0: 7, 1: 7}


def test_what_is_on_its_way_when_it_stops_has_a_limit() -> None:
    own = own_with(0)
    own.stop(0)
    own.note_renewal([0], {0}, 18)
    assert own.deadline(0, 7) == 20
    own.stop(5)
    assert own.deadline(0, 7) == 20, "the second stop gives no more time"


def test_who_alone_has_a_broken_broker_leaves_its_shards_and_comes_back_after_a_rest() -> None:
    own = own_with(0)
    own.note_sink_failure(0)
    own.note_sink_failure(20)
    assert not own.is_able
    assert not look(own, mine(0), 29, "you").release
    assert look(own, mine(0), 31, "you").release == {0: 7}
    own.note_release([0])
    free = [Lease(0, None, 7, FREE)]
    assert not look(own, free, 32, "you").take
    assert not own.is_able
    look(own, free, 31 + REST * 30 + 1, "you")
    assert own.is_able


def test_while_the_broker_fails_for_everybody_all_keep_their_shards() -> None:
    """Who fails does not announce itself: nobody is seen."""
    own = own_with(0)
    own.note_sink_failure(0)
    assert look(own, mine(0), 1000).renew == {0: 7}
    own.note_sink_answer()
    assert own.is_able


def test_who_rests_takes_over_when_nobody_else_is_left() -> None:
    own = own_with(0)
    own.note_sink_failure(0)
    look(own, mine(0), 31, "you")
    own.note_release([0])
    assert look(own, [Lease(0, "you", 8, -5)], 60).take == {0: 8}


# --- progress --------------------------------------------------------------------------


def test_without_progress_nothing_is_renewed_or_taken_until_there_is_some() -> None:
    own = own_with(0, 1)
    seen = Snapshot([*mine(0, 1), Lease(2, None, 0, FREE)], [])
    plan = own.plan(seen, 3, busy={0}, progresses=False)
    assert (plan.renew, plan.take, plan.release) == ({}, {}, {})
    assert own.usable(9) == {}
    plan = own.plan(seen, 10, busy={0}, progresses=True)
    assert (plan.renew, plan.take) == ({0: 7, 1: 7}, {2: 0})


def test_what_another_took_in_the_meantime_is_not_renewed() -> None:
    own = own_with(0, 1)
    plan = own.plan(Snapshot([*mine(1), Lease(0, "you", 8, 9)], []), 20)
    assert plan.renew == {1: 7}
    assert own.deadline(0, 7) == -math.inf


@pytest.mark.parametrize(("lease", "times"), [(10, (3, 1, 2)), (0.5, (0.15, 0.05, 0.1))])
def test_the_other_times_follow_from_the_lease(lease: float, times: tuple[float, ...]) -> None:
    found = PublisherSettings(lease=lease)
    assert (found.renew, found.margin, found.grace) == pytest.approx(times)
    assert 2 * found.renew < found.lease - found.margin, "two renewals may fail"
