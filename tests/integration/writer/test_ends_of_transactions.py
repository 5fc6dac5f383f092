"""What is sent at both ends of a transaction that runs a function of the caller."""

import re
from collections.abc import Callable
from contextlib import suppress
from itertools import starmap
from typing import Any, Final

import psycopg
import pytest
from tests.support.dsql.server import ON_DSQL
from tests.support.inboxes import OpenInbox, effects, effects_in, open_inbox
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, formed
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import OpenTransactor, Work, ids, open_transactor, own, own_rows

from dsql_outbox.inbox import Inbox
from dsql_outbox.outbox import Database, StaleVersion
from dsql_outbox.writer import Transaction, Writer

__all__ = ["effects", "open_inbox", "open_transactor", "own"]

MARK: Final = "dsql_outbox.run"
ROW: Final = "INSERT INTO own VALUES (1)"

NAMES: Final = {
    "set_config('dsql_outbox": "mark",
    "current_setting('dsql_outbox": "guard of the mark",
    "SELECT count(*) AS found FROM": "guard",
    "INSERT INTO own": "row",
    "public.effects": "row",
    "ON CONFLICT (consumer, source, dedupe_id)": "memory",
    "business_events": "event",
    "BEGIN": "BEGIN",
    "COMMIT": "COMMIT",
}


def named(proxy: PostgresProxy) -> list[str]:
    """What was sent, in short; an event of the plain form takes several statements."""
    bare = [re.sub(r"--.*", "", sql).strip() for sql in proxy.statements]
    found = [next((NAMES[part] for part in NAMES if part in sql), "") for sql in bare]
    return [each for n, each in enumerate(found) if each and found[n - 1 : n] != [each]]


MARKED: Final = [] if ON_DSQL else ["mark"]
GUARDED: Final = [] if ON_DSQL else ["guard of the mark"]


def test_a_transact_has_a_round_trip_for_each_end(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables
) -> None:
    writer = open_transactor(proxy.url)

    def append(work: Work) -> None:
        work.execute(ROW)
        work.append(workload_s.car_created())

    for function, sent, guard in (
        (append, ["row", "event"], ["guard"]),
        (lambda work: work.execute(ROW), ["row"], []),
        (lambda _: None, [], []),
    ):
        writer.transact(lambda _: None)
        proxy.reset_counts()
        writer.transact(function)
        assert named(proxy) == ["BEGIN", *MARKED, *sent, *GUARDED, *guard, "COMMIT"]
        assert proxy.round_trips == 2 + len(sent)
    assert own_rows(own) == 2


def test_a_once_has_a_round_trip_for_each_end(
    open_inbox: OpenInbox, proxy: PostgresProxy, url: str
) -> None:
    inbox = open_inbox(proxy.url)
    inbox.once("warm")
    proxy.reset_counts()
    inbox.once("a")
    assert named(proxy) == ["BEGIN", *MARKED, "memory", "row", *GUARDED, "guard", "COMMIT"]
    assert proxy.round_trips == 3
    assert effects_in(url) == ["a", "warm"]


@pytest.mark.postgres_only("the endpoint refuses the mark itself")
def test_a_server_that_refuses_the_mark_gets_none_any_more(
    open_transactor: OpenTransactor, open_inbox: OpenInbox, proxy: PostgresProxy
) -> None:
    writer, inbox = open_transactor(proxy.url), open_inbox(proxy.url)
    writer.transact(lambda _: None)
    proxy.refuse(2, sqlstate="0A000", message="setting not supported", matching=MARK)
    inbox.once("a")
    receipts = [
        writer.transact(lambda work: work.append(workload_s.car_created())) for _ in range(2)
    ]
    assert [receipt.conflicts for receipt in receipts] == [0, 0]
    proxy.reset_counts()
    inbox.once("b")
    writer.transact(lambda work: work.append(workload_s.car_created()))
    assert named(proxy) == [
        *("BEGIN", "memory", "row", "guard", "COMMIT"),
        *("BEGIN", "event", "guard", "COMMIT"),
    ]
    assert proxy.round_trips == 6


@pytest.mark.parametrize("swallowed", [StaleVersion, psycopg.Error, Exception])
def test_a_stale_version_that_the_function_swallows_ends_the_call(
    open_transactor: OpenTransactor, url: str, own: Tables, swallowed: type[Exception]
) -> None:
    def function(work: Work) -> None:
        work.execute(ROW)
        with suppress(swallowed):
            work.append(workload_s.car_created(), expected_version=5)

    with pytest.raises(StaleVersion) as raised:
        open_transactor(url).transact(function)
    assert (raised.value.expected, raised.value.actual) == (5, 0)
    assert (own_rows(own), ids(own)) == (0, set())


LAZY: Final[dict[str, Callable[[Any, list[Any]], object]]] = {
    "map": map,
    "generator": lambda run, values: (run(each) for each in values),
    "filter": filter,
    "starmap": lambda run, values: starmap(run, [(each,) for each in values]),
}


@pytest.mark.client
@pytest.mark.parametrize("lazy", LAZY)
def test_a_function_that_returns_what_runs_later_stores_nothing(
    url: str, own: Tables, lazy: str
) -> None:
    def transacts(transaction: Transaction) -> object:
        transaction.connection.execute(ROW)
        return LAZY[lazy](transaction.append, [workload_s.car_created()])

    def handles(connection: Any) -> object:
        connection.execute(ROW)
        return LAZY[lazy](connection.execute, [ROW])

    with Writer(Database(url), formed(QUICK)) as writer, Inbox(Database(url), "consumer") as inbox:
        with pytest.raises(TypeError, match=f"given to transact returned a {lazy}, which runs"):
            writer.transact(transacts)
        with pytest.raises(TypeError, match=f"given to once returned a {lazy}, which runs nothing"):
            inbox.once("a", handles)
        assert inbox.once("a", lambda _: iter([1])).ran
    assert (own_rows(own), ids(own)) == (0, set())


@pytest.mark.postgres_only("DSQL has no triggers")
@pytest.mark.parametrize("sqlstate", ["08006", "08001", "08P01"])
@pytest.mark.parametrize("body", ["transact", "once"])
def test_an_answer_that_commit_failed_is_no_lost_connection(
    url: str, own: Tables, sqlstate: str, body: str
) -> None:
    """As a deferred trigger of the caller raises it, or another server that it asks."""
    own.execute(
        "CREATE OR REPLACE FUNCTION public.lost() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" RAISE EXCEPTION 'another server' USING errcode = '{sqlstate}'; END $$"
    )
    own.execute(
        "CREATE CONSTRAINT TRIGGER lost AFTER INSERT ON own DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION public.lost()"
    )
    runs: list[int] = []

    def run(connection: Any) -> None:
        runs.append(1)
        connection.execute(ROW)

    with Writer(Database(url), formed(QUICK)) as writer, Inbox(Database(url), "consumer") as inbox:
        bodies: dict[str, Callable[[], object]] = {
            "transact": lambda: writer.transact(lambda tx: run(tx.connection)),
            "once": lambda: inbox.once("1", run),
        }
        with pytest.raises(psycopg.OperationalError) as raised:
            bodies[body]()
    assert raised.value.sqlstate == sqlstate
    assert (len(runs), own_rows(own)) == (1, 0)


@pytest.mark.parametrize("is_nested", [False, True])
def test_append_to_in_a_pipeline_of_a_once_is_stored_with_its_memory(
    url: str, own: Tables, is_nested: bool
) -> None:
    def handle(connection: psycopg.Connection[Any]) -> None:
        with connection.pipeline():
            connection.execute(ROW.encode())
            if is_nested:
                with connection.pipeline():
                    writer.append_to(connection, workload_s.car_created())
            else:
                writer.append_to(connection, workload_s.car_created())

    with Writer(Database(url), formed(QUICK)) as writer, Inbox(Database(url), "consumer") as inbox:
        assert inbox.once("a", handle).ran
        assert not inbox.once("a", handle).ran
    assert (own_rows(own), len(ids(own))) == (1, 1)
