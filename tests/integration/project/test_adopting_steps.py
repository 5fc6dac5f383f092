"""What examples/adopting/README.md says of each step, one saying at a time."""

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.checkout import ROOT
from tests.support.dsql.server import ON_DSQL
from tests.support.publisher.given_up_messages import gathered, relay_all
from tests.support.publisher.running_relays import count
from tests.support.service_tables import create, new_event, write_as_before
from tests.support.waiting import wait_until

from dsql_outbox.operations import Messages, Selection
from dsql_outbox.outbox import Database, Receipt
from dsql_outbox.outbox.event.event_parser import ParsedEvent, ParsedTouch
from dsql_outbox.schema import apply
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

CAR = ("Car", "CAR-1")
LOAN = ("Loan", "LOAN-1")
sys.path.append(str(ROOT / "examples" / "adopting"))
import backfill  # noqa: E402 # pyright: ignore[reportMissingImports]
import dual  # noqa: E402 # pyright: ignore[reportMissingImports]


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection]:
    apply(Database(database_url), shards=2)
    with psycopg.connect(database_url, autocommit=True) as connection:
        create(connection, "text")
        connection.execute("CREATE TABLE adopting (one int PRIMARY KEY, relayed boolean NOT NULL)")
        connection.execute("INSERT INTO adopting VALUES (1, false)")
        yield connection


@pytest.fixture
def writer(database_url: str) -> Iterator[Writer]:
    with Writer(Database(database_url)) as writer:
        yield writer


def store(writer: Writer, *entities: tuple[str, str], **data: Any) -> Receipt | None:
    event = new_event(entities, **data)
    return writer.transact(lambda transaction: dual.store(transaction, event))


def bring(url: str, sql: psycopg.Connection, **options: Any) -> Any:
    chosen = Namespace(**({"since": "-infinity", "settle": 300, "rows": 500} | options))
    with Writer(Database(url)) as writer:
        run = backfill.Backfill(writer, sql, chosen)
        run.run()
    return run


def ways_out(sql: psycopg.Connection) -> tuple[int, int]:
    """How many events the poller sends, and how many the relay."""
    row = sql.execute("SELECT count(*) FROM event_headers").fetchone()
    assert row is not None
    return row[0], count(sql, "outbox")


def wait_for_a_lock(sql: psycopg.Connection) -> None:
    blocked = """SELECT count(*) > 0 FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    wait_until(lambda: sql.execute(blocked).fetchone() == (True,))


# --- step 1 ---------------------------------------------------------------------------


def test_a_new_entity_is_appended_and_left_to_the_poller(
    sql: psycopg.Connection, writer: Writer
) -> None:
    receipt = store(writer, CAR, LOAN)
    assert receipt is not None
    assert [touched.version for touched in receipt.entities] == [1, 1]
    assert ways_out(sql) == (1, 0)
    receipt = store(writer, CAR)
    assert receipt is not None
    assert receipt.entities[0].version == 2
    assert ways_out(sql) == (2, 0)


def test_an_event_is_not_appended_before_the_past_of_any_of_its_entities(
    sql: psycopg.Connection, writer: Writer, database_url: str
) -> None:
    write_as_before(sql, [LOAN])
    assert store(writer, CAR, LOAN) is None
    assert store(writer, CAR) is None
    assert count(sql, "business_events") == 0
    assert bring(database_url, sql).brought == 3
    receipt = store(writer, CAR, LOAN)
    assert receipt is not None
    assert [touched.version for touched in receipt.entities] == [3, 3]


def test_a_writer_that_waited_for_one_of_the_old_path_sees_its_event(
    sql: psycopg.Connection, writer: Writer, database_url: str
) -> None:
    store(writer, CAR)
    with psycopg.connect(database_url) as old, ThreadPoolExecutor(1) as pool:
        old.execute("SELECT")  # begins
        write_as_before(old, [CAR])
        waiting = pool.submit(store, writer, CAR)
        wait_for_a_lock(sql)
        old.commit()
        assert waiting.result(30) is None
    assert bring(database_url, sql).brought == 2


def test_a_writer_that_waited_across_the_switch_is_relayed(
    sql: psycopg.Connection, writer: Writer, database_url: str
) -> None:
    store(writer, CAR)
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT FROM car_entities FOR UPDATE")
        waiting = pool.submit(store, writer, CAR)
        wait_for_a_lock(sql)
        sql.execute("UPDATE adopting SET relayed = true")
        other.commit()
        waiting.result(30)
    # A snapshot does not see the switch: the poller, which goes on for a while, sends the event.
    assert ways_out(sql) == ((2, 0) if ON_DSQL else (1, 1))


# --- step 2 ---------------------------------------------------------------------------


async def test_what_was_brought_can_be_streamed_and_replayed(
    sql: psycopg.Connection, writer: Writer, database_url: str
) -> None:
    write_as_before(sql, [CAR], own_id="event-2026", price=1.5)
    event_id = UUID(write_as_before(sql, [CAR, LOAN], make_year=2024))
    assert bring(database_url, sql).brought == 2
    assert bring(database_url, sql).brought == 0
    first, second = writer.stream("Car", "CAR-1")
    assert (first.event_id, second.event_id) == (dual.event_uuid("event-2026"), event_id)
    assert json.loads(second.data)["entities"][1]["make_year"] == 2024
    sink = MemorySink()
    await relay_all(Database(database_url), sink)
    assert sink.messages == []
    async with Messages(Database(database_url)) as messages:
        assert len(await gathered(messages.replay(Selection(ids=(event_id,))))) == 1
    await relay_all(Database(database_url), sink)
    assert [message.event_id for message in sink.messages] == [event_id]


def test_an_event_that_is_committed_late_still_comes_before_the_next_of_its_entity(
    sql: psycopg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring_page = backfill.Backfill._bring_page
    late: list[str] = []

    def committed_late(self: Any, own_ids: list[str]) -> None:
        bring_page(self, own_ids)
        if old.info.transaction_status:
            old.commit()
            late.append(write_as_before(sql, [CAR], n=2))

    with psycopg.connect(database_url) as old:
        old.execute("SELECT")  # begins
        late.append(write_as_before(old, [CAR], n=1))
        for n in range(3):
            write_as_before(sql, [("Car", f"CAR-{n + 2}")])
        monkeypatch.setattr(backfill.Backfill, "_bring_page", committed_late)
        assert bring(database_url, sql, rows=3).brought == 5
    query = "SELECT event_id::text FROM outbox.event_headers WHERE entity_id = 'CAR-1' ORDER BY {}"
    found = sql.execute(query.format("entity_version").encode()).fetchall()
    assert [event_id for (event_id,) in found] == late


def test_two_backfills_at_once_bring_each_event_once_and_in_order(
    sql: psycopg.Connection, database_url: str
) -> None:
    stored = [write_as_before(sql, [CAR], n=n) for n in range(150)]

    def run(_: int) -> int:
        with psycopg.connect(database_url, autocommit=True) as own:
            return int(bring(database_url, own, rows=20).brought)

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(run, range(2))) == 150
    query = "SELECT event_id::text FROM outbox.event_headers ORDER BY entity_version"
    assert [event_id for (event_id,) in sql.execute(query)] == stored
    assert count(sql, "outbox") == 0


def test_a_refused_event_is_named_and_the_others_are_brought(
    sql: psycopg.Connection, database_url: str
) -> None:
    write_as_before(sql, [CAR])
    write_as_before(sql, [("Car", "C" * 129)], own_id="event-long")
    broken = write_as_before(sql, [CAR])
    sql.execute("UPDATE business_events SET event_data = 'no' WHERE id = %s", [broken])
    write_as_before(sql, [CAR])
    run = bring(database_url, sql)
    assert run.brought == 2
    assert sorted(run.refused) == sorted(["event-long", broken])
    assert "129 characters, over the limit of 128" in run.refused["event-long"]


def test_an_event_that_needs_no_change_is_kept_byte_for_byte() -> None:
    event = json.dumps(new_event([CAR], n=1), indent=3)
    assert backfill.wire(json.loads(event)["eventHeader"]["uuid"], event) == event


@given(st.lists(st.tuples(st.integers(1, 1_400), st.integers(0, 2_000_000)), max_size=20))
def test_a_transaction_keeps_within_the_limits_of_dsql(shapes: list[tuple[int, int]]) -> None:
    touch = ParsedTouch("Car", "CAR-1", "{}", "{}")
    events = [
        ParsedEvent(uuid4(), "E", "E", None, "{}", b"", (touch,) * touches, size)
        for touches, size in shapes
    ]
    batches = list(backfill.transactions(events))
    assert [event for batch in batches for event in batch] == events
    for batch in batches:
        # A row each: the event, its message and the message's end, and two for each touch.
        assert sum(3 + 2 * len(event.touches) for event in batch) <= 3_000
        assert sum(event.stored_bytes for event in batch) <= 5 * 2**20


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--database", "postgresql://127.0.0.1:1/x"], 1, "run it again"),
        (["--rows", "0"], 2, "--rows must be 1 or more"),
        ([], 2, "--database or DSQL_OUTBOX_DATABASE is needed"),
    ],
)
def test_the_backfill_says_in_a_line_why_it_does_not_run(
    options: list[str], code: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DSQL_OUTBOX_DATABASE", raising=False)
    url = ["--database", "postgresql://127.0.0.1:1/x"] if "--rows" in options else []
    done = subprocess.run(
        [sys.executable, backfill.__file__, *options, *url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


# --- step 3 ---------------------------------------------------------------------------


def test_after_the_switch_an_entity_whose_past_is_missing_is_refused_and_nothing_stored(
    sql: psycopg.Connection, writer: Writer, database_url: str
) -> None:
    write_as_before(sql, [CAR])
    sql.execute("UPDATE adopting SET relayed = true")
    with pytest.raises(dual.NotAdopted):
        store(writer, CAR)
    assert ways_out(sql) == (1, 0)
    bring(database_url, sql)
    receipt = store(writer, CAR)
    assert receipt is not None
    assert receipt.entities[0].version == 2
    assert ways_out(sql) == (1, 1)


def test_the_switch_goes_back_too(sql: psycopg.Connection, writer: Writer) -> None:
    store(writer, CAR)
    sql.execute("UPDATE adopting SET relayed = true")
    store(writer, CAR)
    sql.execute("UPDATE adopting SET relayed = false")
    receipt = store(writer, CAR)
    assert receipt is not None
    assert receipt.entities[0].version == 3
    assert ways_out(sql) == (2, 1)
