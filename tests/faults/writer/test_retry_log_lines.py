"""What a retry shows to those who watch, and what a write costs when nothing goes wrong."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, Facts, OpenWriter, formed, only_single, outcome_of

from dsql_outbox.observability import AttemptEnded, RetryScheduled
from dsql_outbox.outbox import Database, Event, Receipt
from dsql_outbox.testing import PostgresProxy
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.client

TEXT = "Transaction conflict (OC000) detected"
PREPARES_AFTER = 5  # executions of one statement on one connection, psycopg's default


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if TEXT in record.getMessage()]


@pytest.mark.parametrize("conflicts", [0, 1, 3])
def test_each_retry_is_one_warning(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    caplog: pytest.LogCaptureFixture,
    conflicts: int,
) -> None:
    """Fact 16."""
    proxy.refuse(conflicts)
    receipt = open_writer(proxy.url).write(workload_s.car_created())
    assert receipt.conflicts == conflicts
    assert len(warnings(caplog)) == len(caplog.records) == conflicts


def test_the_failure_that_is_not_retried_is_no_warning(
    open_writer: OpenWriter, proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Fact 16: four conflicts, three retries."""
    proxy.refuse(None)
    outcome_of(partial(open_writer(proxy.url).write, workload_s.car_created()))
    assert len(warnings(caplog)) == 3


def test_another_failure_is_not_called_a_conflict(
    open_writer: OpenWriter, proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Fact 16."""
    proxy.cut("before")
    receipt = open_writer(proxy.url).write(workload_s.car_created())
    assert (receipt.attempts, receipt.conflicts) == (2, 0)
    assert warnings(caplog) == []
    (record,) = caplog.records
    assert record.getMessage().startswith("Transient failure (OperationalError) detected")


def test_a_warning_carries_what_monitoring_needs(
    open_writer: OpenWriter, proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Fact 17."""
    proxy.refuse(2)
    event = workload_s.car_created()
    open_writer(proxy.url).write(event)
    keys = ("event_id", "attempt", "limit", "wait_s", "sqlstate", "oc_class")
    assert [tuple(vars(record)[key] for key in keys) for record in warnings(caplog)] == [
        (str(event.id), 1, 3, QUICK.base, "40001", "OC000"),
        (str(event.id), 2, 3, 2 * QUICK.base, "40001", "OC000"),
    ]


def test_retries_can_be_counted_without_reading_text(
    open_writer: OpenWriter, proxy: PostgresProxy, facts: Facts
) -> None:
    """Fact 17."""
    proxy.refuse(2)
    open_writer(proxy.url, hooks=[facts]).write(workload_s.car_created())
    assert [(f.attempt, f.conflict) for f in facts.of(RetryScheduled)] == [(1, True), (2, True)]


def test_a_transaction_is_one_line_and_not_one_per_event(
    proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.refuse(1)
    events = [workload_s.car_created() for _ in range(100)]
    with Writer(Database(proxy.url), formed(QUICK)) as writer:
        assert all(isinstance(end, Receipt) for end in writer.write_many(events))
    (record,) = caplog.records
    assert f"{TEXT} for event {events[0].id} and 99 more, attempt 1 at " in record.getMessage()


def test_a_transaction_that_ends_its_retries_is_one_line_and_not_one_per_event(
    proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.refuse(None)
    events = [workload_s.car_created() for _ in range(100)]
    with Writer(Database(proxy.url), formed(replace(QUICK, max_retries=0))) as writer:
        writer.write_many(events)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert f"event {events[0].id} and 99 more after 1 attempts at " in record.getMessage()


def test_a_retry_names_the_host_the_reason_and_the_budget(
    open_writer: OpenWriter, proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caller = open_writer(proxy.url)
    caller.write(workload_s.car_created())
    proxy.refuse(1, message="schema has been updated by another transaction (OC001)")
    caller.write(workload_s.car_created())
    proxy.cut("before")
    caller.write(workload_s.car_created())
    host = Database(proxy.url).address
    change, outage = (record.getMessage() for record in caplog.records)
    assert f" at {host}: schema has been updated by another transaction (OC001); " in change
    assert change.endswith("(schema change, 1 of 10)")
    assert f" at {host}: " in outage
    assert outage.endswith("(outage, 0.0 of 10 s)")


@pytest.mark.pairs
@only_single("preparing takes no round trip of its own")
@pytest.mark.parametrize("connections", ["new", "pool"])
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
    connections: str,
) -> None:
    """Fact 18: the same with retry and without.

    The first write also reads the number of shards. One more round trip is
    psycopg's: it prepares a statement when it is executed for the sixth time on
    a connection.
    """
    settings = replace(QUICK, max_retries=max_retries, connections=connections)  # type: ignore[arg-type]
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
