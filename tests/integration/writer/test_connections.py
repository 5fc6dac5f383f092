"""How many connections a writer opens, keeps and uses again."""

from dataclasses import replace
from time import time

import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import (
    QUICK,
    Facts,
    OpenWriter,
    formed,
    with_workers,
)
from tests.support.writer.checked_tables import Tables

from dsql_outbox.outbox import Database, Receipt
from dsql_outbox.outbox.database import database
from dsql_outbox.outbox.unit_of_work.connections import shelf
from dsql_outbox.writer import Transaction, Writer

pytestmark = pytest.mark.client


def test_making_a_writer_connects_to_nothing(open_writer: OpenWriter, proxy: PostgresProxy) -> None:
    open_writer(proxy.url).close()
    assert proxy.opened == 0


def test_a_connection_that_did_well_is_used_again(
    open_writer: OpenWriter, proxy: PostgresProxy
) -> None:
    caller = open_writer(proxy.url)
    for _ in range(5):
        caller.write(workload_s.car_created())
    assert (proxy.opened, proxy.closed) == (1, 0)


@pytest.mark.postgres_only("Aurora DSQL has no default_transaction_read_only")
def test_no_connection_to_a_server_that_became_read_only_is_used_again(
    proxy: PostgresProxy, tables: Tables
) -> None:
    """Two are kept, for events and for transactions; both lead to the same server."""

    def make_read_only(transaction: Transaction) -> None:
        transaction.connection.execute("SET default_transaction_read_only = on")

    def append(transaction: Transaction) -> Receipt:
        return transaction.append(workload_s.car_created())

    with Writer(Database(proxy.url), formed(QUICK)) as writer:
        writer.write(workload_s.car_created())
        writer.transact(make_read_only)
        assert (proxy.opened, proxy.closed) == (2, 0)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            writer.transact(append)
        proxy.wait_until_closed(2)
        receipts = [writer.transact(append), writer.write(workload_s.car_created())]
        assert (proxy.opened, proxy.closed) == (4, 2)
    for receipt in receipts:
        assert (receipt.attempts, len(tables.events(receipt.event_id))) == (1, 1)


def test_never_more_connections_are_open_than_allowed(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    """Looked at while a statement is held up; what was closed may be seen a moment later."""

    def look() -> None:
        wait_until(lambda: proxy.opened - proxy.closed <= 2, timeout=2.0)

    proxy.before(look, times=None)
    proxy.refuse(8)
    settings = replace(QUICK, max_connections=2)
    caller = open_writer(proxy.url, settings, [facts])
    receipts = with_workers(8, caller.write, workload_s.distinct())
    assert len(facts.waits()) == 8
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})


def test_a_connection_is_given_up_before_the_server_would_end_it(
    open_writer: OpenWriter, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Aurora DSQL ends connections after 60 minutes."""
    monkeypatch.setattr(database, "MAX_LIFETIME", 0.0)
    caller = open_writer(proxy.url)
    caller.write(workload_s.car_created())
    receipt = caller.write(workload_s.car_created())
    assert (receipt.attempts, proxy.opened) == (1, 2)
    proxy.wait_until_closed(2)


@pytest.mark.parametrize("later", [30.5, -1.0], ids=["too long", "clock set back"])
def test_a_connection_that_was_idle_too_long_is_replaced_before_use(
    open_writer: OpenWriter, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch, later: float
) -> None:
    caller = open_writer(proxy.url, replace(QUICK, max_idle=30.0))
    caller.write(workload_s.car_created())
    monkeypatch.setattr(shelf, "time", lambda: time() + 29.0)
    assert caller.write(workload_s.car_created()).attempts == proxy.opened == 1
    monkeypatch.setattr(shelf, "time", lambda: time() + 29.0 + later)
    receipt = caller.write(workload_s.car_created())
    assert (receipt.attempts, proxy.opened) == (1, 2)
    proxy.wait_until_closed(1)


def test_a_connection_may_be_idle_for_however_long_unless_that_is_limited(
    open_writer: OpenWriter, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = open_writer(proxy.url)
    caller.write(workload_s.car_created())
    monkeypatch.setattr(shelf, "time", lambda: time() + 1_000_000)
    assert caller.write(workload_s.car_created()).attempts == proxy.opened == 1


def test_a_connection_that_died_while_idle_is_replaced_before_use(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    """The only one, as in a Lambda function."""
    caller = open_writer(proxy.url, replace(QUICK, max_connections=1, max_idle=30.0))
    caller.write(workload_s.car_created())
    tables.hang_up_all()
    proxy.wait_until_closed(1)
    receipt = caller.write(workload_s.car_created())
    assert (receipt.attempts, proxy.opened) == (1, 2)
    tables.assert_consistent()


def test_threads_queue_for_the_only_connection(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    caller = open_writer(proxy.url, replace(QUICK, max_connections=1))
    receipts = with_workers(6, caller.write, workload_s.distinct())
    assert proxy.opened == 1
    assert {receipt.attempts for receipt in receipts} == {1}
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})
