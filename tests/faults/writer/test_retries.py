"""What a retry is: the whole transaction, on a new connection, after a bounded wait."""

from dataclasses import replace
from functools import partial
from time import monotonic

import psycopg
import pytest
from psycopg import errors
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import (
    QUICK,
    TIMEOUT,
    Facts,
    OpenWriter,
    in_background,
    on_retry,
    only_single,
    outcome_of,
)
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import AttemptEnded, RetryScheduled, WriteExhausted
from dsql_outbox.outbox import Event, InvalidEvent, Receipt
from dsql_outbox.writer import WriterSettings, http_status
from dsql_outbox.writer.http_status import HttpAnswer
from dsql_outbox.writer.tuned_settings import TunedSettings

OBSERVED = "change conflicts with another transaction, please retry: (OC000)"
EVENTS = [workload_s.car_created(), workload_s.three_entities()]


@pytest.fixture(params=EVENTS, ids=["1 entity", "3 entities"])
def event(request: pytest.FixtureRequest) -> Event:
    """An event for each of the two statements."""
    found: Event = request.param
    return found


@only_single("it is several statements")
def test_the_whole_transaction_is_retried(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, event: Event
) -> None:
    """Facts 3 and 15: the very same single statement, which writes all four tables."""
    proxy.refuse(2)
    receipt = open_writer(proxy.url).write(event)
    assert (receipt.attempts, receipt.conflicts) == (3, 2)
    shards, *writes = [sql for sql in proxy.statements if not sql.startswith("EXPLAIN")]
    assert "outbox_leases" in shards
    assert len(writes) == 3
    assert len(set(writes)) == 1
    for table in ("business_events", "event_headers", "entities", "outbox"):
        assert f'INSERT INTO "outbox".{table}' in writes[0]
    tables.assert_true_to({event.id: receipt})


def test_each_attempt_has_a_new_connection_and_the_old_one_is_closed_before_the_wait(
    open_writer: OpenWriter, proxy: PostgresProxy
) -> None:
    """Fact 5, observed at the proxy when each wait begins."""
    seen: list[tuple[int, int]] = []

    def look(retry: RetryScheduled) -> None:
        proxy.wait_until_closed(retry.attempt, timeout=2.0)
        seen.append((proxy.opened, proxy.closed))

    proxy.refuse(3)
    open_writer(proxy.url, hooks=[on_retry(look)]).write(workload_s.car_created())
    assert seen == [(1, 1), (2, 2), (3, 3)]
    assert proxy.opened == 4


def test_a_retry_takes_no_kept_connection(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    """Fact 5: what is kept may be as bad as the one that failed."""
    caller = open_writer(proxy.url)
    held = proxy.hold()
    first = in_background(partial(caller.write, workload_s.car_created("CAR-1")))
    held.arrived()
    caller.write(workload_s.car_created("CAR-2"))
    held.release()
    first.result(TIMEOUT)
    assert (proxy.opened, proxy.closed) == (2, 0), "two are kept"
    proxy.refuse(1)
    receipt = caller.write(workload_s.car_created("CAR-3"))
    assert (receipt.attempts, proxy.opened) == (2, 3)
    tables.assert_true_to({receipt.event_id: receipt})


def test_the_next_connection_is_opened_during_the_wait_and_serves_any_call(
    open_writer: OpenWriter, proxy: PostgresProxy, facts: Facts
) -> None:
    """A connection per conflict, and none of them is thrown away."""
    settings = replace(QUICK, base=1.5, cap=1.5)
    caller = open_writer(proxy.url, settings, [facts])
    proxy.refuse(1)
    first = in_background(partial(caller.write, workload_s.car_created("CAR-1")))
    wait_until(lambda: proxy.opened == 2)
    assert len(facts.of(RetryScheduled)) == 1
    second = caller.write(workload_s.car_created("CAR-2"))
    assert not first.done(), "else nothing was shown"
    assert (second.attempts, proxy.opened) == (1, 2)
    assert first.result(TIMEOUT).attempts == 2
    assert (proxy.opened, proxy.closed) == (3, 1), "one each, and one for the conflict"


def test_jitter_only_adds_to_the_waits_of_100_200_and_400_ms(
    open_writer: OpenWriter, proxy: PostgresProxy, facts: Facts
) -> None:
    """Facts 6 and 22."""
    proxy.refuse(3)
    began = monotonic()
    settings = replace(TunedSettings.origin(), jitter=0.25)
    receipt = open_writer(proxy.url, settings, [facts]).write(workload_s.car_created())
    took = monotonic() - began
    waits = facts.waits()
    assert receipt.attempts == 4
    shares = [wait / least for wait, least in zip(waits, [0.1, 0.2, 0.4], strict=True)]
    assert all(1.0 <= share <= 1.25 for share in shares)
    assert len(set(shares)) > 1, "each wait has its own jitter"
    assert sum(waits) <= took
    assert [fact.waited_s for fact in facts.of(AttemptEnded)] == [0.0, *waits]


def test_a_database_that_always_conflicts_gets_exactly_four_attempts(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    tables: Tables,
    facts: Facts,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Facts 8, 10 and 22."""
    proxy.refuse(None)
    caller = open_writer(proxy.url, WriterSettings.origin(), [facts])
    event = workload_s.car_created()
    began = monotonic()
    error = outcome_of(partial(caller.write, event))
    took = monotonic() - began
    assert isinstance(error, errors.SerializationFailure)
    assert len(facts.of(AttemptEnded)) == 4
    assert facts.waits() == [0.1, 0.2, 0.4]
    assert 0.7 <= took < 0.7 + 0.8, "a fourth wait would be 0.8 s"
    proxy.wait_until_closed(4)
    assert (proxy.opened, proxy.closed) == (4, 4)
    assert [r.levelname for r in caplog.records] == ["WARNING"] * 3 + ["ERROR"]
    assert len(facts.of(WriteExhausted)) == 1
    assert http_status(error) == HttpAnswer(500, retry_after=1)
    tables.assert_true_to({event.id: error})


def test_max_retries_says_how_many_attempts_follow_the_first(
    open_writer: OpenWriter, proxy: PostgresProxy, facts: Facts
) -> None:
    """Fact 8."""
    proxy.refuse(None)
    caller = open_writer(proxy.url, replace(QUICK, max_retries=1), [facts])
    outcome_of(partial(caller.write, workload_s.car_created()))
    assert len(facts.of(AttemptEnded)) == 2


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("40001", errors.SerializationFailure),
        ("40P01", errors.DeadlockDetected),
        ("OC000", psycopg.DatabaseError),
        (None, psycopg.DatabaseError),
    ],
)
def test_after_the_last_attempt_the_drivers_exception_comes_out_as_it_was(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    sqlstate: str | None,
    kind: type[psycopg.Error],
) -> None:
    """Facts 9 and 12."""
    proxy.refuse(None, sqlstate=sqlstate, message=OBSERVED)
    error = outcome_of(partial(open_writer(proxy.url).write, workload_s.car_created()))
    assert type(error) is kind
    assert isinstance(error, psycopg.Error)
    assert (error.sqlstate, str(error)) == (sqlstate, OBSERVED)
    assert error.diag.message_primary == OBSERVED
    assert error.__cause__ is None
    assert http_status(error) == HttpAnswer(500, retry_after=1)


@pytest.mark.parametrize("sqlstate", ["40001", "OC000", None])
def test_the_observed_message_is_retried_whatever_its_sqlstate(
    open_writer: OpenWriter, proxy: PostgresProxy, facts: Facts, sqlstate: str | None
) -> None:
    """Fact 12, over the wire."""
    proxy.refuse(1, sqlstate=sqlstate, message=OBSERVED)
    receipt = open_writer(proxy.url, hooks=[facts]).write(workload_s.car_created())
    assert (receipt.attempts, receipt.conflicts) == (2, 1)
    assert [fact.failure.oc_class for fact in facts.of(RetryScheduled)] == ["OC000"]


@pytest.mark.parametrize(("changes", "conflicts"), [(10, 3), (11, 0)])
def test_schema_changes_do_not_use_up_the_retries_of_conflicts(
    open_writer: OpenWriter, proxy: PostgresProxy, changes: int, conflicts: int
) -> None:
    """Ten schema changes and three conflicts are survived; one more ends in the driver's error."""
    proxy.refuse(changes, message="schema has been updated by another transaction (OC001)")
    proxy.refuse(conflicts, message=OBSERVED)
    end = outcome_of(partial(open_writer(proxy.url).write, workload_s.car_created()))
    if changes > 10:
        assert isinstance(end, psycopg.errors.SerializationFailure)
    else:
        assert isinstance(end, Receipt)
        assert (end.attempts, end.conflicts) == (changes + conflicts + 1, changes + conflicts)


@pytest.mark.parametrize("sqlstate", ["22003", "23514", "22P02", "42501", "25P02"])
def test_an_error_that_is_no_conflict_ends_the_call_at_once(
    open_writer: OpenWriter, proxy: PostgresProxy, facts: Facts, sqlstate: str
) -> None:
    """Fact 13, even when its text looks like a conflict."""
    proxy.refuse(1, sqlstate=sqlstate, message=OBSERVED)
    error = outcome_of(
        partial(open_writer(proxy.url, hooks=[facts]).write, workload_s.car_created())
    )
    assert isinstance(error, psycopg.Error)
    assert error.sqlstate == sqlstate
    assert [fact.outcome for fact in facts.of(AttemptEnded)] == ["failed"]
    assert facts.waits() == []
    assert proxy.opened == 1


def test_a_broken_constraint_is_raised_at_once_and_leaves_nothing(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, facts: Facts, event: Event
) -> None:
    """Facts 13 and 15."""
    tables.execute("ALTER TABLE outbox.business_events ADD CHECK (topic = 'oc000')")
    error = outcome_of(partial(open_writer(proxy.url, hooks=[facts]).write, event))
    assert isinstance(error, errors.CheckViolation)
    assert len(facts.of(AttemptEnded)) == 1
    assert http_status(error) == HttpAnswer(500)
    tables.assert_true_to({event.id: error})
    assert tables.entities() == []


def test_an_invalid_event_never_reaches_the_database(
    open_writer: OpenWriter, proxy: PostgresProxy
) -> None:
    """Fact 13."""
    with pytest.raises(InvalidEvent, match="eventHeader: is required"):
        open_writer(proxy.url).write('{"transaction conflict": {}}')
    assert proxy.opened == 0


def test_an_error_before_the_write_is_retried_as_one_of_the_write(
    open_writer: OpenWriter, proxy: PostgresProxy, facts: Facts
) -> None:
    """The number of shards is read once, on the first connection."""
    proxy.refuse(1, matching="outbox_leases")
    receipt = open_writer(proxy.url, hooks=[facts]).write(workload_s.car_created())
    assert (receipt.attempts, receipt.conflicts) == (2, 1)


def test_a_retried_event_and_its_neighbours_keep_their_versions_gapless(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    """Fact 15."""
    caller = open_writer(proxy.url)
    receipts: list[Receipt] = []
    for conflicts in (3, 1, 2):
        receipts.append(caller.write(workload_s.car_created()))
        proxy.refuse(conflicts)
        receipts.append(caller.write(workload_s.car_created()))
    assert [receipt.entities[0].version for receipt in receipts] == [1, 2, 3, 4, 5, 6]
    assert [receipt.conflicts for receipt in receipts] == [0, 3, 0, 1, 0, 2]
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})
