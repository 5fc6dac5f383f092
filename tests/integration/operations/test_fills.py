"""The fill of a target: it gets each stored event once, beside writers, whatever is stopped."""

from collections import defaultdict
from itertools import chain
from typing import Any
from uuid import UUID

import anyio
import psycopg
import pytest
from anyio import to_thread
from tests.support.dsql.server import ON_DSQL
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.running_relays import event, in_order, quick_settings, until

from dsql_outbox.cli.status.tables import tables_of
from dsql_outbox.operations import StatusReader, Targets, fills
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.operations.fills import FillProgress
from dsql_outbox.operations.targets import AddRun
from dsql_outbox.outbox import Database, Entity, Event, SettingsError
from dsql_outbox.publisher import Publisher
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

WRONG = """
WITH target AS (SELECT first_shard, types FROM outbox.outbox_targets WHERE name = %s),
wanted AS (
  SELECT first_shard + shard AS shard, position, id, previous_position, subject_id, subject_version
  FROM outbox.business_events, target
  WHERE types IS NULL OR subject_type = ANY(types::text[])),
there AS (
  SELECT o.shard, o.position, o.event_id, o.previous_position, o.subject_id, o.subject_version
  FROM outbox.outbox o, target WHERE o.shard BETWEEN first_shard AND first_shard + 1023)
(SELECT 'missing', * FROM (TABLE wanted EXCEPT TABLE there) AS m)
UNION ALL (SELECT 'too many', * FROM (TABLE there EXCEPT ALL TABLE wanted) AS t)
"""
"""The messages of a target that has relayed nothing, against the stored events."""

# On PostgreSQL a worker that commits holds the row of the fill, so the next one waits for it.
STAGES = ["INSERT", "COMMIT"] if ON_DSQL else ["INSERT"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)
    monkeypatch.setattr(fills, "PAGE_ROWS", 7)


def wrong(sql: psycopg.Connection, name: str) -> list[Any]:
    """What is wrong with the messages of a target that has relayed nothing."""
    return sql.execute(WRONG, (name,)).fetchall()


def state(sql: psycopg.Connection) -> str | None:
    query = "SELECT state FROM outbox.outbox_targets WHERE name = 'lake'"
    row = sql.execute(query).fetchone()
    return row and row[0]


def write(writer: Writer, number: int, subjects: int = 6, first: int = 0) -> None:
    """Write events of some subjects, each in turn."""
    writer.write_many([event(f"C-{n % subjects}", n) for n in range(first, first + number)])


async def reads(run: AddRun) -> list[int]:
    """How many events were read, after each of its transactions."""
    return [each.fill.read async for each in run if each.fill is not None]


async def left_at(run: AddRun, read: int) -> None:
    """Add a target, and cancel that when so many events were read."""
    with anyio.CancelScope() as scope:
        async for each in run:
            if each.fill is not None and each.fill.read >= read:
                scope.cancel()


async def completed(run: AddRun) -> None:
    await run


async def drained(database: Database, name: str) -> MemorySink:
    """The messages of a target."""
    sink = MemorySink()
    await Publisher(database, sink, quick_settings(), target=name).run(until_empty=True)
    return sink


@pytest.mark.parametrize("subjects", [1, 6, 40])
async def test_a_target_gets_the_messages_of_all_events_as_the_others_got_them(
    database: Database, writer: Writer, targets: Targets, sql: psycopg.Connection, subjects: int
) -> None:
    write(writer, 40, subjects)
    writer.write(Event.new("Both", [Entity("Loan", "a/b é"), Entity("Car", "C-0")]))
    writer.write(Event.new("Own", [Entity("Car", "C-0")], topic="mine", headers={"xown": "1"}))
    ours = await drained(database, "default")
    run = targets.add("lake", from_start=True)
    read = await reads(run)
    found = run.progress
    assert found.state == "running"
    assert found.fill == FillProgress(read=42, messages=42)
    assert read == [0, 7, 14, 21, 28, 35, 42, 42]
    assert wrong(sql, "lake") == []
    assert sql.execute("SELECT count(payload) FROM outbox.outbox").fetchall() == [(0,)]
    write(writer, 12, subjects, first=40)
    theirs = await drained(database, "lake")
    assert received(theirs) == received(ours, await drained(database, "default"))


def received(*sinks: MemorySink) -> dict[str, list[Any]]:
    """What consumers of any target see of each subject's messages, but for trace and lease."""
    found: dict[str, list[Any]] = defaultdict(list)
    for message in chain.from_iterable(sink.messages for sink in sinks):
        own = {n: v for n, v in message.headers.items() if n not in {"traceparent", "leaseepoch"}}
        found[message.key].append((message.topic, message.payload, message.event_id, own))
    return found


async def test_it_gets_its_types_alone(
    database: Database, writer: Writer, targets: Targets, sql: psycopg.Connection
) -> None:
    write(writer, 9)
    writer.write_many([Event.new("Made", [Entity("Loan", f"{n}")]) for n in range(9)])
    nil = Event.new("Made", [Entity("Loan", "nil")], id=UUID(int=0))
    writer.write(nil)
    found = await targets.add("loans", types=["Loan"], from_start=True)
    assert found.fill == FillProgress(read=19, messages=10)
    assert wrong(sql, "loans") == []
    assert len((await drained(database, "loans")).messages) == 10


async def test_large_events_make_small_pages(
    writer: Writer, targets: Targets, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fills, "_PAGE_BYTES", 4_000)
    wide = [
        Event.new("W", [Entity("Car", f"{k}-{n}") for n in range(size)], id=UUID(int=k))
        for k, size in enumerate((1, 300, 30, 30, 30, 1, 1, 1))
    ]
    writer.write_many(wide)
    assert await reads(targets.add("lake", from_start=True)) == [0, 1, 2, 4, 8, 8]
    assert wrong(sql, "lake") == []


async def test_an_event_with_invalid_headers_becomes_a_dead_letter_and_no_hole(
    database: Database, writer: Writer, targets: Targets, sql: psycopg.Connection
) -> None:
    write(writer, 4, subjects=4)
    columns = "SET headers = '[1]' WHERE subject_id = 'C-1'"
    sql.execute(f"UPDATE outbox.business_events {columns}".encode())
    sql.execute("UPDATE outbox.business_events SET touches = '5' WHERE subject_id = 'C-2'")
    await targets.add("lake", from_start=True)
    sink = await drained(database, "lake")
    assert sorted(m.key for m in sink.messages) == ["Car/C-0", "Car/C-3"]
    dead = sql.execute("SELECT subject_id, error FROM outbox.dead_letters ORDER BY 1").fetchall()
    assert [subject for subject, _ in dead] == ["C-1", "C-2"]
    assert all("headers are not a JSON object of texts" in error for _, error in dead)


async def test_a_fill_needs_to_be_asked_for_at_the_beginning_and_can_be_repeated(
    writer: Writer, targets: Targets
) -> None:
    write(writer, 9)
    await targets.add("lake")
    with pytest.raises(SettingsError, match="lake exists without its earlier events"):
        await targets.add("lake", from_start=True)
    first = await targets.add("orders", from_start=True)
    assert first == await targets.add("orders", from_start=True) == await targets.add("orders")
    await targets.drop("orders")
    with pytest.raises(SettingsError, match="orders was dropped"):
        await targets.add("orders", from_start=True)


@pytest.mark.postgres_only("DSQL lists no transactions, so 5 minutes are waited for")
async def test_writers_that_know_nothing_of_the_target_are_waited_for_and_filled_in(
    outbox_url: str,
    writer: Writer,
    targets: Targets,
    sql: psycopg.Connection,
    holder: psycopg.Connection,
) -> None:
    """One waits behind a row; one has a snapshot from before, and has written nothing yet."""
    writer.write(event("hot", 1))
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND %s"
    blocked = query.replace("%s", "wait_event_type = 'Lock'").encode()
    with psycopg.connect(outbox_url) as early:
        early.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        early.execute("SELECT FROM outbox.business_events")
        holder.execute("SELECT FROM outbox.entities WHERE entity_id = 'hot' FOR UPDATE")
        added: list[Any] = []

        async def add() -> None:
            added.append(await targets.add("lake", from_start=True))

        async with anyio.create_task_group() as group:
            group.start_soon(to_thread.run_sync, writer.write, event("hot", 3))
            await until(lambda: bool(sql.execute(blocked).fetchall()))
            group.start_soon(add)
            await until(lambda: state(sql) == "opening")
            writer.append_to(holder, event("hot", 2))
            writer.append_to(early, event("early", 1))
            holder.commit()
            await anyio.sleep(0.5)
            assert (added, state(sql)) == ([], "opening")
            writer.write(event("other"))
            early.commit()
    writer.write_many([event("hot", 4), event("early", 2)])
    assert wrong(sql, "lake") == []
    assert added[0].fill == FillProgress(read=5, messages=3)


@pytest.mark.parametrize("stage", STAGES)
async def test_a_page_of_a_worker_that_was_stopped_does_not_commit_after_the_end(
    database: Database,
    writer: Writer,
    database_proxy: PostgresProxy,
    targets: Targets,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    """By then everything is relayed, and its rows would be relayed once more, out of order."""
    monkeypatch.setattr(fills, "LEASE", 0.2)
    write(writer, 30)
    held = database_proxy.hold(matching='INSERT INTO "outbox".outbox (')
    async with Targets(Database(database_proxy.url)) as stopped, anyio.create_task_group() as group:
        group.start_soon(completed, stopped.add("lake", from_start=True))
        await to_thread.run_sync(held.arrived)
        if stage == "COMMIT":
            inserting, held = held, database_proxy.hold(matching="COMMIT")
            await to_thread.run_sync(inserting.release)
            await to_thread.run_sync(held.arrived)
        with anyio.fail_after(60):
            await targets.add("lake", from_start=True)
        assert wrong(sql, "lake") == []
        sink = await drained(database, "lake")
        assert (len(sink.messages), in_order(sink.messages)) == (30, True)
        await to_thread.run_sync(held.release)
    rows = sql.execute("SELECT count(*) FROM outbox.outbox WHERE shard >= 1024").fetchall()
    assert rows == [(0,)]


async def test_a_page_of_a_worker_that_was_stopped_does_not_commit_beside_the_next_worker(
    writer: Writer,
    database_proxy: PostgresProxy,
    targets: Targets,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another one has taken the fill and has not ended it, so only the epoch tells."""
    monkeypatch.setattr(fills, "LEASE", 0.2)
    write(writer, 30)
    read: list[int] = []
    held = database_proxy.hold(matching='INSERT INTO "outbox".outbox (')

    async def add(run: AddRun) -> None:
        read.extend(await reads(run))

    async with Targets(Database(database_proxy.url)) as stopped, anyio.create_task_group() as group:
        group.start_soon(add, stopped.add("lake", from_start=True))
        await to_thread.run_sync(held.arrived)
        with anyio.fail_after(60):
            await left_at(targets.add("lake", from_start=True), 7)
        assert state(sql) == "filling"
        await to_thread.run_sync(held.release)
    assert read == [0, 14, 21, 28, 30, 30]
    (_, found) = await targets.list()
    assert found.fill == FillProgress(read=30, messages=30)
    assert wrong(sql, "lake") == []


async def test_of_two_that_fill_one_target_one_works_and_two_targets_are_filled_at_once(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    write(writer, 60)
    found: list[Any] = []

    async def add(name: str, tool: Targets) -> None:
        found.append(await tool.add(name, from_start=True))

    async with (
        Targets(database) as one,
        Targets(database) as two,
        Targets(database) as three,
        anyio.create_task_group() as group,
    ):
        for name, tool in (("lake", one), ("lake", two), ("orders", three)):
            group.start_soon(add, name, tool)
    assert [each.state for each in found] == ["running"] * 3
    assert {each.fill for each in found} == {FillProgress(read=60, messages=60)}
    assert wrong(sql, "lake") == wrong(sql, "orders") == []
    epochs = sql.execute("SELECT target, epoch FROM outbox.outbox_fills ORDER BY 1").fetchall()
    assert epochs == [("lake", 1), ("orders", 1)]


async def test_a_call_that_is_cancelled_leaves_the_fill_to_the_next_at_once(
    database: Database,
    writer: Writer,
    targets: Targets,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fills, "LEASE", 3_600.0)
    write(writer, 60)
    await left_at(targets.add("lake", from_start=True), 7)
    assert state(sql) == "filling"
    with pytest.raises(SettingsError, match="lake is being filled from the start: add it with"):
        await targets.add("lake")
    (_, shown) = await targets.list()
    assert shown.fill is not None
    assert shown.fill.read == 7
    publisher = Publisher(database, MemorySink(), quick_settings(), target="lake")
    assert (await publisher.run(until_empty=True, max_seconds=0.3)).delivered == 0
    with anyio.fail_after(30):
        await targets.add("lake", from_start=True)
    assert wrong(sql, "lake") == []


async def test_a_target_that_is_dropped_while_it_is_filled_keeps_nothing(
    writer: Writer, database_proxy: PostgresProxy, targets: Targets, sql: psycopg.Connection
) -> None:
    """The page of a worker that was stopped meanwhile does not commit after the drop."""
    write(writer, 30)
    held = database_proxy.hold(matching='UPDATE "outbox".outbox_fills SET event_id')
    async with Targets(Database(database_proxy.url)) as stopped, anyio.create_task_group() as group:
        run = stopped.add("lake", from_start=True)

        async def add() -> None:
            with pytest.raises(SettingsError, match="target lake was dropped"):
                await run

        group.start_soon(add)
        await to_thread.run_sync(held.arrived)
        async with anyio.create_task_group() as dropping:
            dropping.start_soon(targets.drop, "lake")
            await until(lambda: state(sql) == "dropped")
            await to_thread.run_sync(held.release)
    assert run.progress.fill is not None
    assert run.progress.fill.read == 0
    found = sql.execute("SELECT shard >= 1024, count(*) FROM outbox.outbox GROUP BY 1").fetchall()
    assert found == [(False, 30)]
    assert sql.execute("SELECT state FROM outbox.outbox_fills").fetchall() == [("dropped",)]


async def test_the_status_and_the_list_show_how_far_a_fill_is(
    writer: Writer, targets: Targets, database: Database, sql: psycopg.Connection
) -> None:
    write(writer, 70)
    sql.execute("ANALYZE outbox.business_events")
    await left_at(targets.add("lake", from_start=True), 21)
    (_, listed) = await targets.list()
    assert listed.fill == FillProgress(21, 21, total=70)
    async with StatusReader(database) as status:
        found = await status.read()
    assert found.targets[1].fill == listed.fill
    shown_rows = [" ".join(row) for table in tables_of(found) for row in table.rows]
    assert any(row.startswith("lake sink filling 30 %") for row in shown_rows), shown_rows


@pytest.mark.postgres_only("DSQL has a planner of its own")
@pytest.mark.parametrize("at", [0, 150, 290])
def test_a_page_at_any_place_reads_its_own_events_only(
    writer: Writer, sql: psycopg.Connection, at: int
) -> None:
    write(writer, 300)
    sql.execute("ANALYZE outbox.business_events")
    sql.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
    ids = [UUID(int=0), *(row[0] for row in sql.execute("SELECT id FROM outbox.business_events"))]
    asked = {"after": sorted(ids)[at], "is_first": at == 0, "types": None, "rows": 7, "size": 9_999}
    query = b"EXPLAIN (ANALYZE, FORMAT JSON) " + statement("fill_page", "outbox")
    ((plan,),) = sql.execute(query, asked).fetchall()
    nodes, looked_at = [plan[0]["Plan"]], 0
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if "Relation Name" in node:
            looked_at += node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    assert 0 < looked_at <= 8


async def test_a_fill_that_is_stopped_leaves_the_rest_to_the_next_at_once(
    writer: Writer, targets: Targets, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fills, "LEASE", 3_600.0)
    write(writer, 30)
    run = targets.add("lake", from_start=True, rate=1e6)
    async for each in run:
        if each.fill is not None and each.fill.read:
            run.stop()
    assert (run.progress.state, run.again) == ("filling", {})
    with anyio.fail_after(30):
        again = targets.add("lake", from_start=True)
        assert await reads(again) == [7, 14, 21, 28, 30, 30]
    assert (again.progress.state, again.again) == ("running", None)
    assert wrong(sql, "lake") == []


async def test_a_worker_that_ends_late_leaves_the_fill_to_the_one_that_has_taken_it(
    database: Database,
    writer: Writer,
    targets: Targets,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fills, "LEASE", 3_600.0)
    write(writer, 30)
    async with Targets(database) as late:
        run = late.add("lake", from_start=True)
        async for each in run:
            if each.fill is not None and each.fill.read:
                break
        sql.execute("UPDATE outbox.outbox_fills SET expires_at = clock_timestamp()")
        next_run = targets.add("lake", from_start=True)
        async for each in next_run:
            if each.fill is not None and each.fill.read > 7:
                break
        await run.aclose()
        kept = "SELECT expires_at > clock_timestamp() FROM outbox.outbox_fills"
        assert sql.execute(kept).fetchall() == [(True,)]
        await next_run.aclose()
        assert sql.execute(kept).fetchall() == [(False,)]


@pytest.mark.postgres_only("DSQL lists no transactions, so 5 minutes are waited for")
async def test_a_run_that_waits_for_a_transaction_can_be_stopped(
    targets: Targets, sql: psycopg.Connection, holder: psycopg.Connection
) -> None:
    holder.execute("SELECT 1")
    run = targets.add("lake", from_start=True)
    async with anyio.create_task_group() as group:
        group.start_soon(completed, run)
        await until(lambda: run.waits_for == "the 1 transactions that are open")
        run.stop()
    assert (state(sql), run.again) == ("opening", {})


async def test_a_fill_is_kept_while_it_rests(
    database: Database,
    writer: Writer,
    targets: Targets,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its rate makes it rest for longer than its lease, and no other worker takes it."""
    monkeypatch.setattr(fills, "LEASE", 0.3)
    write(writer, 2)
    async with Targets(database) as other, anyio.create_task_group() as group:
        group.start_soon(completed, targets.add("lake", from_start=True, rate=1.0))
        await until(lambda: state(sql) == "filling")
        await other.add("lake", from_start=True)
    assert sql.execute("SELECT epoch FROM outbox.outbox_fills").fetchall() == [(1,)]
    assert wrong(sql, "lake") == []
