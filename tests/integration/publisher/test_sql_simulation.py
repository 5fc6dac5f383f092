"""The real statements, of several sessions on a real server, in orders that seeds choose."""

from collections.abc import Collection
from typing import Final

import pytest
from benchmarks.sql_simulation.actors import ACTORS, SHARDS
from benchmarks.sql_simulation.defects import DEFECTS, planted
from benchmarks.sql_simulation.schedule import Verdict, verdict
from tests.support.outbox_databases import OutboxDatabases

pytestmark = pytest.mark.postgres_only("a session waits for the locks of others")

FIRST: Final = range(len(ACTORS))

FOUND_AT = {
    "delete_by_position": 0,
    "delete_in_all_targets": 22,
    "give_attempts_back": 4,
    "release_a_blocked_message": 2,
    "forget_by_position": 7,
    "list_by_position": 2,
    "find_by_position": 5,
    "sweep_nothing_at_a_position_in_use": 42,
    "bury_by_position": 0,
    "bury_and_forget_by_position": 34,
    "copy_by_position": 19,
    "wait_for_another_subject": 1,
    "wait_for_another_type": 37,
    "wait_for_a_later_row": 1,
    "read_the_place_itself": 48,
    "read_a_row_less": 1,
    "pass_over_all_of_a_subject": 13,
    "take_from_another_epoch": 0,
    "take_what_another_has": 6,
    "take_under_the_same_epoch": 0,
    "renew_another_epoch": 13,
    "renew_for_another": 6,
    "beat_for_another_epoch": 21,
    "release_another_epoch": 9,
    "write_at_an_old_position": 6,
    "name_the_last_but_one": 6,
    "replay_at_an_old_position": 1,
    "replay_a_replay_that_waits": 19,
    "retry_at_an_old_position": 49,
    "retry_and_keep_the_letter": 49,
    "fill_under_another_epoch": 8,
    "fill_a_dropped_target": 4,
    "write_for_a_dropped_target": 4,
    "fill_another_shard": 2,
    "forget_what_a_replay_names": 11,
}
"""A seed that finds each defect today."""

FEW = 40
"""How many seeds find any defect, whatever changes in the schedules."""


def run(databases: OutboxDatabases, seed: int) -> Verdict:
    with databases.lent(SHARDS) as url:
        return verdict(seed, url)


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(FIRST, id="first"),
        pytest.param({*FOUND_AT.values()} - {*FIRST}, id="finding", marks=pytest.mark.slow),
    ],
)
def test_in_whatever_order_the_statements_run_the_tables_keep_their_rules(
    outbox_databases: OutboxDatabases, seeds: Collection[int]
) -> None:
    """What publishers ask does what it does on the models of the simulation."""
    verdicts = {seed: run(outbox_databases, seed) for seed in seeds}
    assert {seed: each.broken for seed, each in verdicts.items() if each.broken} == {}


def test_a_schedule_depends_on_its_seed_only(outbox_databases: OutboxDatabases) -> None:
    one, two = (run(outbox_databases, 3).turns for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    "defect",
    [pytest.param(name, marks=[pytest.mark.slow] * (n % 6 != 1)) for n, name in enumerate(DEFECTS)],
)
def test_a_planted_defect_is_found(outbox_databases: OutboxDatabases, defect: str) -> None:
    with planted(DEFECTS[defect]):
        seeds = range(FOUND_AT[defect], FOUND_AT[defect] + FEW)
        assert any(run(outbox_databases, seed).broken for seed in seeds)
