"""The current state and version of one entity."""

import json
from typing import Any

import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer.callers import QUICK
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import OpenTransactor, Work, open_transactor

from dsql_outbox.outbox import (
    Database,
    Entity,
    Event,
    StaleVersion,
    TransactionMisused,
    WriterClosed,
)
from dsql_outbox.writer import StoredEntity, Writer

pytestmark = pytest.mark.client

__all__ = ["open_transactor"]


def paid(balance: int, loan: str = "LOAN-7") -> Event:
    return Event.new("LoanPaid", [Entity("Loan", loan, {"balance": balance})])


def balance(entity: StoredEntity | None) -> int:
    assert entity is not None
    return int(json.loads(entity.data)["balance"])


def test_an_entity_has_the_attributes_and_the_version_of_its_last_event(
    open_transactor: OpenTransactor, url: str
) -> None:
    with Writer(Database(url)) as writer:
        writer.write_many([paid(9), paid(8), paid(1, "LOAN-8")])
    found = open_transactor(url).entity("Loan", "LOAN-7")
    assert (found.type, found.id, found.version) == ("Loan", "LOAN-7", 2)
    assert json.loads(found.data) == {"id": "LOAN-7", "balance": 8}
    assert open_transactor(url).entity("Loan", "nobody") is None
    assert open_transactor(url).entity("Car", "LOAN-7") is None


def test_the_data_is_the_text_of_the_event(open_transactor: OpenTransactor, url: str) -> None:
    text = paid(7).to_json().replace(b'"balance":7', b'"a" : 1e200000, "a":"\\u0000"')
    with Writer(Database(url)) as writer:
        writer.write(text)
    assert '"a":"\\u0000"' in open_transactor(url).entity("Loan", "LOAN-7").data


def test_read_decide_and_write_conditionally(url: str) -> None:
    with Writer(Database(url)) as writer:
        writer.write(paid(10))
        seen = writer.entity("Loan", "LOAN-7")
        assert seen is not None
        writer.write(paid(balance(seen) - 1), expected_version=seen.version)
        with pytest.raises(StaleVersion):
            writer.write(paid(balance(seen) - 2), expected_version=seen.version)
        assert balance(writer.entity("Loan", "LOAN-7")) == 9


@pytest.mark.parametrize("cut", [False, True])
def test_a_read_that_fails_is_tried_again(
    open_transactor: OpenTransactor, url: str, proxy: PostgresProxy, *, cut: bool
) -> None:
    with Writer(Database(url)) as writer:
        writer.write(paid(3))
    if cut:
        proxy.cut("mid_answer", matching="entity_data::text")
    else:
        proxy.refuse(1, matching="entity_data::text")
    assert balance(open_transactor(proxy.url).entity("Loan", "LOAN-7")) == 3
    assert sum("entity_data::text" in sql for sql in proxy.statements) == 2


def test_after_the_retries_the_drivers_error_is_raised(
    open_transactor: OpenTransactor, proxy: PostgresProxy
) -> None:
    proxy.refuse(None, matching="entity_data::text")
    with pytest.raises(psycopg.errors.SerializationFailure):
        open_transactor(proxy.url).entity("Loan", "LOAN-7")
    assert sum("entity_data::text" in sql for sql in proxy.statements) == QUICK.max_retries + 1


def test_a_transaction_sees_its_own_events(
    open_transactor: OpenTransactor, url: str, tables: Tables
) -> None:
    def pay(work: Work) -> list[int]:
        assert work.entity("Loan", "LOAN-7") is None
        work.append(paid(5))
        seen = [balance(work.entity("Loan", "LOAN-7"))]
        work.append(paid(seen[0] - 1), expected_version=1)
        return [*seen, balance(work.entity("Loan", "LOAN-7"))]

    assert open_transactor(url).transact(pay) == [5, 4]
    tables.assert_consistent()


def test_a_conflict_of_the_read_runs_the_function_again(
    open_transactor: OpenTransactor, proxy: PostgresProxy
) -> None:
    proxy.refuse(1, matching="entity_data::text")
    runs = []

    def look(work: Work) -> Any:
        runs.append(1)
        return work.entity("Loan", "LOAN-7")

    assert open_transactor(proxy.url).transact(look) is None
    assert len(runs) == 2


def test_a_transaction_that_has_ended_reads_nothing(url: str) -> None:
    with Writer(Database(url)) as writer:
        kept = writer.transact(lambda transaction: transaction)
        with pytest.raises(TransactionMisused, match="entity after the transaction has ended"):
            kept.entity("Loan", "LOAN-7")


def test_a_closed_writer_reads_nothing(url: str) -> None:
    writer = Writer(Database(url))
    writer.close()
    with pytest.raises(WriterClosed):
        writer.entity("Loan", "LOAN-7")
