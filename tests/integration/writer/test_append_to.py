"""Events in a transaction that the caller owns, on a healthy database."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
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
    Entity,
    Event,
    StaleVersion,
    TransactionMisused,
)
from dsql_outbox.writer import Writer

__all__ = ["open_transactor", "own"]


def form_of(proxy: PostgresProxy) -> str:
    """The form of the last write: one that fills several tables in one statement is single."""
    last = [sql for sql in proxy.statements if ".event_headers (" in sql][-1]
    return "single" if ".business_events (" in last else "plain"


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
