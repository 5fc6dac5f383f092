"""What can go wrong in the middle of a pipeline, and at its COMMIT."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
from psycopg import errors
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import (
    QUICK,
    TIMEOUT,
    Facts,
    OpenWriter,
    in_background,
    outcome_of,
)
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import AttemptEnded
from dsql_outbox.outbox import Database, OutcomeUnknown, Receipt
from dsql_outbox.writer import Writer

PLAIN = replace(QUICK, form="plain")
PARTS = [
    "BEGIN",
    ".entities AS e (",
    ".business_events (",
    ".event_headers (",
    ".outbox (",
    "short",
]


@pytest.fixture(autouse=True)
def silent_driver(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """psycopg logs `error ignored terminating`, which would alarm people for nothing."""
    yield
    assert [r for r in caplog.get_records("call") if r.name == "psycopg"] == []
    assert logging.getLogger("psycopg").isEnabledFor(logging.WARNING)


@pytest.mark.pairs
@pytest.mark.parametrize("matching", PARTS)
def test_a_conflict_at_any_statement_is_retried(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    tables: Tables,
    facts: Facts,
    matching: str,
) -> None:
    caller = open_writer(proxy.url, PLAIN, [facts])
    receipts = [caller.write(workload_s.three_entities())]
    proxy.refuse(2, matching=matching)
    receipts += [caller.write(workload_s.three_entities()) for _ in range(2)]
    assert [(r.attempts, r.conflicts) for r in receipts] == [(1, 0), (3, 2), (1, 0)]
    assert [fact.sqlstate for fact in facts.of(AttemptEnded)][1:3] == ["40001", "40001"]
    assert proxy.opened == 3
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})


@pytest.mark.parametrize("sqlstate", ["40001", "OC000"])
def test_a_conflict_at_commit_is_retried_and_its_rows_are_not_believed(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, facts: Facts, sqlstate: str
) -> None:
    proxy.refuse(2, at="commit", sqlstate=sqlstate)
    receipt = open_writer(proxy.url, PLAIN, [facts]).write(workload_s.three_entities())
    assert (receipt.attempts, receipt.conflicts) == (3, 2)
    tables.assert_true_to({receipt.event_id: receipt})


def test_a_statement_that_fails_for_good_raises_its_own_error(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    proxy.refuse(1, sqlstate="0A000", message="not today", matching=".event_headers (")
    caller, event = open_writer(proxy.url, PLAIN), workload_s.car_created()
    error = outcome_of(partial(caller.write, event))
    assert isinstance(error, errors.FeatureNotSupported)
    assert str(error).startswith("not today")
    tables.assert_true_to({event.id: error})


def test_a_lost_answer_to_the_commit_is_resolved(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    proxy.cut("after_commit", matching="COMMIT")
    receipt = open_writer(proxy.url, PLAIN, [facts]).write(workload_s.car_created())
    outcomes = [fact.outcome for fact in facts.of(AttemptEnded)]
    assert outcomes == ["in_doubt", "resolved"]
    tables.assert_true_to({receipt.event_id: receipt})


def test_a_transaction_that_comes_late_collides_and_nothing_is_stored_twice(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    """The deadline closes the connection; the held transaction is run all the same."""
    held = proxy.hold(matching="COMMIT")
    caller, event = open_writer(proxy.url, PLAIN), workload_s.car_created()
    pending = in_background(partial(caller.write, event, timeout=1.5))
    held.arrived()
    assert isinstance(pending.result(TIMEOUT), OutcomeUnknown)
    held.release()
    receipt = caller.write(event, on_duplicate="return")
    assert receipt.status == "duplicate"
    tables.assert_true_to({event.id: receipt})


def test_a_bad_event_fails_none_but_itself(proxy: PostgresProxy, tables: Tables) -> None:
    """Refused by the database only: by a rule that the tables do not have here."""
    tables.execute("ALTER TABLE outbox.business_events ADD CHECK (subject_id <> 'BAD') NOT VALID")
    events = [workload_s.car_created(name) for name in ("A", "B", "BAD", "C")]
    with Writer(Database(proxy.url), PLAIN) as writer:
        outcomes = writer.write_many(events)
    assert [isinstance(outcome, Receipt) for outcome in outcomes] == [True, True, False, True]
    assert isinstance(outcomes[2], errors.CheckViolation)
    tables.assert_true_to(dict(zip([e.id for e in events], outcomes, strict=True)))
