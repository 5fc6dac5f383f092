"""Code that runs while tables change: on the tables of versions to come, and as shards grow."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import anyio
import pytest
from tests.support.commands import invoke
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK
from tests.support.writer.checked_tables import Tables

from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Publisher, PublisherSettings, Rejected, Retry
from dsql_outbox.schema import apply
from dsql_outbox.schema.comparison import check
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

NEWER = (
    *(
        f"ALTER TABLE outbox.{table} ADD COLUMN more text"
        for table in ("business_events", "entities", "outbox", "dead_letters", "outbox_failures")
    ),
    "INSERT INTO outbox.schema_migrations VALUES (99, 'more', 'abc', clock_timestamp())",
)


@pytest.fixture
def database(url: str, tables: Tables) -> Database:
    """A database that a version to come has migrated; none of its code runs here."""
    for query in NEWER:
        tables.execute(query)
    return Database(url)


@pytest.mark.parametrize("form", ["single", "plain"])
@pytest.mark.anyio
async def test_this_code_writes_and_relays_on_newer_tables(
    database: Database, tables: Tables, form: Literal["single", "plain"]
) -> None:
    with Writer(database, replace(QUICK, form=form, backlog_check=1e-9)) as writer:
        events = [writer.write(workload_s.car_created(f"CAR-old-{n}")).event_id for n in range(3)]
        writer.write(workload_s.three_entities())
        writer.write_many(workload_s.distinct())
        writer.transact(lambda work: work.append(workload_s.loan_created(9)))
        assert [event.version for event in writer.stream("Car", "CAR-old-1")] == [1]
    tables.assert_consistent()
    written = len(tables.events())
    sink = MemorySink()
    sink.fail(events[0], Retry("not now"))
    sink.fail(events[1], Rejected("never"))
    with anyio.fail_after(60):
        settings = PublisherSettings(backoff_base=0.001)
        await Publisher(database, sink, settings).run(until_empty=True)
    assert len(set(sink.ids)) == written - 1
    assert tables.messages() == []
    assert tables.execute("SELECT event_id FROM outbox.dead_letters") == [{"event_id": events[1]}]


def test_this_code_notes_that_the_tables_are_newer_and_leaves_them_alone(
    database: Database, url: str
) -> None:
    found = {(drift.difference, drift.part) for drift in check(database)}
    assert found == {("note", "column"), ("note", "migration")}
    assert apply(database).applied == ()
    checked = invoke("schema", "check", "--database", url)
    assert checked.code == 0, checked.out
    assert b"migration 0099 more of schema outbox comes from a newer version" in checked.out


def test_shards_grow_under_running_writers(url: str, tables: Tables) -> None:
    database = Database(url)
    grown = threading.Event()

    def write(number: int) -> None:
        with Writer(database, QUICK) as writer:
            for n in range(200):
                writer.write(workload_s.car_created(f"CAR-{number}-{n % 20}"))
                if n == 20:
                    started.release()
                    grown.wait(10)

    started = threading.Semaphore(0)
    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, number) for number in range(3)]
        for _ in writers:
            started.acquire()
        apply(database, shards=40)
        grown.set()
        for found in writers:
            found.result()
    with Writer(database, QUICK) as writer:  # one that starts now knows of all shards
        for n in range(200):
            writer.write(workload_s.car_created(f"CAR-new-{n}"))
    tables.assert_consistent()
    assert check(database) == []
    assert len({row["shard"] for row in tables.messages()}) > 16
    shards = tables.execute(
        "SELECT subject_id, count(DISTINCT shard) FROM outbox.outbox GROUP BY 1 HAVING"
        " count(DISTINCT shard) > 1"
    )
    assert shards == []
