"""A unit of work of SQLAlchemy under faults: its rows and its event come once, or not at all.

The caller's table has no unique key: only the door keeps its rows from coming twice.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import Facts
from tests.support.writer.checked_tables import Tables
from tests.support.writer.session_kinds import KINDS
from tests.support.writer.session_transacts import OpenDoor, Own, driver, new_event, open_door
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox import Database, DuplicateEvent, Receipt, Writer, is_retryable
from dsql_outbox.observability.facts import AttemptEnded

__all__ = ["driver", "open_door", "own"]

pytestmark = pytest.mark.postgres_only("the sessions of these callers pass the endpoint by")


class Both:
    """Adds a row by the ORM, and an event. Keeps the sessions of its runs.

    `at_commit` is called when only the COMMIT of the first run is to come.
    """

    def __init__(self, at_commit: Callable[[], object] | None = None) -> None:
        self.sessions: list[Session] = []
        self._at_commit = at_commit

    def __call__(self, session: Session, append: Any) -> Receipt:
        self.sessions.append(session)
        session.add(Own(n=len(self.sessions)))
        session.flush()
        receipt: Receipt = append(new_event())
        if self._at_commit and len(self.sessions) == 1:
            self._at_commit()
        return receipt


@pytest.mark.parametrize("at", ["commit", "statement"])
def test_a_conflict_runs_the_function_again_with_a_new_session_on_a_new_connection(
    open_door: OpenDoor, proxy: PostgresProxy, own: Tables, at: Literal["commit", "statement"]
) -> None:
    proxy.refuse(2, at=at)
    function = Both()
    receipt = open_door(proxy.url).transact(function)
    assert (receipt.attempts, receipt.conflicts, proxy.opened) == (3, 2, 3)
    assert len(set(map(id, function.sessions))) == 3
    assert own.execute("SELECT n FROM own WHERE n > 0") == [{"n": 3}]
    own.assert_true_to({receipt.event_id: receipt})


@pytest.mark.parametrize("at", ["commit", "statement"])
def test_an_object_of_the_caller_is_stored_by_the_run_that_is_committed(
    open_door: OpenDoor, proxy: PostgresProxy, own: Tables, at: Literal["commit", "statement"]
) -> None:
    """SQLAlchemy takes an object for stored once it was flushed, even if its COMMIT failed."""
    proxy.refuse(1, at=at, matching="COMMIT" if at == "commit" else "INSERT INTO own")
    row = Own(n=7)

    def function(session: Session, append: Any) -> None:
        session.add(row)
        session.flush()
        append(new_event())

    open_door(proxy.url).transact(function)
    assert own.execute("SELECT n FROM own WHERE n > 0") == [{"n": 7}]
    assert len(ids(own)) == 1


@pytest.mark.parametrize("at", ["commit", "statement"])
def test_conflicts_without_end_raise_the_error_and_store_nothing(
    open_door: OpenDoor, proxy: PostgresProxy, own: Tables, at: Literal["commit", "statement"]
) -> None:
    proxy.refuse(None, at=at, matching="COMMIT" if at == "commit" else "INSERT INTO own")
    with pytest.raises(Exception, match="OC000") as raised:
        open_door(proxy.url).transact(Both())
    assert is_retryable(raised.value)
    assert isinstance(raised.value, DBAPIError)
    assert (own_rows(own), ids(own)) == (0, set())


@pytest.mark.parametrize("where", ["before", "after_commit"])
def test_a_lost_commit_is_resolved(
    open_door: OpenDoor,
    proxy: PostgresProxy,
    own: Tables,
    facts: Facts,
    where: Literal["before", "after_commit"],
) -> None:
    function = Both(partial(proxy.cut, where, matching="COMMIT"))
    receipt = open_door(proxy.url, hooks=[facts]).transact(function)
    outcomes = [fact.outcome for fact in facts.of(AttemptEnded)]
    assert outcomes == ["in_doubt", "committed" if where == "before" else "resolved"]
    assert len(function.sessions) == (2 if where == "before" else 1)
    assert own_rows(own) == 1
    own.assert_true_to({receipt.event_id: receipt})


def test_a_connection_lost_before_the_commit_runs_the_function_again(
    open_door: OpenDoor, proxy: PostgresProxy, own: Tables
) -> None:
    proxy.cut("after_sent", matching="INSERT INTO own")
    receipt = open_door(proxy.url).transact(Both())
    assert (receipt.attempts, own_rows(own)) == (2, 1)


@pytest.mark.usefixtures("own")
def test_a_conflict_costs_the_pool_one_connection(
    open_door: OpenDoor, proxy: PostgresProxy
) -> None:
    """SQLAlchemy replaces all of them after a lost one, which a conflict is not."""
    door = open_door(proxy.url)
    door.fill(3)
    proxy.refuse(1)
    assert door.transact(Both()).attempts == 2
    proxy.wait_until_closed(1)
    assert (proxy.opened, proxy.closed) == (3, 1)


@pytest.mark.parametrize("expected", [None, 0])
def test_a_duplicate_is_told_and_nothing_of_the_session_is_stored(
    open_door: OpenDoor, proxy: PostgresProxy, own: Tables, url: str, expected: int | None
) -> None:
    event = workload_s.car_created()
    with Writer(Database(url)) as other:
        receipt = other.write(event)

    def function(session: Session, append: Any) -> None:
        session.add(Own(n=1))
        append(event, expected_version=expected)

    with pytest.raises(DuplicateEvent) as raised:
        open_door(proxy.url).transact(function)
    assert raised.value.same_content
    assert own_rows(own) == 0
    own.assert_true_to({event.id: receipt})


def test_the_timeout_ends_the_call(open_door: OpenDoor, proxy: PostgresProxy, own: Tables) -> None:
    proxy.stall(matching="INSERT INTO own")
    with pytest.raises(Exception, match="before the deadline"):
        open_door(proxy.url).transact(Both(), timeout=0.5)
    assert own_rows(own) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["conflict", "cut", "cut after", "constraint"])
def test_a_commit_counts_by_its_answer_whatever_the_class_of_the_session_makes_of_it(
    open_door: OpenDoor, proxy: PostgresProxy, own: Tables, kind: type[Session], end: str
) -> None:
    door = open_door(proxy.url, kind=kind)
    function = Both()
    match end:
        case "conflict":
            proxy.refuse(1, at="commit")
        case "cut":
            proxy.cut("before", matching="COMMIT")
        case "cut after":
            proxy.cut("after_commit", matching="COMMIT")
        case _:
            proxy.refuse(1, at="commit", sqlstate="23503", message="no such parent")
    if end == "constraint":
        with pytest.raises(DBAPIError, match="no such parent"):
            door.transact(function)
        assert (own_rows(own), ids(own)) == (0, set())
        return
    receipt = door.transact(function)
    runs = 1 if end == "cut after" else 2
    assert own.execute("SELECT n FROM own WHERE n > 0") == [{"n": runs}]
    assert receipt.attempts == len(function.sessions) == runs
    own.assert_true_to({receipt.event_id: receipt})
