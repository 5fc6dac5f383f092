"""The connection dies and takes the answer along: a receipt, or the truth that nothing is known.

After every story the tables are compared with what the caller was told.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Literal

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

from dsql_outbox.observability.facts import AttemptEnded, RetryScheduled, WriteEnded, WriteExhausted
from dsql_outbox.outbox import Database, DuplicateEvent, Event, OutcomeUnknown, Receipt
from dsql_outbox.writer import Writer, http_status
from dsql_outbox.writer.http_status import HttpAnswer

SHORT_OUTAGE = replace(QUICK, base=0.02, cap=0.05, max_outage=0.5)
EVENTS = [workload_s.car_created(), workload_s.three_entities()]


@pytest.fixture(params=EVENTS, ids=["1 entity", "3 entities"])
def event(request: pytest.FixtureRequest) -> Event:
    """An event for each of the two statements."""
    found: Event = request.param
    return found


def write_as_somebody_else(url: str, event: Event) -> Receipt:
    with Writer(Database(url)) as writer:
        return writer.write(event)


def once(action: Callable[[], object]) -> Callable[[RetryScheduled], object]:
    """Act at the first retry only."""
    left = [action]
    return lambda _: left.pop()() if left else None


@pytest.mark.pairs
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("where", ["before", "after_commit", "mid_answer"])
def test_a_connection_cut_around_the_commit_ends_as_a_receipt(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    tables: Tables,
    facts: Facts,
    event: Event,
    where: Literal["before", "after_commit", "mid_answer"],
    *,
    reset: bool,
) -> None:
    """Fact 24: an event that this very call stored is never called a duplicate."""
    proxy.cut(where, reset=reset)
    receipt = open_writer(proxy.url, hooks=[facts]).write(event)
    assert (receipt.status, receipt.attempts, receipt.conflicts) == ("committed", 2, 0)
    last = "committed" if where == "before" else "resolved"
    assert [fact.outcome for fact in facts.of(AttemptEnded)] == ["in_doubt", last]
    assert facts.of(WriteEnded) == [WriteEnded(event.id, "committed", 2, 0)]
    tables.assert_true_to({event.id: receipt})


@pytest.mark.pairs
@pytest.mark.parametrize("isolation", ["repeatable read", "read committed"])
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_connection_cut_while_the_server_works_ends_as_a_receipt(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    tables: Tables,
    event: Event,
    isolation: str,
    *,
    reset: bool,
) -> None:
    """Fact 24: the lost attempt may commit before, during or after the next one's look."""
    proxy.cut("after_sent", reset=reset)
    database = Database(proxy.url, isolation=isolation)  # type: ignore[arg-type]
    receipt = open_writer(database).write(event)
    assert receipt.status == "committed"
    assert receipt.attempts in {2, 3}
    tables.assert_true_to({event.id: receipt})


@pytest.mark.parametrize("isolation", ["repeatable read", "read committed"])
def test_a_lost_attempt_that_is_still_at_work_is_fenced_by_the_next_ones_insert(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    tables: Tables,
    facts: Facts,
    url: str,
    isolation: str,
) -> None:
    """The next attempt looks, finds nothing, and then waits for the lost one."""
    event = workload_s.car_created()
    proxy.cut("after_sent")
    database = Database(proxy.url, isolation=isolation)  # type: ignore[arg-type]
    caller = open_writer(database, hooks=[facts])
    with tables.locked("CAR-1"), Tables(url) as watch:
        pending = in_background(partial(caller.write, event))
        wait_until(lambda: watch.blocked() == 2)
    receipt = pending.result(TIMEOUT)
    assert isinstance(receipt, Receipt)
    assert receipt.status == "committed"
    assert facts.of(AttemptEnded)[0].outcome == "in_doubt"
    tables.assert_true_to({event.id: receipt})


@pytest.mark.postgres_only("the endpoint loses the server's last words")
@only_single("in a pipeline psycopg loses the server's last words")
def test_a_session_ended_by_the_server_leaves_doubt_that_is_resolved(
    open_writer: OpenWriter, tables: Tables, facts: Facts, url: str
) -> None:
    """57P01, as a failover or an operator sends it."""
    event = workload_s.car_created()
    caller = open_writer(url, hooks=[facts])
    with tables.locked("CAR-1"), Tables(url) as watch:
        pending = in_background(partial(caller.write, event))
        wait_until(lambda: watch.blocked() == 1)
        watch.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        )
        wait_until(lambda: len(facts.of(RetryScheduled)) == 1)
    receipt = pending.result(TIMEOUT)
    assert isinstance(receipt, Receipt)
    assert receipt.attempts == 2
    (retry,) = facts.of(RetryScheduled)
    assert (retry.failure.sqlstate, retry.conflict) == ("57P01", False)
    tables.assert_true_to({event.id: receipt})


def test_a_server_that_stays_away_leaves_the_outcome_unknown(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    tables: Tables,
    facts: Facts,
    event: Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was stored, and nobody could tell; the same call again says so."""
    proxy.cut("after_commit")
    proxy.before(lambda: proxy.refuse_connections(None))
    caller = open_writer(proxy.url, SHORT_OUTAGE, [facts])
    began = monotonic()
    error = outcome_of(partial(caller.write, event))
    assert monotonic() - began < SHORT_OUTAGE.max_outage + 5.0  # by itself it tries for ten
    assert isinstance(error, OutcomeUnknown)
    assert isinstance(error.__cause__, psycopg.OperationalError)
    assert http_status(error) == HttpAnswer(503, retry_after=1)
    assert facts.of(WriteEnded)[-1].status == "unknown"
    assert [record.levelname for record in caplog.records][-1] == "ERROR"
    proxy.heal()
    with pytest.raises(DuplicateEvent) as raised:
        caller.write(event)
    assert raised.value.same_content
    receipt = caller.write(event, on_duplicate="return")
    assert receipt.status == "duplicate"
    tables.assert_true_to({event.id: receipt})


def test_what_was_never_sent_is_not_called_unknown(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    """A conflict is certain; that no connection can be had after it changes nothing."""
    proxy.refuse(1)
    hook = on_retry(once(lambda: proxy.refuse_connections(None)))
    event = workload_s.car_created()
    error = outcome_of(partial(open_writer(proxy.url, SHORT_OUTAGE, [hook]).write, event))
    assert isinstance(error, psycopg.OperationalError)
    assert http_status(error) == HttpAnswer(503, retry_after=5)
    tables.assert_true_to({event.id: error})


def test_conflicts_after_a_doubt_run_out_as_unknown(
    open_writer: OpenWriter, proxy: PostgresProxy, facts: Facts, tables: Tables
) -> None:
    proxy.cut("before")
    proxy.refuse(None)
    event = workload_s.car_created()
    error = outcome_of(partial(open_writer(proxy.url, hooks=[facts]).write, event))
    assert isinstance(error, OutcomeUnknown)
    assert isinstance(error.__cause__, errors.SerializationFailure)
    outcomes = [fact.outcome for fact in facts.of(AttemptEnded)]
    assert outcomes == ["in_doubt", "conflict", "conflict", "conflict", "conflict"]
    assert len(facts.of(WriteExhausted)) == 1
    tables.assert_true_to({event.id: error})


@pytest.mark.pairs
@pytest.mark.parametrize("lost", ["before", "after_commit"])
@pytest.mark.parametrize("same_content", [True, False])
def test_a_doubt_while_somebody_else_writes_the_same_id_ends_in_the_truth(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    tables: Tables,
    url: str,
    lost: Literal["before", "after_commit"],
    *,
    same_content: bool,
) -> None:
    """Whose event it is depends on who came first, not on what it says."""
    event = workload_s.car_created()
    theirs = event if same_content else workload_s.loan_created(id=event.id)
    others: list[Receipt | Exception] = []

    def write_theirs() -> None:
        others.append(outcome_of(partial(write_as_somebody_else, url, theirs)))

    proxy.cut(lost)
    caller = open_writer(proxy.url, hooks=[on_retry(once(write_theirs))])
    mine = outcome_of(partial(caller.write, event))
    winner, loser = (others[0], mine) if lost == "before" else (mine, others[0])
    assert isinstance(winner, Receipt)
    assert winner.status == "committed"
    assert isinstance(loser, DuplicateEvent)
    assert loser.same_content is same_content
    tables.assert_true_to({event.id: winner})


def test_an_attempt_that_arrives_after_the_call_has_ended_makes_no_lie(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    """Look-ups find nothing, retries run out, then the lost attempt commits."""
    event = workload_s.car_created()
    held = proxy.hold()
    proxy.refuse(None)
    pending = in_background(partial(open_writer(proxy.url).write, event))
    held.arrived()
    proxy.cut_all()
    error = pending.result(TIMEOUT)
    assert isinstance(error, OutcomeUnknown)
    assert tables.events(event.id) == []
    held.release()
    tables.assert_true_to({event.id: error})
    assert len(tables.events(event.id)) == 1


def test_an_attempt_that_arrives_after_its_successors_commit_changes_nothing(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    event = workload_s.car_created()
    held = proxy.hold()
    pending = in_background(partial(open_writer(proxy.url).write, event))
    held.arrived()
    proxy.cut_all()
    receipt = pending.result(TIMEOUT)
    assert isinstance(receipt, Receipt)
    assert receipt.attempts == 2
    held.release()
    tables.assert_true_to({event.id: receipt})


def test_an_attempt_that_arrives_during_its_successors_wait_is_found(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    event = workload_s.car_created()
    held = proxy.hold()
    hook = on_retry(once(held.release))
    pending = in_background(partial(open_writer(proxy.url, hooks=[facts, hook]).write, event))
    held.arrived()
    proxy.cut_all()
    receipt = pending.result(TIMEOUT)
    assert isinstance(receipt, Receipt)
    assert [fact.outcome for fact in facts.of(AttemptEnded)] == ["in_doubt", "resolved"]
    tables.assert_true_to({event.id: receipt})


def test_an_attempt_that_arrives_between_look_and_insert_is_found_by_the_collision(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    event = workload_s.car_created()
    held = proxy.hold()
    pending = in_background(partial(open_writer(proxy.url).write, event))
    held.arrived()
    proxy.before(held.release)
    proxy.cut_all()
    receipt = pending.result(TIMEOUT)
    assert isinstance(receipt, Receipt)
    assert (receipt.status, receipt.attempts) == ("committed", 2)
    assert receipt.entities[0].version == 1
    tables.assert_true_to({event.id: receipt})


def test_connections_that_died_unnoticed_cost_no_attempt_each(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    """A server restart kills all that a writer keeps; one call must not meet them all."""
    caller = open_writer(proxy.url)
    events = workload_s.distinct()
    holds = [proxy.hold() for _ in range(4)]
    pending = [in_background(partial(caller.write, event)) for event in events[:4]]
    for held in holds:
        held.arrived()
    for held in holds:
        held.release()
    outcomes = [future.result(TIMEOUT) for future in pending]
    assert proxy.opened == 4
    proxy.cut_all()
    outcomes += [outcome_of(partial(caller.write, event)) for event in events[4:8]]
    retries = [outcome.attempts - 1 for outcome in outcomes if isinstance(outcome, Receipt)]
    assert len(retries) == 8
    assert sum(retries) <= 1, "the first one may be too early to see the end of its connection"
    tables.assert_true_to({e.id: o for e, o in zip(events, outcomes, strict=False)})


@pytest.mark.postgres_only("the endpoint loses the server's last words")
def test_a_kept_connection_that_the_server_timed_out_is_not_used_again(
    open_writer: OpenWriter, tables: Tables, url: str
) -> None:
    """57P05: the server's idle_session_timeout."""
    timing_out = f"{url}?options=-c%20idle_session_timeout%3D1s"
    caller = open_writer(timing_out)
    receipts = [caller.write(workload_s.car_created())]
    wait_until(lambda: tables.others() == 0)
    receipts.append(caller.write(workload_s.car_created()))
    assert [receipt.attempts for receipt in receipts] == [1, 1]
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})
