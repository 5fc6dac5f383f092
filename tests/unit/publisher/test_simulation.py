"""The relay and its leases in virtual time, on models of the tables and the broker."""

import pytest
from benchmarks.simulation.defects import DEFECTS
from benchmarks.simulation.random_schedules import random_schedule
from benchmarks.simulation.schedule import Clock, Fault, Replay, Schedule, Target, Write
from benchmarks.simulation.verdict import verdict

SLICE = 20

KEPT = {
    "a burial that fails, and a lease that ends and is renewed": Schedule(
        seed=5178,
        shards=2,
        clocks=(Clock(),),
        writes=(Write(at=5.0, subject=5, retries=9), Write(at=1.93, subject=3, rows=2)),
        faults=(
            Fault(kind="statements lossy", at=7.16, length=11.0, of=0),
            Fault(kind="changes cut", at=3.76, length=15.0, of=0),
        ),
    ),
    "a lease ends before a failure is recorded, and is renewed under its epoch": Schedule(
        seed=538038649,
        shards=1,
        clocks=(Clock(), Clock(rate=0.97, offset=261.0)),
        writes=(
            Write(at=0.38, subject=0, rows=4),
            Write(at=1.46, subject=0, rows=4),
            Write(at=0.58, subject=1, rows=2, retries=9),
            Write(at=1.12, subject=0, rows=4),
            Write(at=1.7, subject=0),
        ),
        faults=(
            Fault(kind="broker lossy", at=2.0, length=9.1, of=1),
            Fault(kind="leases slow", at=3.64, length=15.0, of=1),
        ),
        slow=0.3,
        start=2.0,
    ),
    "a full subject whose topic is refused": Schedule(
        seed=60,
        shards=2,
        clocks=(Clock(),),
        writes=(Write(at=0.5, subject=0, rows=4),),
        faults=(Fault(kind="topic away", at=0.79, length=6.4, of=0),),
        block=True,
        slow=0.3,
    ),
    "a topic is tried with a row that waits": Schedule(
        seed=19,
        shards=4,
        clocks=(Clock(),),
        writes=(Write(at=8.74, subject=3, rows=2),),
        faults=(
            Fault(kind="topic away", at=8.78, length=11.8, of=0),
            Fault(kind="broker away", at=10.76, length=6.0, of=0),
        ),
    ),
    "the same, when the first row to try it with is gone": Schedule(
        seed=2700,
        shards=4,
        clocks=(Clock(), Clock()),
        writes=(
            Write(at=3.13, subject=5),
            Write(at=2.22, subject=2, rows=2, late=0.66, topic=2),
            Write(at=6.58, subject=2, rows=4, retries=1),
        ),
        faults=(
            Fault(kind="topic away", at=4.7, length=10.1, of=2),
            Fault(kind="broker lossy", at=0.73, length=15.0, of=0),
        ),
        slow=0.3,
    ),
    "a topic comes back while statements get lost": Schedule(
        seed=2817,
        shards=4,
        clocks=(Clock(), Clock()),
        writes=(Write(at=1.63, subject=1), Write(at=7.61, subject=2, rows=2)),
        faults=(
            Fault(kind="topic away", at=1.95, length=19.8, of=0),
            Fault(kind="statements lossy", at=5.47, length=15.0, of=1),
            Fault(kind="pause", at=1.02, length=15.0, of=0),
            Fault(kind="statements lossy", at=2.12, length=15.0, of=0),
        ),
    ),
    "a replay while topic and broker are away": Schedule(
        seed=345,
        shards=3,
        clocks=(Clock(),),
        writes=(
            Write(at=1.15, subject=4),
            Write(at=5.01, subject=4),
            Write(at=2.07, subject=4, rows=2),
            Write(at=4.92, subject=0, ahead=3600.0),
        ),
        faults=(
            Fault(kind="topic away", at=2.48, length=6.3, of=0),
            Fault(kind="broker away", at=5.37, length=6.0, of=0),
        ),
        replays=(Replay(at=2.76, write=0),),
    ),
    "a replay has the position of an event that is written later": Schedule(
        seed=167,
        shards=1,
        clocks=(Clock(),),
        writes=(
            Write(at=3.4, subject=5),
            Write(at=3.95, subject=1),
            Write(at=7.36, subject=3),
            Write(at=7.19, subject=0),
            Write(at=0.19, subject=3, ahead=3600.0),
            Write(at=5.82, subject=0),
            Write(at=6.61, subject=3),
        ),
        faults=(Fault(kind="topic away", at=3.22, length=6.7, of=0),),
        replays=(Replay(at=6.03, write=4),),
    ),
    "a late commit soon after the start": Schedule(
        seed=2,
        shards=4,
        clocks=(Clock(offset=86.0, host=-3600.0),),
        writes=(Write(at=6.64, subject=4, late=1.63),),
    ),
    "a failure is to be recorded when the lease ends": Schedule(
        seed=24,
        shards=1,
        clocks=(Clock(), Clock()),
        writes=(
            Write(at=2.53, subject=5, retries=1),
            Write(at=3.96, subject=1),
            Write(at=2.08, subject=4),
            Write(at=2.09, subject=5, rows=4, late=1.95, retries=2),
        ),
        faults=(
            Fault(kind="statements lossy", at=5.65, length=2.0, of=0),
            Fault(kind="leases silent", at=6.93, length=11.0, of=0),
        ),
    ),
    "the tables take no changes for a moment at the stop": Schedule(
        seed=27,
        shards=1,
        clocks=(Clock(rate=0.97, offset=782.0),),
        writes=(
            Write(at=0.66, subject=3, retries=1),
            Write(at=0.34, subject=0, rows=3),
        ),
        faults=(
            Fault(kind="stop", at=0.83, length=0.0, of=0),
            Fault(kind="changes cut", at=1.03, length=0.4, of=0),
        ),
        slow=0.3,
        sweeps=30.0,
    ),
    "the tables take no changes for longer than a stop waits": Schedule(
        seed=5555,
        shards=1,
        clocks=(Clock(),),
        writes=(Write(at=6.69, subject=2),),
        faults=(
            Fault(kind="changes cut", at=0.87, length=15.0, of=0),
            Fault(kind="stop", at=6.78, length=6.0, of=0),
        ),
        block=True,
    ),
    "a shard is handed over while a call has messages of another one": Schedule(
        seed=3000569,
        shards=2,
        clocks=(Clock(rate=1.03, offset=731.0, host=3600.0), Clock()),
        writes=(
            Write(at=0.3, subject=0),
            Write(at=4.03, subject=1, late=0.68),
            Write(at=2.27, subject=0),
            Write(at=0.62, subject=5),
            Write(at=4.93, subject=2),
            Write(at=2.25, subject=2, retries=1),
        ),
        slow=0.3,
    ),
    "the same, when the shard drains for a while": Schedule(
        seed=785157,
        shards=2,
        clocks=(Clock(), Clock(rate=0.97, offset=730.0)),
        writes=(
            Write(at=5.97, subject=5),
            Write(at=6.02, subject=2),
            Write(at=1.23, subject=4),
            Write(at=0.5, subject=0, rows=70),
        ),
        slow=0.3,
    ),
    "the same, and the other publisher sends it again": Schedule(
        seed=3008974,
        shards=3,
        clocks=(Clock(), Clock()),
        writes=(
            Write(at=2.83, subject=2),
            Write(at=3.01, subject=3, late=1.29),
            Write(at=4.99, subject=4, retries=1),
            Write(at=1.27, subject=4, rows=2),
            Write(at=1.25, subject=3, late=2.57),
            Write(at=0.27, subject=5),
            Write(at=1.97, subject=2),
        ),
        slow=0.3,
    ),
    "a message fails while its shard drains": Schedule(
        seed=20262899,
        shards=4,
        clocks=(Clock(), Clock(rate=0.97, offset=253.0, host=-3600.0)),
        writes=(
            Write(at=1.94, subject=4),
            Write(at=5.71, subject=1, retries=1),
            Write(at=3.98, subject=3, late=1.41, retries=1),
        ),
        slow=0.3,
        sweeps=30.0,
    ),
    "a failure is answered when a publisher that stood still goes on": Schedule(
        seed=86101328,
        shards=3,
        clocks=(Clock(), Clock()),
        writes=(
            Write(at=2.02, subject=2, late=1.94, retries=1),
            Write(at=1.01, subject=5, retries=9),
        ),
        faults=(
            Fault(kind="pause", at=4.04, length=11.0, of=1),
            Fault(kind="statements lossy", at=5.52, length=15.0, of=0),
        ),
        slow=0.3,
    ),
    "a message fails while its shard drains, at its last attempt": Schedule(
        seed=20261537,
        shards=2,
        clocks=(Clock(), Clock(rate=1.03, offset=429.0)),
        writes=(
            Write(at=3.49, subject=4, retries=9),
            Write(at=0.5, subject=5, rows=37),
        ),
        slow=0.3,
    ),
    "a blocked row that no table knows is due while its topic is tried with another one": Schedule(
        seed=41001787,
        shards=3,
        clocks=(Clock(rate=1.03, offset=193.0),),
        writes=(
            Write(at=5.99, subject=1, retries=1),
            Write(at=0.98, subject=0, rows=2),
            Write(at=4.69, subject=5, retries=9),
            Write(at=2.76, subject=3, late=0.86),
        ),
        faults=(
            Fault(kind="topic away", at=7.31, length=12.2, of=0),
            Fault(kind="statements lossy", at=7.03, length=2.0, of=0),
            Fault(kind="changes cut", at=1.99, length=11.0, of=0),
            Fault(kind="broker lossy", at=4.62, length=2.0, of=0),
            Fault(kind="leases silent", at=5.16, length=6.0, of=0),
        ),
        block=True,
        slow=0.3,
    ),
    "a target opens while a subject is ahead of the clock": Schedule(
        seed=218,
        shards=3,
        clocks=(Clock(),),
        writes=(
            Write(at=7.47, subject=1, ahead=3600.0),
            Write(at=7.77, subject=1, early=2.0),
            Write(at=9.0, subject=1),
        ),
        targets=(Target(kind="sink", at=7.24), Target(kind="model", at=7.3)),
    ),
    "a function fails in each way beside a sink that is dead": Schedule(
        seed=1,
        shards=2,
        clocks=(Clock(),),
        writes=(
            Write(at=0.5, subject=0, rows=3, ill="raises", ills=1),
            Write(at=0.5, subject=1, rows=3, ill="swallows an error", ills=9),
            Write(at=0.5, subject=2, ill="ends the transaction", ills=1),
            Write(at=0.6, subject=3, rows=2, ill="hangs", ills=1),
            Write(at=1.5, subject=4, rows=4),
        ),
        faults=(
            Fault(kind="broker away", at=0.0, length=30.0, of=0, target=1),
            Fault(kind="statements lossy", at=1.0, length=11.0, of=0, target=2),
        ),
        targets=(Target(kind="sink"), Target(kind="model"), Target(kind="model", publishers=2)),
    ),
    "a function fails while another one hangs and its shard drains": Schedule(
        seed=538004131,
        shards=4,
        clocks=(Clock(),),
        writes=(
            Write(at=4.07, subject=2, ill="hangs", ills=1),
            Write(at=3.41, subject=5, ill="raises", ills=9),
        ),
        block=True,
        start=8.0,
        targets=(
            Target(kind="sink", publishers=2),
            Target(kind="sink"),
            Target(kind="model", publishers=2),
        ),
    ),
    "a read is cut before the rows of a subject that come back with it": Schedule(
        seed=717,
        shards=1,
        clocks=(Clock(),),
        writes=(
            Write(at=2.28, subject=4, rows=4, late=1.3),
            Write(at=7.32, subject=0, retries=1),
            Write(at=1.96, subject=0, rows=3, retries=1),
            Write(at=5.51, subject=3, rows=3, late=0.6),
            Write(at=1.62, subject=5, retries=1),
        ),
        faults=(
            Fault(kind="broker away", at=0.0, length=30.0, of=0, target=1),
            Fault(kind="broker away", at=0.0, length=30.0, of=1, target=1),
        ),
        block=True,
        slow=0.3,
        sweeps=30.0,
        targets=(Target(kind="sink", publishers=2),),
    ),
    "a failure is recorded late, after a later one of its message": Schedule(
        seed=70219,
        shards=2,
        clocks=(Clock(rate=0.97, offset=155.0), Clock()),
        writes=(
            Write(at=2.43, subject=3, rows=2, retries=9),
            Write(at=1.02, subject=2, late=0.82),
            Write(at=4.4, subject=0, rows=2),
            Write(at=1.9, subject=0, retries=2),
            Write(at=0.14, subject=5, late=2.39, rejected=True),
            Write(at=1.9, subject=3, rows=4),
            Write(at=0.43, subject=5, retries=1),
        ),
        faults=(Fault(kind="statements lossy", at=4.94, length=11.0, of=0),),
    ),
    "a message of a model always fails, behind another one of its run": Schedule(
        seed=444,
        shards=1,
        clocks=(Clock(),),
        writes=(
            Write(at=0.78, subject=0, rows=2),
            Write(at=1.77, subject=0),
            Write(at=1.18, subject=2, rows=4),
            Write(at=1.46, subject=0, rows=2),
            Write(at=0.54, subject=1, rows=2),
            Write(at=0.76, subject=1, rows=4),
            Write(at=1.71, subject=2, ill="raises", ills=1_000),
            Write(at=1.26, subject=1, rows=6),
            Write(at=1.74, subject=0, rows=6),
            Write(at=1.01, subject=2),
        ),
        start=2.0,
        targets=(Target("model"),),
    ),
}
"""Schedules that broke a rule once."""

FOUND_BY = {"keep_the_suspect": "a message of a model always fails, behind another one of its run"}
"""The kept schedule that finds a defect which random ones hardly ever meet."""

FOUND_AT = {
    "drop_a_delete": 1,
    "reuse_a_key": 57,
    "renew_without_progress": 29,
    "count_an_outage": 0,
    "pass_over_the_first": 2,
    "trust_the_host": 7,
    "end_at_a_refusal": 26,
    "ignore_the_epoch": 12,
    "keep_old_rows": 83,
    "forget_due_retries": 47,
    "forget_passed_rows": 257,
    "bury_without_lease": 23,
    "record_without_lease": 101,
    "forget_the_wait": 5,
    "try_blocked_rows": 11,
    "wait_as_at_first": 0,
    "never_cut_a_call": 132,
    "reuse_a_dedupe_id": 1,
    "count_from_the_answer": 44,
    "send_paused_topics": 4,
    "leave_at_the_end": 8,
    "never_go_home": 184,
    "settle_behind_a_failure": 2,
    "count_the_unattempted": 4,
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
}
"""The first seeds that find a defect today."""

FEW = 400
"""How many seeds find any defect, whatever changes in the random schedules."""


@pytest.mark.parametrize(
    "first",
    [0, SLICE, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2 * SLICE, 100, SLICE))],
)
def test_whatever_fails_the_relay_keeps_its_promises(first: int) -> None:
    """No loss, no disorder, nothing charged that is no fault, and the healthy leave in time."""
    schedules = map(random_schedule, range(first, first + SLICE))
    broken = {each.seed: rules for each in schedules if (rules := verdict(each)[1])}
    assert broken == {}


@pytest.mark.parametrize("name", KEPT)
def test_a_schedule_that_broke_a_rule_once_breaks_none(name: str) -> None:
    assert verdict(KEPT[name])[1] == []


@pytest.mark.parametrize(
    "defect",
    [pytest.param(name, marks=[pytest.mark.slow] * (n % 4 != 1)) for n, name in enumerate(DEFECTS)],
)
def test_a_planted_defect_is_found(defect: str) -> None:
    if defect in FOUND_BY:
        assert verdict(KEPT[FOUND_BY[defect]], defect)[1]
        return
    seeds = range(FOUND_AT[defect], FOUND_AT[defect] + FEW)
    broken = next(filter(None, (verdict(random_schedule(seed), defect)[1] for seed in seeds)))
    assert not [rule for rule in broken if "TypeError" in rule], "it fits the code no longer"
