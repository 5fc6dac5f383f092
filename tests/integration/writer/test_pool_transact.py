"""`transact` on the connections of psycopg's pools."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
import psycopg
import pytest
from anyio.from_thread import BlockingPortal
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from tests.support.dsql.server import KINDS
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer.callers import QUICK, Facts, formed
from tests.support.writer.checked_tables import Tables
from tests.support.writer.session_transacts import new_event
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox import (
    AsyncWriter,
    Database,
    DuplicateEvent,
    Entity,
    Event,
    Receipt,
    TransactionMisused,
    Writer,
    transact,
)
from dsql_outbox.observability.facts import AttemptEnded
from dsql_outbox.outbox.database.connection import Connection

__all__ = ["own"]

T = TypeVar("T")

ROW = b"INSERT INTO own VALUES (1)"


class Caller:
    """A pool, and a writer with connections of its own."""

    def __init__(self, writer: Any, pool: Any) -> None:
        self.writer = writer
        self.pool = pool

    def transact(self, function: Callable[["Caller", Any], T], **options: Any) -> T:
        """Run a plain function in a unit of work."""
        call = partial(transact, self.writer, self.pool, partial(function, self), **options)
        result: T = call()
        return result

    def append(self, connection: Any, event: Any) -> Receipt:
        """Append in a function."""
        receipt: Receipt = self.writer.append_to(connection, event)
        return receipt

    def execute(self, connection: Any, query: bytes) -> Any:
        """Run a statement in a function."""
        return connection.execute(query)

    def close(self) -> None:
        """Close all connections."""
        self.pool.close()
        self.writer.close()


class AsyncCaller(Caller):
    """The same for asyncio: the function runs in a thread beside the loop."""

    def __init__(self, writer: Any, pool: Any, portal: BlockingPortal) -> None:
        super().__init__(writer, pool)
        self._portal = portal

    def transact(self, function: Callable[[Caller, Any], T], **options: Any) -> T:
        async def run(connection: Any) -> T:
            return await anyio.to_thread.run_sync(function, self, connection)

        return self._portal.call(partial(transact, self.writer, self.pool, run, **options))

    def append(self, connection: Any, event: Any) -> Receipt:
        return anyio.from_thread.run(self.writer.append_to, connection, event)

    def execute(self, connection: Any, query: bytes) -> Any:
        return anyio.from_thread.run(connection.execute, query)

    def close(self) -> None:
        self._portal.call(self.pool.close)
        self._portal.call(self.writer.close)


class OpenPool(Protocol):
    """Makes a caller that is closed at the end of the test."""

    def __call__(self, url: str, *, hooks: Any = ..., **options: Any) -> Caller:
        """A pool of one connection, with these options."""
        ...


@pytest.fixture(params=KINDS)
def open_pool(
    request: pytest.FixtureRequest, portal: BlockingPortal, proxy: PostgresProxy, url: str
) -> Iterator[OpenPool]:
    """Makes pools: each test runs with `Writer` and with `AsyncWriter`."""
    opened: list[Caller] = []
    settings = formed(QUICK)
    assert proxy.opened == 0, "it ends after the pools"

    def open_one(target: str, *, hooks: Any = (), **options: Any) -> Caller:
        options = {"min_size": 1, "max_size": 1, "open": False} | options
        if request.param == "threads":
            pool = ConnectionPool(target, **options)
            pool.open()
            opened.append(Caller(Writer(Database(url), settings, hooks=hooks), pool))
        else:

            async def make() -> Any:
                tasks = AsyncConnectionPool(target, **options)
                await tasks.open()
                return tasks

            writer = AsyncWriter(Database(url), settings, hooks=hooks)
            opened.append(AsyncCaller(writer, portal.call(make), portal))
        return opened[-1]

    yield open_one
    for each in opened:
        # The pool has its connection, or another one in the place of one that was closed.
        wait_until(lambda: each.pool.get_stats()["pool_available"] == 1)  # noqa: B023 - at once
        each.close()


def both(caller: Caller, connection: Any) -> Receipt:
    caller.execute(connection, ROW)
    return caller.append(connection, new_event())


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_unit_of_work_runs_on_the_connection_of_the_pool(
    open_pool: OpenPool, own: Tables, proxy: PostgresProxy, *, autocommit: bool
) -> None:
    caller = open_pool(proxy.url, kwargs={"autocommit": autocommit})
    for n in (1, 2, 3):
        receipt = caller.transact(both)
        assert (receipt.status, receipt.attempts) == ("committed", 1)
        assert (own_rows(own), len(ids(own)), proxy.opened) == (n, n, 1)


def test_a_run_has_a_round_trip_for_each_end(
    open_pool: OpenPool, own: Tables, proxy: PostgresProxy
) -> None:
    caller = open_pool(proxy.url)
    caller.transact(both)
    before = proxy.round_trips
    caller.transact(both)
    assert proxy.round_trips - before == len(["begin", "row", "event", "commit"])
    assert own_rows(own) == 2


@pytest.mark.usefixtures("own")
def test_the_settings_of_the_pools_connection_apply_and_stay_its_own(
    open_pool: OpenPool, url: str
) -> None:
    caller = open_pool(url, kwargs={"row_factory": dict_row, "options": "-c work_mem=5MB"})

    def function(caller: Caller, connection: Any) -> Any:
        made = connection.row_factory is dict_row, connection.isolation_level
        connection.row_factory = psycopg.rows.tuple_row
        connection.prepare_threshold = 0
        caller.execute(connection, b"SELECT 1")
        caller.append(connection, new_event())
        return made

    assert caller.transact(function) == (True, None)
    assert caller.transact(function) == (True, None)


@pytest.mark.parametrize("at", ["commit", "statement"])
def test_a_connection_that_met_a_conflict_is_closed_and_another_one_is_lent(
    open_pool: OpenPool, own: Tables, proxy: PostgresProxy, at: Any
) -> None:
    proxy.refuse(2, at=at, matching="COMMIT" if at == "commit" else "INSERT INTO own")
    receipt = open_pool(proxy.url).transact(both)
    assert (receipt.attempts, receipt.conflicts) == (3, 2)
    proxy.wait_until_closed(2)
    assert (own_rows(own), ids(own)) == (1, {receipt.event_id})


@pytest.mark.parametrize("where", ["before", "after_commit"])
def test_a_lost_commit_is_resolved(
    open_pool: OpenPool, own: Tables, proxy: PostgresProxy, facts: Facts, where: Any
) -> None:
    proxy.cut(where, matching="COMMIT")
    receipt = open_pool(proxy.url, hooks=[facts]).transact(both)
    outcomes = [fact.outcome for fact in facts.of(AttemptEnded)]
    assert outcomes == ["in_doubt", "committed" if where == "before" else "resolved"]
    assert (own_rows(own), ids(own)) == (1, {receipt.event_id})


@pytest.mark.parametrize("fails", ["raises", "swallows", "duplicate", "commits", "keeps"])
def test_a_healthy_connection_is_given_back_whatever_the_function_does(
    open_pool: OpenPool, own: Tables, proxy: PostgresProxy, fails: str
) -> None:
    caller = open_pool(proxy.url)
    stored = caller.transact(both)
    kept: list[Any] = []

    def function(caller: Caller, connection: Any) -> None:
        kept.append(connection)
        caller.execute(connection, ROW)
        match fails:
            case "raises":
                raise LookupError
            case "swallows":
                with suppress(psycopg.Error):
                    caller.execute(connection, b"SELECT 1/0")
            case "duplicate":
                event = Event.new("CarCreated", [Entity("Car", "CAR-1")], id=stored.event_id)
                caller.append(connection, event)
            case "commits":
                caller.execute(connection, b"COMMIT")
            case _:
                caller.append(connection, new_event())

    wanted: Any = {
        "raises": LookupError,
        "swallows": psycopg.errors.DivisionByZero,
        "duplicate": DuplicateEvent,
        "commits": TransactionMisused,
    }
    if fails in wanted:
        with pytest.raises(wanted[fails]):
            caller.transact(function)
    else:
        caller.transact(function)
        with pytest.raises(TransactionMisused, match="has ended: nothing was sent"):
            caller.transact(lambda caller, _: caller.execute(kept[0], ROW))
    rows = 2 if fails == "keeps" else 1
    assert (own_rows(own), len(ids(own)), proxy.opened) == (rows, rows, 1)


def test_the_timeout_ends_the_call(open_pool: OpenPool, own: Tables, proxy: PostgresProxy) -> None:
    caller = open_pool(proxy.url)
    proxy.stall(matching="INSERT INTO own")
    with pytest.raises(psycopg.OperationalError, match="before the deadline"):
        caller.transact(both, timeout=0.5)
    assert own_rows(own) == 0


@pytest.mark.parametrize(("of_pool", "waited"), [(30.0, "[12]"), (0.25, "0.25")])
def test_a_pool_without_a_free_connection_is_waited_for_until_the_first_deadline(
    url: str, caplog: pytest.LogCaptureFixture, of_pool: float, waited: str
) -> None:
    with (
        Writer(Database(url), QUICK) as writer,
        ConnectionPool(url, min_size=1, max_size=1, timeout=of_pool) as pool,
        pool.connection(),
        pytest.raises(psycopg.OperationalError, match=r"a connection after|before the deadline"),
    ):
        transact(writer, pool, lambda _: None, timeout=2)
    assert re.search(rf"couldn't get a connection after {waited}", caplog.text)


@pytest.mark.usefixtures("own")
def test_a_pool_gets_its_connection_back_after_an_interrupt_before_the_run(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupts = [KeyboardInterrupt]

    def copy_settings(*args: Any) -> None:
        if interrupts:
            raise interrupts.pop()
        undisturbed(*args)

    with (
        Writer(Database(url), formed(QUICK)) as writer,
        ConnectionPool(url, min_size=1, max_size=1) as pool,
    ):
        undisturbed = Connection.copy_settings
        writer.write(new_event())
        monkeypatch.setattr(Connection, "copy_settings", copy_settings)
        with pytest.raises(KeyboardInterrupt):
            transact(writer, pool, lambda _: None)
        assert transact(writer, pool, lambda _: "again", timeout=5) == "again"
