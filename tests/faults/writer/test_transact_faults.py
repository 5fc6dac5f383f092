"""A transaction of the caller's under faults: its own rows and its events come once, or not at all.

The caller's table has no unique key: only `transact` keeps its rows from coming twice.
"""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, TIMEOUT, Facts, in_background, on_retry, outcome_of
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import (
    OpenTransactor,
    Work,
    ids,
    open_transactor,
    own,
    own_rows,
)

from dsql_outbox.observability.facts import AttemptEnded, WriteEnded
from dsql_outbox.outbox import Database, DuplicateEvent, OutcomeUnknown, Receipt, StaleVersion
from dsql_outbox.writer import Writer

if TYPE_CHECKING:
    from tests.support.proxy.faults import Held

__all__ = ["open_transactor", "own"]

SHORT_OUTAGE = replace(QUICK, base=0.02, cap=0.05, max_outage=0.5)
CutAt = Literal["before", "after_sent", "after_commit", "mid_answer"]


class Both:
    """Adds a row of the caller's own and an event, and counts how often it runs.

    `at_commit` is called when only the COMMIT of the first run is to come, and
    `again` when another run begins.
    """

    def __init__(
        self,
        at_commit: Callable[[], object] | None = None,
        again: Callable[[], object] | None = None,
    ) -> None:
        self.runs = 0
        self._at_commit = at_commit
        self._again = again

    def __call__(self, work: Work) -> Receipt:
        self.runs += 1
        if self._again and self.runs > 1:
            self._again()
        work.execute("INSERT INTO own VALUES (%s)", self.runs)
        receipt = work.append(work.new_event())
        if self._at_commit and self.runs == 1:
            self._at_commit()
        return receipt


class HeldCommit:
    """Holds the COMMIT of the first run; `lose` cuts its client when it is there."""

    def __init__(self, proxy: PostgresProxy) -> None:
        self._proxy = proxy
        self._held: Future[Held] = Future()

    def arm(self) -> None:
        self._held.set_result(self._proxy.hold(matching="COMMIT"))

    def lose(self) -> None:
        self._held.result(TIMEOUT).arrived()
        self._proxy.cut_all()

    def release(self) -> None:
        self._held.result(TIMEOUT).release()


def outcomes(facts: Facts) -> list[str]:
    return [fact.outcome for fact in facts.of(AttemptEnded)]


def assert_once(own: Tables, receipt: Receipt) -> None:
    own.assert_true_to({receipt.event_id: receipt})
    assert ids(own) == {receipt.event_id}
    assert own_rows(own) == 1


@pytest.mark.pairs
@pytest.mark.parametrize("at", ["commit", "statement"])
def test_a_conflict_runs_the_function_again(
    open_transactor: OpenTransactor,
    proxy: PostgresProxy,
    own: Tables,
    facts: Facts,
    at: Literal["commit", "statement"],
) -> None:
    proxy.refuse(2, at=at)
    function = Both()
    writer = open_transactor(proxy.url, QUICK, [facts])
    receipt = writer.transact(function)
    assert (function.runs, receipt.attempts, receipt.conflicts) == (3, 3, 2)
    assert proxy.opened == 3
    assert outcomes(facts) == ["conflict", "conflict", "committed"]
    assert facts.of(WriteEnded)[-1].status == "committed"
    assert_once(own, receipt)


@pytest.mark.parametrize("at", ["commit", "statement"])
def test_conflicts_without_end_raise_the_drivers_error_and_store_nothing(
    open_transactor: OpenTransactor,
    proxy: PostgresProxy,
    own: Tables,
    facts: Facts,
    at: Literal["commit", "statement"],
) -> None:
    proxy.refuse(None, at=at)
    function = Both()
    with pytest.raises(errors.SerializationFailure, match="OC000"):
        open_transactor(proxy.url, hooks=[facts]).transact(function)
    assert function.runs == 4
    assert len(facts.waits()) == 3
    assert (own_rows(own), ids(own)) == (0, set())


@pytest.mark.pairs
@pytest.mark.parametrize("isolation", ["repeatable read", "read committed"])
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("where", ["before", "after_sent", "after_commit", "mid_answer"])
def test_a_connection_cut_at_the_commit_leaves_one_run(
    open_transactor: OpenTransactor,
    proxy: PostgresProxy,
    own: Tables,
    facts: Facts,
    where: CutAt,
    isolation: str,
    *,
    reset: bool,
) -> None:
    function = Both(partial(proxy.cut, where, matching="COMMIT", reset=reset))
    database = Database(proxy.url, isolation=isolation)  # type: ignore[arg-type]
    receipt = open_transactor(database, hooks=[facts]).transact(function)
    assert outcomes(facts)[0] == "in_doubt"
    if where != "after_sent":  # there the commit and the look-up race
        assert (function.runs, outcomes(facts)[1:]) == (
            (2, ["committed"]) if where == "before" else (1, ["resolved"])
        )
        assert receipt.attempts == function.runs
    assert_once(own, receipt)


@pytest.mark.pairs
@pytest.mark.parametrize("matching", ["INSERT INTO own", "outbox", "BEGIN"])
@pytest.mark.parametrize("where", ["before", "after_sent", "after_commit", "mid_answer"])
def test_a_connection_lost_before_the_commit_leaves_no_doubt(
    open_transactor: OpenTransactor,
    proxy: PostgresProxy,
    own: Tables,
    facts: Facts,
    where: CutAt,
    matching: str,
) -> None:
    """Nothing is committed without COMMIT: also without an append it may run again."""
    writer = open_transactor(proxy.url, hooks=[facts])
    warm = writer.transact(lambda work: work.append(workload_s.loan_created()))
    proxy.cut(where, matching=matching)
    receipt = writer.transact(Both())
    assert outcomes(facts) == ["committed", "failed", "committed"]
    own.assert_true_to({warm.event_id: warm, receipt.event_id: receipt})
    assert own_rows(own) == 1


@pytest.mark.postgres_only("no statement waits for a lock there")
@pytest.mark.parametrize("isolation", ["repeatable read", "read committed"])
def test_a_held_commit_that_comes_while_the_next_run_appends_wins(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables, isolation: str, url: str
) -> None:
    """The next run waits for the lost one's lock; then its own append must fail."""
    held = HeldCommit(proxy)
    function = Both(held.arm)
    database = Database(proxy.url, isolation=isolation)  # type: ignore[arg-type]
    pending = in_background(partial(open_transactor(database).transact, function))
    held.lose()
    with Tables(url) as watch:
        wait_until(lambda: watch.blocked() == 1)
    held.release()
    receipt = pending.result(TIMEOUT)
    assert isinstance(receipt, Receipt), receipt
    assert (function.runs, receipt.attempts) == (2, 1)
    assert own.execute("SELECT n FROM own WHERE n > 0") == [{"n": 1}]
    assert_once(own, receipt)


def test_a_held_commit_that_comes_during_the_wait_is_found(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables, facts: Facts
) -> None:
    held = HeldCommit(proxy)
    function = Both(held.arm)
    writer = open_transactor(proxy.url, hooks=[facts, on_retry(lambda _: held.release())])
    pending = in_background(partial(writer.transact, function))
    held.lose()
    receipt = pending.result(TIMEOUT)
    assert isinstance(receipt, Receipt), receipt
    assert (function.runs, outcomes(facts)) == (1, ["in_doubt", "resolved"])
    assert_once(own, receipt)


@pytest.mark.parametrize("where", ["before", "after_commit"])
def test_without_an_append_a_lost_commit_is_unknown_and_nothing_runs_again(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables, where: CutAt
) -> None:
    proxy.cut(where, matching="COMMIT")
    runs: list[int] = []

    def only_own(work: Work) -> None:
        runs.append(1)
        work.execute("INSERT INTO own VALUES (1)")

    with pytest.raises(OutcomeUnknown) as raised:
        open_transactor(proxy.url).transact(only_own)
    assert isinstance(raised.value.__cause__, psycopg.OperationalError)
    assert "look for its rows before you call again" in str(raised.value)
    assert runs == [1]
    assert own_rows(own) == (1 if where == "after_commit" else 0)


@pytest.mark.parametrize("swallow", [False, True])
def test_a_run_that_appends_another_event_first_is_not_committed_after_a_doubt(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables, *, swallow: bool
) -> None:
    """The lost COMMIT may still come: here it does, after the call has ended."""
    held = HeldCommit(proxy)
    runs: list[int] = []

    def new_id_each_time(work: Work) -> None:
        runs.append(1)
        work.execute("INSERT INTO own VALUES (1)")
        try:
            work.append(workload_s.car_created(id=uuid4()))
        except OutcomeUnknown:
            if not swallow:
                raise
        if len(runs) == 1:
            held.arm()

    pending = in_background(partial(open_transactor(proxy.url).transact, new_id_each_time))
    held.lose()
    error = pending.result(TIMEOUT)
    assert isinstance(error, OutcomeUnknown), error
    assert len(runs) == 2
    assert own_rows(own) == 0
    held.release()
    assert own_rows(own) == 1
    own.assert_consistent()
    assert ids(own) == {error.event_id}


def failed_in_a_block(work: Work) -> None:
    with suppress(StaleVersion), work.block(force_rollback=False):
        work.append(work.new_event(), expected_version=5)


def failed_in_a_savepoint_of_another_cursor(work: Work) -> None:
    """Nobody sees the text of the statement."""
    connection: Any = work.transaction.connection
    connection.cursor_factory = psycopg.ClientCursor
    if isinstance(connection, psycopg.AsyncConnection):
        connection.cursor_factory = psycopg.AsyncClientCursor
    work.execute("SAVEPOINT mine")
    with suppress(StaleVersion):
        work.append(work.new_event(), expected_version=5)
    work.execute("ROLLBACK TO mine")


failed = pytest.mark.parametrize(
    "append",
    [
        failed_in_a_block,
        failed_in_a_savepoint_of_another_cursor,
    ],
)


@pytest.mark.postgres_only("DSQL has no savepoints")
@failed
def test_an_append_that_failed_in_a_savepoint_ends_the_call_without_a_commit(
    open_transactor: OpenTransactor,
    proxy: PostgresProxy,
    own: Tables,
    append: Callable[[Work], None],
) -> None:
    """Although the function swallows the error: a row would be stored without its event."""
    runs: list[int] = []

    def function(work: Work) -> None:
        runs.append(1)
        append(work)
        work.execute("INSERT INTO own VALUES (1)")

    error = outcome_of(partial(open_transactor(proxy.url).transact, function))
    assert isinstance(error, StaleVersion), error
    assert (len(runs), own_rows(own), ids(own)) == (1, 0, set())


@pytest.mark.postgres_only("DSQL has no savepoints")
@failed
def test_an_append_that_failed_in_a_savepoint_does_not_keep_a_run_from_a_second_commit(
    open_transactor: OpenTransactor,
    proxy: PostgresProxy,
    own: Tables,
    append: Callable[[Work], None],
) -> None:
    """Nobody knows whether the COMMIT of the first run still comes. Here it does not."""
    runs: list[int] = []

    def function(work: Work) -> None:
        runs.append(1)
        if len(runs) == 1:
            work.append(work.new_event())
            proxy.cut("before", matching="COMMIT")
        else:
            append(work)
        work.execute("INSERT INTO own VALUES (1)")

    error = outcome_of(partial(open_transactor(proxy.url).transact, function))
    assert isinstance(error, OutcomeUnknown), error
    assert (len(runs), own_rows(own), ids(own)) == (2, 0, set())


@pytest.mark.postgres_only("DSQL has no savepoints")
@pytest.mark.parametrize("where", ["before", "after_commit"])
def test_a_savepoint_around_the_callers_own_statements_costs_no_proof(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables, where: CutAt
) -> None:
    runs: list[int] = []

    def function(work: Work) -> Receipt:
        runs.append(1)
        with work.block(force_rollback=True):
            work.execute("INSERT INTO own VALUES (0)")
        with work.block(force_rollback=False):
            work.execute("INSERT INTO own VALUES (1)")
        receipt = work.append(work.new_event())
        if len(runs) == 1:
            proxy.cut(where, matching="COMMIT")
        return receipt

    receipt = open_transactor(proxy.url).transact(function)
    assert len(runs) == (2 if where == "before" else 1)
    assert_once(own, receipt)


def test_a_function_that_fails_after_a_doubt_does_not_pass_for_a_rollback(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables
) -> None:
    """Its own check may fail just because the lost run was committed."""
    held = HeldCommit(proxy)

    def check() -> None:
        raise ValueError("paid already")

    function = Both(held.arm, check)
    pending = in_background(partial(open_transactor(proxy.url).transact, function))
    held.lose()
    error = pending.result(TIMEOUT)
    assert isinstance(error, OutcomeUnknown), error
    assert isinstance(error.__cause__, ValueError)
    held.release()
    assert (own_rows(own), ids(own)) == (1, {error.event_id})


def test_a_function_that_fails_because_its_lost_run_was_committed_returns_that_runs_result(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables
) -> None:
    held = HeldCommit(proxy)

    def check() -> None:
        held.release()
        raise ValueError("paid already")

    function = Both(held.arm, check)
    pending = in_background(partial(open_transactor(proxy.url).transact, function))
    held.lose()
    receipt = pending.result(TIMEOUT)
    assert isinstance(receipt, Receipt), receipt
    assert_once(own, receipt)


def test_a_server_that_stays_away_after_the_commit_leaves_the_outcome_unknown(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables
) -> None:
    def arm() -> None:
        proxy.cut("after_commit", matching="COMMIT")
        proxy.before(lambda: proxy.refuse_connections(None), matching="COMMIT")

    error = outcome_of(partial(open_transactor(proxy.url, SHORT_OUTAGE).transact, Both(arm)))
    assert isinstance(error, OutcomeUnknown), error
    assert (own_rows(own), ids(own)) == (1, {error.event_id})


@pytest.mark.parametrize("on_duplicate", ["error", "return"])
def test_an_id_that_somebody_else_stored_during_the_doubt_is_a_duplicate(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables, url: str, on_duplicate: str
) -> None:
    event = workload_s.car_created()
    left = [event]

    def theirs(_: object) -> None:
        with Writer(Database(url)) as other:
            other.write(left.pop())

    def function(work: Work) -> None:
        work.execute("INSERT INTO own VALUES (1)")
        work.append(event)
        if left:
            proxy.cut("before", matching="COMMIT")

    writer = open_transactor(proxy.url, hooks=[on_retry(theirs)])
    outcome = outcome_of(partial(writer.transact, function, on_duplicate=on_duplicate))
    assert isinstance(outcome, DuplicateEvent if on_duplicate == "error" else Receipt), outcome
    assert (own_rows(own), ids(own)) == (0, {event.id})


@pytest.mark.parametrize("matching", ["INSERT INTO own", "COMMIT"])
def test_a_deadline_ends_the_call_with_the_truth(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables, matching: str
) -> None:
    stall = partial(proxy.stall, matching=matching)
    if matching != "COMMIT":
        stall()
    function = Both(stall if matching == "COMMIT" else None)
    # The COMMIT must be reached, also on a machine that stands still for a while.
    timeout = 2.0 if matching == "COMMIT" else 0.5
    error = outcome_of(partial(open_transactor(proxy.url).transact, function, timeout=timeout))
    expected = OutcomeUnknown if matching == "COMMIT" else psycopg.OperationalError
    assert isinstance(error, expected), error
    assert own_rows(own) == 0


@pytest.mark.parametrize("sqlstate", ["57P01", "08006"])
def test_a_server_that_goes_away_before_the_commit_leaves_no_doubt(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables, sqlstate: str
) -> None:
    """At a COMMIT it would; here the function runs again though it appends nothing."""
    proxy.refuse(1, sqlstate=sqlstate, message="gone", matching="INSERT INTO own")
    open_transactor(proxy.url).transact(lambda work: work.execute("INSERT INTO own VALUES (1)"))
    assert own_rows(own) == 1
