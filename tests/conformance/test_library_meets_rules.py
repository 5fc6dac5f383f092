"""The library meets the rules: nothing is lost or half-done, and errors have their names."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import uuid4

import anyio
import psycopg
import pytest
from psycopg import errors
from tests.support.dsql.governed import KEYS, GovernedPostgres
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, with_workers
from tests.support.writer.checked_tables import Tables

from dsql_outbox.operations import Messages, Selection
from dsql_outbox.outbox import Database, Entity, Event, Receipt
from dsql_outbox.publisher import Publisher
from dsql_outbox.schema import apply
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.session import Session
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Transaction, Writer

FORMS = ("single", "plain")
BULK = b"INSERT INTO records.baseline_bulk SELECT generate_series(1, 3001)"
_PUBLISHERS = "SELECT count(*) FROM outbox.outbox_publishers"
LARGE = {"text": "x" * (700 << 10)}  # bytes; times three copies


@pytest.fixture(params=FORMS)
def writer(request: pytest.FixtureRequest, governed: GovernedPostgres) -> Any:
    settings = replace(QUICK, form=request.param, max_retries=50, backlog_check=None)
    with Writer(Database(governed.url), settings) as writer:
        yield writer


@pytest.mark.anyio
async def test_many_rows_are_written_and_relayed_in_transactions_of_3_000(
    writer: Writer, governed: GovernedPostgres, tables: Tables
) -> None:
    owners = [Entity("Owner", f"OWNER-{n}") for n in range(3)]
    events = [workload_s.loan_created(n, *owners) for n in range(400)]  # 4,000 rows
    assert {type(outcome) for outcome in writer.write_many(events)} == {Receipt}
    tables.assert_consistent()
    sink = MemorySink()
    await Publisher(Database(governed.url), sink).run(until_empty=True)
    assert len(sink.messages) == len(events)
    assert tables.messages() == []


@pytest.mark.anyio
async def test_thousands_of_dead_publishers_keep_none_from_its_start(
    governed: GovernedPostgres, tables: Tables
) -> None:
    tables.execute(
        "INSERT INTO outbox.outbox_publishers (owner, seen_at, lease_seconds, paused, target)"
        " SELECT 'dead-' || n, now() - interval '1 day', 10, '[]', 'default'"
        " FROM generate_series(1, 3001) n"
    )
    async with Publisher(Database(governed.url), MemorySink()):
        pass
    ((left,),) = [row.values() for row in tables.execute(_PUBLISHERS)]
    assert left <= 1_001, "the first beat and the one at the end forget a thousand each"


def test_many_bytes_are_written_in_transactions_of_10_mib(writer: Writer, tables: Tables) -> None:
    tables.execute("ALTER TABLE outbox.outbox ALTER payload SET STORAGE EXTERNAL")
    tables.execute("ALTER TABLE outbox.business_events ALTER event_data SET STORAGE EXTERNAL")
    tables.execute("ALTER TABLE outbox.entities ALTER entity_data SET STORAGE EXTERNAL")
    events = [Event.new("CarCreated", [Entity("Car", f"CAR-{n}", LARGE)]) for n in range(12)]
    assert {type(outcome) for outcome in writer.write_many(events)} == {Receipt}
    tables.assert_consistent()


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("dead", [False, True])
async def test_messages_whose_headers_are_larger_than_they_are_can_be_replayed(
    governed: GovernedPostgres, tables: Tables, dead: bool
) -> None:
    """A header names all entities, percent-encoded: 9 bytes for a letter that takes 3."""
    touched = [{"entityId": f"{n:03}" + "漢" * 125, "entityType": "車"} for n in range(200)]
    ids = [uuid4() for _ in range(60)]
    with Writer(Database(governed.url), QUICK) as writer:
        for id_ in ids:
            header = {"uuid": str(id_), "eventName": "Car Created"}
            entities = [{"entityHeader": each} for each in touched]
            event = {"eventHeader": header, "entities": entities}
            writer.write(json.dumps(event, ensure_ascii=False).encode())
    if dead:
        tables.execute(
            "INSERT INTO outbox.dead_letters SELECT event_id, now(), shard, position,"
            " previous_position, subject_type, subject_id, subject_version, topic, headers,"
            " payload_size, created_at, 'no', 1, 0 FROM outbox.outbox"
        )
    tables.execute("DELETE FROM outbox.outbox")
    database = Database(governed.url)
    async with Messages(database) as messages:
        stored = Selection(ids=tuple(ids))
        told = [each async for each in (messages.retry() if dead else messages.replay(stored))]
    assert [each.status for each in told] == ["retried" if dead else "replayed"] * len(ids)
    assert tables.execute("SELECT count(*) AS n FROM outbox.outbox") == [{"n": len(ids)}]


def test_no_key_of_the_tables_can_be_too_long(tables: Tables) -> None:
    """Whatever the characters: by the declared lengths."""
    found = tables.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'outbox'")
    names = [f"'outbox.{row['tablename']}'::regclass" for row in found]
    assert len(names) > 15
    assert tables.connection.execute(KEYS.format(", ".join(names)).encode()).fetchall() == []


def test_a_change_of_the_schema_is_one_conflict(writer: Writer, governed: GovernedPostgres) -> None:
    writer.write(workload_s.car_created())
    with psycopg.connect(governed.url) as other:
        other.execute("CREATE TABLE records.other (id int)")
    receipt = writer.write(workload_s.car_created())
    assert (receipt.attempts, receipt.conflicts) == (2, 1)


@pytest.mark.anyio
async def test_changes_of_the_schema_in_a_row_are_met_by_trying_again_at_once(
    governed: GovernedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = count()
    session = Session(Database(governed.url))
    with psycopg.connect(governed.url, autocommit=True) as other:

        async def change(seconds: float) -> None:
            if seconds:
                other.execute(f"CREATE TABLE records.other_{next(names)} (id int)".encode())

        monkeypatch.setattr(anyio, "sleep", change)
        await session.fetch_rows("shard_count", {})
        await change(1)
        assert await session.fetch_rows("shard_count", {}) == [(16,)]
    await session.close()


def test_five_migrators_at_once_all_come_through(governed: GovernedPostgres) -> None:
    database = Database(governed.url, schema=f"raced_{uuid4().hex}")
    with ThreadPoolExecutor(5) as pool:
        done = [future.result() for future in [pool.submit(apply, database) for _ in range(5)]]
    assert {found.shards for found in done} == {16}
    assert check(database) == []


def test_conflicts_told_at_the_commit_lose_no_event(writer: Writer, tables: Tables) -> None:
    def write(n: int) -> Receipt:
        return writer.write(workload_s.payment_submitted(n, Entity("Car", "CAR-1", {"n": n})))

    receipts = with_workers(4, write, range(16))
    assert len(receipts) == 16
    tables.assert_consistent()
    assert [row["version"] for row in tables.entities() if row["entity_type"] == "Car"] == [16]


def test_conflicts_told_at_the_commit_lose_no_update(writer: Writer, tables: Tables) -> None:
    tables.execute("CREATE TABLE records.counter AS SELECT 0 AS n")

    def count(transaction: Transaction) -> None:
        transaction.connection.execute("UPDATE records.counter SET n = n + 1")
        transaction.append(workload_s.car_created())

    with_workers(3, lambda _: writer.transact(count), range(6))
    assert tables.execute("SELECT n FROM records.counter") == [{"n": 6}]
    assert len(tables.events()) == 6
    tables.assert_consistent()


def test_a_transaction_that_is_too_old_is_told_and_not_run_again(
    writer: Writer, tables: Tables, clock: Any
) -> None:
    runs: list[int] = []

    def function(transaction: Transaction) -> None:
        runs.append(1)
        transaction.append(workload_s.car_created())
        clock.now += 301

    with pytest.raises(errors.ProgramLimitExceeded, match="age limit of 300s"):
        writer.transact(function)
    assert (runs, tables.events()) == ([1], [])


def test_a_refusal_that_the_function_swallows_is_not_taken_for_a_commit(
    writer: Writer, tables: Tables
) -> None:
    """The COMMIT of an aborted transaction answers ROLLBACK, and no error."""

    def function(transaction: Transaction) -> None:
        transaction.append(workload_s.car_created())
        with pytest.raises(errors.ProgramLimitExceeded):
            transaction.connection.execute(BULK)

    with pytest.raises(errors.ProgramLimitExceeded, match="row limit"):
        writer.transact(function)
    assert tables.events() == []


@pytest.mark.parametrize("form", FORMS)
def test_a_write_to_more_targets_than_the_writer_knew_is_halved_until_it_fits(
    governed: GovernedPostgres, tables: Tables, form: str
) -> None:
    settings = replace(QUICK, form=form, max_retries=50, backlog_check=None)
    for column in ("outbox ALTER payload", "business_events ALTER event_data"):
        tables.connection.execute(f"ALTER TABLE outbox.{column} SET STORAGE EXTERNAL".encode())
    with Writer(Database(governed.url), settings) as writer:
        writer.write(workload_s.car_created("WARM-UP"))
        tables.execute(
            "INSERT INTO outbox.outbox_targets (name, kind, first_shard, state)"
            " SELECT 'target-' || n, 'sink', n * 1024, 'opening' FROM generate_series(1, 4) n"
        )
        small = [Event.new("Sold", [Entity("Car", f"C-{n}")]) for n in range(800)]
        large = [Event.new("Sold", [Entity("Bus", f"B-{n}", LARGE)]) for n in range(7)]
        for batch in (small, large):
            assert {type(outcome) for outcome in writer.write_many(batch)} == {Receipt}
    assert tables.execute("SELECT count(*) AS n FROM outbox.outbox") == [{"n": 1 + 5 * 807}]
