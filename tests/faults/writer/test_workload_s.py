"""Workload S: 20 events of 4 types, 4 workers, one transaction an event.

S-distinct gets its conflicts from the proxy; S-hot makes real ones.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from uuid import UUID

import pytest
from psycopg import errors
from tests.support.dsql.server import ON_DSQL
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import (
    QUICK,
    TIMEOUT,
    Caller,
    Facts,
    OpenWriter,
    Running,
    in_background,
    outcome_of,
    with_workers,
)
from tests.support.writer.checked_tables import Outcome, Tables

from dsql_outbox.observability.facts import AttemptEnded, WriteEnded
from dsql_outbox.outbox import Database, Event, Receipt

CONFLICTS = 3  # of 20: the rate once seen in production
NO_RETRY = replace(QUICK, max_retries=0)


Outcomes = dict[UUID, Outcome]


def write(caller: Caller, event: Event) -> Outcome:
    return outcome_of(partial(caller.write, event))


def run(caller: Caller, events: Sequence[Event]) -> Outcomes:
    """Write all events with 4 workers."""
    outcomes = with_workers(workload_s.WORKERS, partial(write, caller), events)
    return {event.id: outcome for event, outcome in zip(events, outcomes, strict=True)}


def failures(outcomes: Outcomes) -> list[Exception]:
    return [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)]


def test_without_retry_some_of_the_20_events_fail(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    """Fact 1, its control: else the test below would prove nothing."""
    proxy.refuse(CONFLICTS)
    outcomes = run(open_writer(proxy.url, NO_RETRY), workload_s.distinct())
    assert [type(error) for error in failures(outcomes)] == [errors.SerializationFailure] * 3
    tables.assert_true_to(outcomes)
    assert len(tables.events()) == 17


def test_all_20_events_succeed_on_a_database_that_raises_conflicts(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    """Fact 1."""
    proxy.refuse(CONFLICTS)
    outcomes = run(open_writer(proxy.url), workload_s.distinct())
    assert failures(outcomes) == []
    tables.assert_true_to(outcomes)
    assert len(tables.events()) == 20


def test_the_callers_errors_go_while_the_databases_conflicts_stay(
    open_writer: OpenWriter, proxy: PostgresProxy
) -> None:
    """Fact 21: two rates, told apart by facts."""
    seen = []
    for settings in (NO_RETRY, QUICK):
        facts = Facts()
        proxy.refuse(CONFLICTS)
        run(open_writer(proxy.url, settings, [facts]), workload_s.distinct())
        conflicts = [f for f in facts.of(AttemptEnded) if f.outcome == "conflict"]
        failed = [fact for fact in facts.of(WriteEnded) if fact.status == "failed"]
        seen.append((len(conflicts), len(failed)))
    assert seen == [(CONFLICTS, CONFLICTS), (CONFLICTS, 0)]


def test_a_conflicted_event_waits_and_the_others_do_not(
    open_writer: OpenWriter, proxy: PostgresProxy, facts: Facts
) -> None:
    """Fact 19."""
    proxy.refuse(2, matching="INSERT")
    caller = open_writer(proxy.url, replace(QUICK, base=2.0, cap=2.0), [facts])

    def timed(event: Event) -> tuple[Receipt, float]:
        began = monotonic()
        return caller.write(event), monotonic() - began

    results = with_workers(workload_s.WORKERS, timed, workload_s.distinct())
    assert sum(receipt.conflicts for receipt, _ in results) == 2
    for receipt, took in results:
        waited = sum(facts.waits(receipt.event_id))
        assert (waited > 0) == (receipt.conflicts > 0)
        assert waited <= took
        assert receipt.conflicts or took < 2.0


@pytest.fixture
def hot_database(url: str) -> Database:
    """Where real conflicts show: under READ COMMITTED writers only wait for each other."""
    return Database(url, isolation="repeatable read")


def collide(caller: Caller, n: int, events: Sequence[Event], tables: Tables, url: str) -> Outcomes:
    """Write events that touch car `n`, which all of them wait for before the first gets it."""
    with tables.locked(f"CAR-{n}"), Tables(url) as watch:
        running = Running([partial(write, caller, event) for event in events])
        wait_until(lambda: watch.blocked() == len(events))
    return {event.id: outcome for event, outcome in zip(events, running.results(), strict=True)}


def test_hot_entities_make_real_conflicts_and_every_event_is_stored_once(
    open_writer: OpenWriter, hot_database: Database, tables: Tables, facts: Facts, url: str
) -> None:
    """Fact 2."""
    caller = open_writer(hot_database, hooks=[facts])
    outcomes: Outcomes = {}
    for n, events in enumerate(workload_s.hot()):
        outcomes |= collide(caller, n, events, tables, url)
    conflicts = [fact for fact in facts.of(AttemptEnded) if fact.outcome == "conflict"]
    assert conflicts, "void: no conflict happened"
    assert failures(outcomes) == []
    tables.assert_true_to(outcomes)
    assert len(tables.events()) == 20


@pytest.mark.parametrize("isolation", ["repeatable read", "read committed"])
def test_four_writers_that_collide_for_certain_all_succeed(
    open_writer: OpenWriter, url: str, isolation: str, tables: Tables, facts: Facts
) -> None:
    """Fact 2: all wait for one row before the first may write it."""
    caller = open_writer(Database(url, isolation=isolation), hooks=[facts])  # type: ignore[arg-type]
    (events, *_) = workload_s.hot()
    outcomes = collide(caller, 0, events, tables, url)
    assert failures(outcomes) == []
    conflicts = len(facts.waits())
    snapshots = isolation == "repeatable read" or ON_DSQL
    assert conflicts >= 3 if snapshots else conflicts == 0
    tables.assert_true_to(outcomes)
    (car,) = [row for row in tables.entities() if row["entity_type"] == "Car"]
    assert car["version"] == len(events)


def test_without_retry_only_one_of_four_colliding_writers_succeeds(
    open_writer: OpenWriter, hot_database: Database, tables: Tables, url: str
) -> None:
    """Fact 2, its control."""
    caller = open_writer(hot_database, NO_RETRY)
    (events, *_) = workload_s.hot()
    outcomes = collide(caller, 0, events, tables, url)
    assert [type(error) for error in failures(outcomes)] == [errors.SerializationFailure] * 3
    tables.assert_true_to(outcomes)


def test_a_waiting_writer_holds_no_connection_and_blocks_nobody(
    open_writer: OpenWriter, proxy: PostgresProxy, facts: Facts
) -> None:
    """Fact 20: the writer has one connection in all, and its event loop is free."""
    # So long that a machine which stands still for a second does not end the wait.
    settings = replace(QUICK, max_connections=1, base=3.0, cap=3.0)
    caller = open_writer(proxy.url, settings, [facts])
    conflicted, other = workload_s.car_created("CAR-1"), workload_s.car_created("CAR-2")
    proxy.refuse(1)
    pending = in_background(partial(caller.write, conflicted))
    wait_until(lambda: facts.waits(conflicted.id) == [3.0])
    proxy.wait_until_closed(1)
    receipt = caller.write(other)
    assert not pending.done()
    assert receipt.attempts == 1
    assert proxy.opened == 2, "the next one was opened during the wait, for any call"
    assert isinstance(pending.result(TIMEOUT), Receipt)
    ended = [fact.event_id for fact in facts.of(WriteEnded)]
    assert ended == [other.id, conflicted.id]
