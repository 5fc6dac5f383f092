"""Events in a transaction that the caller owns, on a healthy database."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import psycopg
import pytest
from anyio import to_thread
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, formed
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import (
    ids,
    open_transactor,
    own,
    own_rows,
)

from dsql_outbox.outbox import (
    Database,
    DuplicateEvent,
    Entity,
    Event,
    Receipt,
    StaleVersion,
    TransactionMisused,
)
from dsql_outbox.writer import AsyncWriter, Writer

__all__ = ["open_transactor", "own"]


def form_of(proxy: PostgresProxy) -> str:
    """The form of the last write: one that fills several tables in one statement is single."""
    last = [sql for sql in proxy.statements if ".event_headers (" in sql][-1]
    return "single" if ".business_events (" in last else "plain"


def test_append_to_joins_a_transaction_of_the_callers(own: Tables, url: str) -> None:
    with (
        Writer(Database(url), formed(QUICK)) as writer,
        psycopg.connect(url, row_factory=dict_row) as mine,
    ):
        receipt = writer.append_to(mine, workload_s.car_created())
        mine.execute("INSERT INTO own VALUES (1)")
        assert ids(own) == set()
        mine.commit()
        writer.append_to(mine, workload_s.car_created())
        mine.rollback()
        with pytest.raises(StaleVersion):
            writer.append_to(mine, workload_s.car_created(), expected_version=7)
    own.assert_true_to({receipt.event_id: receipt})
    assert (own_rows(own), ids(own)) == (1, {receipt.event_id})


@pytest.mark.parametrize("version", [-1, True, "1"])
def test_append_and_append_to_check_the_expected_version_before_they_send(
    proxy: PostgresProxy, url: str, version: Any
) -> None:
    event = workload_s.car_created()
    with Writer(Database(proxy.url), formed(QUICK)) as writer, psycopg.connect(url) as mine:
        with pytest.raises((TypeError, ValueError), match=r"expected_version (takes|must)"):
            writer.append_to(mine, event, expected_version=version)
        assert mine.info.transaction_status is TransactionStatus.INERROR
        with pytest.raises((TypeError, ValueError), match=r"expected_version (takes|must)"):
            writer.transact(lambda tx: tx.append(event, expected_version=version))
    assert not any("INSERT" in sql for sql in proxy.statements)


def test_append_to_refuses_a_connection_that_would_commit_the_event_alone(
    own: Tables, url: str
) -> None:
    with (
        Writer(Database(url), formed(QUICK)) as writer,
        psycopg.connect(url, autocommit=True) as mine,
    ):
        with pytest.raises(TransactionMisused, match="autocommit"):
            writer.append_to(mine, workload_s.car_created())
        with mine.transaction():
            receipt = writer.append_to(mine, workload_s.car_created())
    assert ids(own) == {receipt.event_id}


@pytest.mark.anyio
async def test_append_to_joins_an_async_transaction(own: Tables, url: str) -> None:
    async with (
        AsyncWriter(Database(url), formed(QUICK)) as writer,
        await psycopg.AsyncConnection.connect(url) as mine,
    ):
        receipt = await writer.append_to(mine, workload_s.three_entities())
        assert ids(own) == set()
    own.assert_true_to({receipt.event_id: receipt})


@pytest.mark.client
@pytest.mark.anyio
async def test_append_to_joins_transactions_on_connections_of_psycopgs_pools(
    own: Tables, url: str
) -> None:
    def work() -> Receipt:
        with (
            Writer(Database(url), formed(QUICK)) as writer,
            ConnectionPool(url, min_size=1) as pool,
            pool.connection() as mine,
        ):
            return writer.append_to(mine, workload_s.car_created())

    receipts = [await to_thread.run_sync(work)]
    async with (
        AsyncWriter(Database(url), formed(QUICK)) as writer,
        AsyncConnectionPool(url, min_size=1) as pool,
        pool.connection() as mine,
    ):
        receipts.append(await writer.append_to(mine, workload_s.three_entities()))
    own.assert_true_to({receipt.event_id: receipt for receipt in receipts})


@pytest.mark.parametrize("same", [True, False])
def test_append_to_tells_a_duplicate_and_whether_it_says_the_same(
    own: Tables, url: str, *, same: bool
) -> None:
    event = workload_s.three_entities()
    with Writer(Database(url), formed(QUICK)) as writer, psycopg.connect(url) as mine:
        receipt = writer.write(event)
        with pytest.raises(DuplicateEvent) as raised:
            writer.append_to(mine, event if same else workload_s.loan_created(id=event.id))
        assert (raised.value.event_id, raised.value.same_content) == (event.id, same)
        assert isinstance(raised.value.__cause__, psycopg.errors.UniqueViolation)
        assert mine.info.transaction_status is TransactionStatus.INERROR
    own.assert_true_to({event.id: receipt})


@pytest.mark.anyio
async def test_append_to_tells_a_duplicate_in_an_async_transaction(own: Tables, url: str) -> None:
    event = workload_s.car_created()
    async with (
        AsyncWriter(Database(url), formed(QUICK)) as writer,
        await psycopg.AsyncConnection.connect(url) as mine,
    ):
        receipt = await writer.write(event)
        with pytest.raises(DuplicateEvent) as raised:
            await writer.append_to(mine, workload_s.loan_created(id=event.id))
        await mine.rollback()
    assert not raised.value.same_content
    own.assert_true_to({event.id: receipt})


def test_append_to_leaves_a_unique_violation_that_is_no_stored_event_as_it_is(
    own: Tables, url: str
) -> None:
    """The same id twice in the caller's transaction: it is stored nowhere yet."""
    event = workload_s.car_created()
    with Writer(Database(url), formed(QUICK)) as writer, psycopg.connect(url) as mine:
        writer.append_to(mine, event)
        with pytest.raises(psycopg.errors.UniqueViolation):
            writer.append_to(mine, event)
    assert ids(own) == set()


def test_append_to_costs_one_round_trip_and_probes_on_a_connection_of_its_own(
    own: Tables, proxy: PostgresProxy, url: str
) -> None:
    with Writer(Database(url), formed(QUICK)) as writer, psycopg.connect(proxy.url) as mine:
        mine.execute("INSERT INTO own VALUES (1)")
        proxy.reset_counts()
        receipts = [writer.append_to(mine, workload_s.three_entities()) for _ in range(2)]
        assert proxy.round_trips == 2
        mine.commit()
        assert proxy.round_trips == 3
        assert own.others() == 2
    own.assert_true_to({receipt.event_id: receipt for receipt in receipts})


def test_append_to_on_a_database_without_the_single_form_takes_the_plain_one(
    own: Tables, proxy: PostgresProxy
) -> None:
    """The probe fails, and takes nothing of the caller's along."""
    proxy.refuse(None, sqlstate="0A000", message="no CTE writes", matching="EXPLAIN")
    with Writer(Database(proxy.url)) as writer, psycopg.connect(proxy.url) as mine:
        mine.execute("INSERT INTO own VALUES (1)")
        receipt = writer.append_to(mine, workload_s.car_created())
        assert form_of(proxy) == "plain"
        mine.commit()
    own.assert_true_to({receipt.event_id: receipt})
    assert own_rows(own) == 1


def test_append_to_leaves_the_callers_pipeline_and_factories_alone(own: Tables, url: str) -> None:
    with (
        Writer(Database(url), formed(QUICK)) as writer,
        psycopg.connect(url, row_factory=dict_row) as mine,
    ):
        with mine.pipeline():
            cursor = mine.execute("SELECT 1 AS one")
            receipt = writer.append_to(mine, workload_s.car_created())
            assert cursor.fetchone() == {"one": 1}
        with pytest.raises(StaleVersion):
            writer.append_to(mine, workload_s.car_created(), expected_version=7)
        assert mine.info.transaction_status is TransactionStatus.INERROR
        mine.rollback()
        mine.execute("SELECT 1")
        receipt = writer.append_to(mine, workload_s.car_created())
    own.assert_true_to({receipt.event_id: receipt})
    assert ids(own) == {receipt.event_id}


@pytest.mark.postgres_only("DSQL knows UTF-8 alone")
@pytest.mark.parametrize("is_begun", [True, False])
@pytest.mark.parametrize("in_pipeline", [True, False])
@pytest.mark.parametrize("form", ["single", "plain"])
def test_a_text_that_the_callers_encoding_lacks_is_refused_before_anything_is_sent(
    own: Tables, url: str, form: Literal["single", "plain"], in_pipeline: bool, is_begun: bool
) -> None:
    """Else a caller who commits all the same would store a version without its event."""
    event = Event.new("CarSold", [Entity("Car", "CAR-1", {})], name="Car for 1 \u20ac")
    with (
        Writer(Database(url), replace(QUICK, form=form)) as writer,
        psycopg.connect(url, client_encoding="latin1") as mine,
    ):
        if is_begun:
            mine.execute("SELECT 1")
        with mine.pipeline() if in_pipeline else nullcontext(), pytest.raises(UnicodeEncodeError):
            writer.append_to(mine, event)
        mine.commit()
    assert own.entities() == own.events() == []


@pytest.mark.postgres_only("DSQL knows UTF-8 alone")
@pytest.mark.parametrize("form", ["single", "plain"])
def test_a_session_without_an_encoding_gets_utf_8(
    own: Tables, url: str, form: Literal["single", "plain"]
) -> None:
    event = Event.new("CarSold", [Entity("Car", "CAR-1", {})], name="Car for 1 \u20ac")
    with (
        Writer(Database(url), replace(QUICK, form=form)) as writer,
        psycopg.connect(url, client_encoding="sql_ascii") as mine,
    ):
        receipt = writer.append_to(mine, event)
    own.assert_true_to({receipt.event_id: receipt})


def test_the_plain_form_sends_its_statements_together_in_a_new_transaction_too(
    own: Tables, proxy: PostgresProxy
) -> None:
    """An append that is cancelled between two of them would leave a version without an event."""
    with (
        Writer(Database(proxy.url), replace(QUICK, form="plain")) as writer,
        psycopg.connect(proxy.url) as mine,
    ):
        writer.append_to(mine, workload_s.car_created())
        mine.commit()
        proxy.reset_counts()
        receipt = writer.append_to(mine, workload_s.car_created())
        assert proxy.round_trips == len(["BEGIN", "the five statements"])
    own.assert_true_to({receipt.event_id: receipt})


def test_a_pipeline_in_autocommit_mode_is_no_transaction(own: Tables, url: str) -> None:
    """While a statement is in flight, the driver knows no transaction status."""
    with (
        Writer(Database(url), formed(QUICK)) as writer,
        psycopg.connect(url, autocommit=True) as mine,
        mine.pipeline(),
    ):
        mine.execute("SELECT 1")
        with pytest.raises(TransactionMisused, match="open transaction"):
            writer.append_to(mine, workload_s.car_created())
        with mine.transaction():
            mine.execute("SELECT 1")
            receipt = writer.append_to(mine, workload_s.car_created())
    own.assert_true_to({receipt.event_id: receipt})
    assert ids(own) == {receipt.event_id}
