"""What a retry shows to those who watch, and what a write costs when nothing goes wrong."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, Facts, OpenWriter, formed, only_single, outcome_of

from dsql_outbox.observability.facts import AttemptEnded, RetryScheduled
from dsql_outbox.outbox import Database, Event, Receipt
from dsql_outbox.writer import Transaction, Writer
from dsql_outbox.writer.attempt.journal import NAMED

pytestmark = pytest.mark.client

TEXT = "Transaction conflict (OC000) detected"
PREPARES_AFTER = 5  # executions of one statement on one connection, psycopg's default


def test_each_retry_is_one_warning_that_carries_what_monitoring_needs(
    open_writer: OpenWriter, proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Facts 16 and 17: four conflicts, three retries."""
    proxy.refuse(None)
    event = workload_s.car_created()
    outcome_of(partial(open_writer(proxy.url).write, event))
    keys = ("event_id", "attempt", "limit", "wait_s", "sqlstate", "oc_class")
    warnings = [each for each in caplog.records if TEXT in each.getMessage()]
    assert [tuple(vars(record)[key] for key in keys) for record in warnings] == [
        (str(event.id), n, 3, wait * QUICK.base, "40001", "OC000")
        for n, wait in ((1, 1), (2, 2), (3, 4))
    ]


def test_a_transaction_is_one_line_and_not_one_per_event(
    proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.refuse(1)
    events = [workload_s.car_created() for _ in range(100)]
    with Writer(Database(proxy.url), formed(QUICK)) as writer:
        assert all(isinstance(end, Receipt) for end in writer.write_many(events))
    (record,) = caplog.records
    named = f"{TEXT} for event {events[0].id} (Car/CAR-1) and 99 more, attempt 1 at "
    assert named in record.getMessage()


def test_a_conflict_names_the_entities_of_its_events(
    proxy: PostgresProxy, facts: Facts, caplog: pytest.LogCaptureFixture
) -> None:
    """Not a change of the schema, which is about a table: an operator would look at the wrong."""
    event = workload_s.three_entities()
    keys = tuple(f"{each.type}/{each.id}" for each in event.entities)

    def append(transaction: Transaction) -> None:
        transaction.append(event)

    with Writer(Database(proxy.url), formed(QUICK), hooks=[facts]) as writer:
        proxy.refuse(1)
        writer.write(event)
        proxy.refuse(1, message="schema has been updated by another transaction (OC001)")
        writer.write(workload_s.three_entities())
        event = workload_s.three_entities()
        proxy.refuse(1, at="commit")
        writer.transact(append)
    assert [fact.entities for fact in facts.of(RetryScheduled)] == [keys, (), keys]
    failed = [fact.entities for fact in facts.of(AttemptEnded) if fact.outcome == "conflict"]
    assert failed == [keys, (), keys]
    in_log = [vars(record).get("entities") for record in caplog.records]
    assert in_log == [[*keys], None, [*keys]]
    assert f"({', '.join(keys)})" in caplog.records[0].getMessage()


def test_of_a_large_conflict_some_entities_are_named(proxy: PostgresProxy, facts: Facts) -> None:
    proxy.refuse(1)
    with Writer(Database(proxy.url), formed(QUICK), hooks=[facts]) as writer:
        writer.write(workload_s.many_entities("note", 40))
    (fact,) = facts.of(RetryScheduled)
    assert len(fact.entities) == NAMED == len({*fact.entities})


def test_a_transact_names_the_first_of_its_events_and_no_event_before_it_has_one(
    proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    appended: list[Event] = []

    def sell(transaction: Transaction) -> None:
        appended.extend(workload_s.car_created() for _ in range(2))
        for event in appended[-2:]:
            transaction.append(event)

    with Writer(Database(proxy.url), formed(QUICK)) as writer:
        writer.transact(lambda _: None)
        proxy.cut_all()
        proxy.refuse_connections(1)
        writer.transact(sell)
        proxy.refuse(1, at="commit")
        writer.transact(sell)
    down, conflict = [each for each in caplog.records if "retry in" in each.getMessage()]
    assert "detected in transact, attempt " in down.getMessage()
    assert (vars(down)["event_id"], vars(down)["events"]) == (None, 0)
    first = appended[2].id
    assert (
        f"{TEXT} for event {first} (Car/CAR-1) and 1 more, attempt 1 at " in conflict.getMessage()
    )
    assert (vars(conflict)["event_id"], vars(conflict)["events"]) == (str(first), 2)


@pytest.mark.pairs
@only_single("preparing takes no round trip of its own")
@pytest.mark.parametrize("max_retries", [0, 3])
@pytest.mark.parametrize(
    "event", [workload_s.car_created, workload_s.three_entities], ids=["1 entity", "3 entities"]
)
def test_a_write_without_conflict_is_one_round_trip(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    facts: Facts,
    event: Callable[[], Event],
    max_retries: int,
) -> None:
    """Fact 18: the same with retry and without.

    The first write also reads the number of shards. One more round trip is
    psycopg's: it prepares a statement when it is executed for the sixth time on
    a connection.
    """
    settings = replace(QUICK, max_retries=max_retries)
    caller = open_writer(proxy.url, settings, [facts])
    trips = []
    for _ in range(12):
        proxy.reset_counts()
        caller.write(event())
        trips.append(proxy.round_trips)
    expected = [1] * 12
    expected[0] += 1
    expected[PREPARES_AFTER] += 1
    assert trips == expected
    assert proxy.opened == 1
    assert facts.waits() == []
    assert all(fact.waited_s == 0.0 for fact in facts.of(AttemptEnded))
