"""The caller's own statements and events in one transaction, on a healthy database."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from threading import Barrier
from typing import Any

import pytest
from psycopg import errors
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import FORM, QUICK, TIMEOUT, Facts, Running, formed
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import (
    OpenTransactor,
    Work,
    ids,
    open_transactor,
    own,
    own_rows,
)

from dsql_outbox.observability.facts import WriteEnded, WriteStarted
from dsql_outbox.outbox import (
    Database,
    DuplicateEvent,
    InvalidEvent,
    Receipt,
    SchemaError,
    StaleVersion,
    TransactionMisused,
    is_retryable,
)
from dsql_outbox.writer import Transaction, Writer, http_status
from dsql_outbox.writer.http_status import HttpAnswer

__all__ = ["open_transactor", "own"]


def form_of(proxy: PostgresProxy) -> str:
    """The form of the last write: one that fills several tables in one statement is single."""
    last = [sql for sql in proxy.statements if ".event_headers (" in sql][-1]
    return "single" if ".business_events (" in last else "plain"


def test_rows_and_events_are_committed_together_in_a_round_trip_each(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables, facts: Facts
) -> None:
    writer = open_transactor(proxy.url, hooks=[facts])
    warm = writer.transact(lambda work: work.append(workload_s.loan_created(9)))
    proxy.reset_counts()

    def function(work: Work) -> list[object]:
        work.execute("INSERT INTO own VALUES (1)")
        first, second = work.new_event(), work.new_event()
        return [work.append(first), work.append(second), work.append(workload_s.three_entities())]

    receipts = writer.transact(function)
    assert proxy.round_trips == 1 + 4 + 1
    assert form_of(proxy) == ("plain" if FORM == "plain" else "single")
    assert [r.entities[0].version for r in receipts] == [1, 2, 1]
    assert receipts[2].entities[1].version == 3
    own.assert_true_to({r.event_id: r for r in [warm, *receipts]})
    assert own_rows(own) == 1
    assert len(facts.of(WriteStarted)) == len(facts.of(WriteEnded)) == 2
    assert facts.of(WriteEnded)[-1].event_id == receipts[0].event_id


@pytest.mark.postgres_only("DSQL has no savepoints")
def test_an_error_that_a_savepoint_undid_is_not_the_one_that_ends_the_run(
    open_transactor: OpenTransactor, own: Tables, url: str
) -> None:
    """A unique violation of the caller's own was mended; the event's own is a duplicate."""
    event = workload_s.car_created()
    own.execute("CREATE UNIQUE INDEX own_n ON own (n)")
    writer = open_transactor(url)
    writer.transact(lambda work: work.append(event))

    def function(work: Work) -> None:
        work.execute("SAVEPOINT mine")
        with suppress(errors.UniqueViolation):
            work.execute("INSERT INTO own VALUES (0)")
        work.execute("ROLLBACK TO mine")
        work.append(event)

    with pytest.raises(DuplicateEvent):
        writer.transact(function)


def test_a_transaction_that_is_over_takes_no_append(own: Tables, url: str) -> None:
    """It would be stored on its own, on a connection that somebody else has by then."""
    kept: list[Transaction] = []
    with Writer(Database(url), formed(QUICK)) as writer:
        writer.transact(kept.append)
        with pytest.raises(TransactionMisused, match="after the transaction has ended"):
            kept[0].append(workload_s.car_created())
    assert ids(own) == set()


def test_real_conflicts_on_the_callers_own_table_lose_no_update(
    open_transactor: OpenTransactor, own: Tables, url: str
) -> None:
    writer = open_transactor(Database(url, isolation="repeatable read"))
    conflicts: list[int] = []
    retryable: list[bool] = []

    def call(n: int) -> None:
        def function(work: Work) -> int:
            ((old,),) = work.execute("SELECT n FROM own")
            work.execute("UPDATE own SET n = %s", old + 1)
            return work.append(work.new_event(f"CAR-{n}")).conflicts

        for _ in range(5):
            while True:
                try:
                    conflicts.append(writer.transact(function))
                    break
                except errors.SerializationFailure as error:
                    retryable.append(is_retryable(error))

    Running([lambda n=n: call(n) for n in range(4)]).results()  # type: ignore[misc]
    assert own.execute("SELECT n FROM own") == [{"n": 20}]
    assert sum(conflicts) > 0
    assert all(retryable)
    assert len(ids(own)) == 20
    own.assert_consistent()


def test_duplicates_stale_versions_and_the_callers_own_unique_keys(
    open_transactor: OpenTransactor, own: Tables, url: str
) -> None:
    writer = open_transactor(url)
    event = workload_s.car_created()
    own.execute("CREATE UNIQUE INDEX own_n ON own (n)")
    writer.transact(lambda work: work.append(event, 0))
    with pytest.raises(DuplicateEvent) as same:
        writer.transact(lambda work: work.append(event))
    with pytest.raises(DuplicateEvent) as other:
        writer.transact(lambda work: work.append(workload_s.loan_created(id=event.id)))
    assert (same.value.same_content, other.value.same_content) == (True, False)
    with pytest.raises(StaleVersion) as stale:
        writer.transact(lambda work: work.append(work.new_event(), 0))
    assert (stale.value.expected, stale.value.actual) == (0, 1)
    runs: list[int] = []

    def take_a_key(work: Work) -> None:
        runs.append(1)
        work.execute("INSERT INTO own VALUES (0)")

    with pytest.raises(errors.UniqueViolation):
        writer.transact(take_a_key)
    assert runs == [1], "a key that is taken stays taken"
    with pytest.raises(InvalidEvent):
        writer.transact(lambda work: work.append("{}"))
    assert ids(own) == {event.id}


def test_a_repeated_call_returns_the_receipt_of_the_first_one(
    open_transactor: OpenTransactor, own: Tables, url: str, facts: Facts
) -> None:
    """The first append finds the repetition: the statements of the function are rolled back."""
    writer = open_transactor(url, hooks=[facts])
    request, other = workload_s.car_created(), workload_s.loan_created(7)

    def store(work: Work) -> str:
        work.append(request)
        work.execute("INSERT INTO own VALUES (1)")
        work.append(work.new_event())
        return "done"

    assert writer.transact(store, on_duplicate="return") == "done"
    again = writer.transact(store, on_duplicate="return")
    assert (again.event_id, again.status) == (request.id, "duplicate")
    assert [touched.version for touched in again.entities] == [1]
    assert facts.of(WriteEnded)[-1].status == "duplicate"
    changed = workload_s.loan_created(id=request.id)
    with pytest.raises(DuplicateEvent) as refused:
        writer.transact(lambda work: work.append(changed), on_duplicate="return")
    assert not refused.value.same_content
    with pytest.raises(DuplicateEvent):  # its own first event would be lost without a word
        writer.transact(
            lambda work: [work.append(each) for each in (other, request)], on_duplicate="return"
        )
    assert own_rows(own) == 1
    assert len(ids(own)) == 2
    own.assert_consistent()


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
@pytest.mark.parametrize("callers", [2, 5])
def test_calls_of_one_request_that_come_together_do_its_work_once(
    open_transactor: OpenTransactor, own: Tables, url: str, isolation: Any, callers: int
) -> None:
    writer = open_transactor(Database(url, isolation=isolation))
    request = workload_s.car_created()
    together = Barrier(callers)
    runs = count()

    def store(work: Work) -> Receipt:
        if next(runs) < callers:
            together.wait(TIMEOUT)
        receipt = work.append(request)
        work.execute("INSERT INTO own VALUES (1)")
        return receipt

    with ThreadPoolExecutor(callers) as pool:
        calls = [pool.submit(writer.transact, store, on_duplicate="return") for _ in range(callers)]
        receipts = [call.result(TIMEOUT) for call in calls]
    assert sorted(r.status for r in receipts) == ["committed", *["duplicate"] * (callers - 1)]
    assert len({(r.event_id, r.position, r.entities) for r in receipts}) == 1
    assert own_rows(own) == 1


@pytest.mark.parametrize("name", ["entities", "outbox"])
def test_a_key_of_a_table_named_like_ours_is_the_callers(
    open_transactor: OpenTransactor, own: Tables, url: str, name: str
) -> None:
    """The table is in another schema: a retry would fail again."""
    for sql in (
        "DROP SCHEMA IF EXISTS shop CASCADE",
        "CREATE SCHEMA shop",
        f"CREATE TABLE shop.{name} (n int PRIMARY KEY)",
        f"INSERT INTO shop.{name} VALUES (0)",
    ):
        own.connection.execute(sql.encode())
    runs: list[int] = []

    def take_a_key(work: Work) -> None:
        runs.append(1)
        work.append(work.new_event())
        work.execute(f"INSERT INTO shop.{name} VALUES (0)")

    with pytest.raises(errors.UniqueViolation) as raised:
        open_transactor(url).transact(take_a_key)
    assert runs == [1], "a key that is taken stays taken"
    assert http_status(raised.value, exhausted=503) == HttpAnswer(500)
    assert ids(own) == set()


def test_a_transact_inside_a_transact_is_refused(
    open_transactor: OpenTransactor, own: Tables, url: str
) -> None:
    with (
        Writer(Database(url), formed(QUICK)) as writer,
        pytest.raises(TransactionMisused, match="transact inside transact"),
    ):
        writer.transact(lambda _: writer.transact(lambda _: None))
    with (
        Writer(Database(url), formed(QUICK)) as writer,
        Writer(Database(url), formed(QUICK)) as other,
    ):
        assert writer.transact(lambda _: other.transact(lambda _: 7)) == 7
        assert writer.transact(lambda _: 8) == 8
    assert open_transactor(url).transact(lambda _: own_rows(own)) == 0


def test_append_names_missing_tables_and_leaves_the_callers_own_alone(
    open_transactor: OpenTransactor, url: str, tables: Tables
) -> None:
    writer = open_transactor(url)
    with pytest.raises(errors.UndefinedTable, match="nowhere"):
        writer.transact(lambda work: work.execute("SELECT FROM nowhere"))
    tables.execute("DROP SCHEMA outbox CASCADE")
    with pytest.raises(SchemaError, match="schema apply"):
        writer.transact(lambda work: work.append(work.new_event()))


def test_writing_goes_on_after_a_function_that_deallocates(proxy: PostgresProxy) -> None:
    """It drops what the writer has prepared."""

    def function(transaction: Transaction) -> None:
        transaction.connection.execute("DEALLOCATE ALL")
        transaction.append(workload_s.loan_created(0))
        raise KeyError

    with Writer(Database(proxy.url), formed(QUICK)) as writer:
        for n in range(1, 9):
            writer.write(workload_s.loan_created(n))
        for n in range(10, 12):
            with suppress(KeyError):
                writer.transact(function)
            with suppress(KeyError):
                writer.transact(function)
            assert writer.write(workload_s.loan_created(n)).attempts == 1
    assert "DEALLOCATE ALL" in proxy.statements
