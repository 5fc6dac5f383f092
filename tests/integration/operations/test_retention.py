"""Events that are forgotten: which ones go, which stay, and what ends then."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import anyio
import psycopg
import pytest
from anyio import to_thread
from tests.support.database_roles import as_role, made_roles
from tests.support.operations.forgotten_events import forget, later
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.given_up_messages import event, gathered, relay_all
from tests.support.publisher.running_relays import count, running
from tests.support.verified import findings_in

from dsql_outbox.operations import Erasures, Messages, Operations, Retention, Selection, Targets
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.operations.life import forget as forget_module
from dsql_outbox.operations.life import old_events
from dsql_outbox.operations.replay import StoredEvents
from dsql_outbox.outbox import (
    Database,
    DuplicateEvent,
    Entity,
    Event,
    JobRefused,
    SchemaError,
    SettingsError,
    StaleVersion,
)
from dsql_outbox.outbox.database.address import Isolation
from dsql_outbox.publisher import Publisher, Retry
from dsql_outbox.schema.roles import grant
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

OLD = datetime(2025, 1, 1, tzinfo=UTC)
CUT = OLD + timedelta(days=1)
BEFORE = "SELECT event_id, count(*)"
"""The last statement before the transaction that deletes."""
MOMENTS = [
    BEFORE,
    pytest.param("FOR UPDATE", marks=pytest.mark.postgres_only("its snapshot is older on DSQL")),
]
TABLES = ("business_events", "event_headers", "outbox_replays", "outbox", "dead_letters")


@pytest.fixture(autouse=True)
def _quick_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)


def age(sql: psycopg.Connection, *ids: UUID) -> None:
    """Let events be old; all without ids."""
    for table, key in (("business_events", "id"), ("event_headers", "event_id")):
        sql.execute(
            f"UPDATE outbox.{table} SET saved_date = %s WHERE {key} = ANY(%s) OR %s".encode(),
            (OLD, [*ids], not ids),
        )
    sql.execute(
        "UPDATE outbox.entities SET updated_at = %s WHERE event_id = ANY(%s) OR %s",
        (OLD, [*ids], not ids),
    )


def stored(sql: psycopg.Connection) -> set[UUID]:
    """The ids of the events that there are. Fails if a row of another table has none."""
    ids = {row[0] for row in sql.execute("SELECT id FROM outbox.business_events")}
    for table in TABLES[1:]:
        named = {row[0] for row in sql.execute(f"SELECT event_id FROM outbox.{table}".encode())}
        assert named <= ids, table
    return ids


async def replay(database: Database, *ids: UUID, target: str = "default") -> list[int | None]:
    """Replay events, and return the numbers of the replays."""
    async with Messages(database) as tool:
        return [each.replay async for each in tool.replay(Selection(ids=ids), target=target)]


# --- which events go -------------------------------------------------------------------


async def test_delivered_events_go_with_their_rows_and_what_a_row_names_stays(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    """Only one of several targets is behind."""
    gone = [writer.write(event(f"c-{n}", n, "shared")).event_id for n in range(5)]
    replayed, dead, failing, young = (writer.write(event(c)).event_id for c in "abcd")
    await relay_all(database, MemorySink(), refused=[dead])
    await replay(database, gone[1], replayed)
    sql.execute("DELETE FROM outbox.outbox WHERE event_id = %s", (gone[1],))  # it was delivered
    async with Targets(database) as targets:
        await targets.add("lake")
    paused = writer.write(event("e")).event_id
    behind = writer.write(event("f")).event_id
    sql.execute("DELETE FROM outbox.outbox WHERE shard < 1000 AND event_id = %s", (paused,))
    sql.execute(
        "INSERT INTO outbox.outbox_failures SELECT shard, position, event_id, 1, 'no', 'infinity'"
        " FROM outbox.outbox WHERE event_id = %s",
        (behind,),
    )
    age(sql, *gone, replayed, dead, failing, paused, behind)
    states = sql.execute("SELECT * FROM outbox.entities ORDER BY entity_id").fetchall()

    planned = await forget(database, before=CUT, dry_run=True)
    assert (planned.events, planned.kept, planned.read) == (6, 4, 11)
    assert count(sql, "business_events") == 11
    assert count(sql, "outbox_jobs") == 0
    done = await forget(database, before=CUT, reason="90 days")

    assert (done.events, done.kept) == (6, 4)
    assert stored(sql) == {replayed, dead, young, paused, behind}
    assert count(sql, "outbox_replays") == 1
    assert sql.execute("SELECT * FROM outbox.entities ORDER BY entity_id").fetchall() == states
    assert sql.execute("SELECT forgotten, forgotten_before FROM outbox.outbox_jobs").fetchall() == [
        (6, CUT)
    ]
    async with Operations(database) as operations:
        found = await gathered(operations.list())
        assert [each.reason for each in found if each.verb == "forget"] == ["90 days"]
    assert await findings_in(database) == []
    assert (await forget(database, before=CUT)).events == 0


async def test_no_id_is_left_out(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first and the last id that there can be, each on a page of its own."""
    monkeypatch.setattr(old_events, "_PAGE", 1)
    ids = [UUID(int=0), UUID(int=1), UUID(int=(1 << 128) - 1)]
    for each in ids:
        writer.write(Event.new("Moved", [Entity("Car", "a")], id=each))
    await relay_all(database, MemorySink())
    assert (await forget(database, dry_run=True)).events == 3
    assert (await forget(database)).read == 3
    assert stored(sql) == set()


@pytest.mark.postgres_only("a trigger notes the transactions")
async def test_events_are_forgotten_in_transactions_of_a_few_rows(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rows of an event are its own, those of its entities, and its replays."""
    monkeypatch.setattr(forget_module, "MAX_ROWS", 6)
    monkeypatch.setattr(old_events, "_PAGE", 3)
    ids = [writer.write(event(f"c-{n}", n, *"xy"[: n % 3])).event_id for n in range(10)]
    await relay_all(database, MemorySink())
    for number in range(9):
        await replay(database, *ids[: 10 - number])
        sql.execute("DELETE FROM outbox.outbox")
    sql.execute(
        "CREATE TABLE public.deleted (xid bigint);"
        "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO public.deleted VALUES (txid_current()); RETURN OLD; END'"
    )
    for table in TABLES[:3]:
        sql.execute(
            f"CREATE TRIGGER note BEFORE DELETE ON outbox.{table}"
            " FOR EACH ROW EXECUTE FUNCTION public.note()".encode()
        )
    assert (await forget(database)).events == 10
    sizes = sql.execute("SELECT count(*) FROM public.deleted GROUP BY xid").fetchall()
    alone = 1 + 3 + 9  # the largest event: such a one is never cut
    assert max(size for (size,) in sizes) <= alone
    assert sum(size for (size,) in sizes) == 10 + 19 + 54
    assert len(sizes) > 5
    assert [count(sql, table) for table in TABLES[:3]] == [0, 0, 0]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("target", ["default", "lake"])
@pytest.mark.parametrize("isolation", [None, "repeatable read"])
async def test_an_event_that_a_row_names_since_the_page_was_read_is_not_forgotten(
    database: Database,
    database_proxy: PostgresProxy,
    writer: Writer,
    sql: psycopg.Connection,
    target: str,
    moment: str,
    isolation: Isolation | None,
) -> None:
    """Only the look under the lock finds the row of a replay that has committed since.

    At any isolation level of the database: the replay has only locked the event.
    """
    async with Targets(database) as targets:
        await targets.add("lake")
    one, _ = (writer.write(event(c)).event_id for c in "ab")
    sql.execute("DELETE FROM outbox.outbox")

    def meanwhile() -> None:
        assert anyio.run(partial(replay, database, one, target=target)) == [1]

    database_proxy.before(meanwhile, matching=moment)
    done = await forget(Database(database_proxy.url, isolation=isolation))
    assert (done.events, done.kept) == (1, 1)
    assert stored(sql) == {one}
    assert count(sql, "outbox_replays") == 1


async def test_an_event_whose_replay_died_since_the_page_was_read_is_not_forgotten(
    database: Database, database_proxy: PostgresProxy, writer: Writer, sql: psycopg.Connection
) -> None:
    one, _ = (writer.write(event(c)).event_id for c in "ab")
    sql.execute("DELETE FROM outbox.outbox")

    def meanwhile() -> None:
        assert anyio.run(partial(replay, database, one)) == [1]
        anyio.run(partial(relay_all, database, MemorySink(), refused=[one]))

    database_proxy.before(meanwhile, matching=BEFORE)
    done = await forget(Database(database_proxy.url))
    assert (done.events, done.kept) == (1, 1)
    assert stored(sql) == {one}


@pytest.mark.parametrize("moment", [None, *MOMENTS])
async def test_nothing_is_forgotten_while_a_target_opens_or_fills(
    database: Database,
    database_proxy: PostgresProxy,
    writer: Writer,
    sql: psycopg.Connection,
    moment: str | None,
) -> None:
    """Also if it has begun since the job did: each transaction looks."""
    writer.write(event())
    await relay_all(database, MemorySink())

    def fill() -> None:
        sql.execute(
            "INSERT INTO outbox.outbox_targets (name, kind, first_shard, state)"
            " VALUES ('lake', 'sink', 1024, 'filling')"
        )

    if moment is None:
        fill()
    else:
        database_proxy.before(fill, matching=moment)
    with pytest.raises(JobRefused, match="target lake is filling"):
        await forget(Database(database_proxy.url))
    assert count(sql, "business_events") == 1


async def test_no_event_is_forgotten_between_the_row_of_a_replay_and_its_commit(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = writer.write(event()).event_id
    await relay_all(database, MemorySink())
    put, forgotten = StoredEvents.put, anyio.Event()

    async def forget_all() -> None:
        await forget(database)
        forgotten.set()

    async with anyio.create_task_group() as group:

        async def put_slowly(*arguments: Any) -> None:
            await put(*arguments)
            group.start_soon(forget_all)
            with anyio.move_on_after(1):  # it waits for us, and on DSQL one of us tries again
                await forgotten.wait()

        monkeypatch.setattr(StoredEvents, "put", put_slowly)
        told = await replay(database, one)
        await forgotten.wait()
    assert stored(sql) == ({one} if told == [1] else set())
    assert count(sql, "outbox") == len(stored(sql))


async def test_two_jobs_exclude_each_other_and_the_slow_one_changes_nothing(
    database: Database,
    database_proxy: PostgresProxy,
    writer: Writer,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsql_outbox.operations.life.job.LEASE", 1e6)
    for name in "ab":
        writer.write(event(name))
    await relay_all(database, MemorySink())
    monkeypatch.setattr(forget_module, "MAX_ROWS", 2)
    async with Retention(Database(database_proxy.url)) as one, Retention(database) as two:
        held, quick = database_proxy.hold(matching=BEFORE), two.forget(later())

        async def slow() -> None:
            with pytest.raises(JobRefused, match="another job has begun"):
                await one.forget(later())

        async with anyio.create_task_group() as group:
            group.start_soon(slow)
            await to_thread.run_sync(held.arrived)
            sql.execute("UPDATE outbox.outbox_jobs SET expires_at = now() - interval '1 s'")
            await anext(quick)
            await to_thread.run_sync(held.release)
        with pytest.raises(JobRefused, match=r"forget of .* runs; its lease ends in \d+ s"):
            await forget(database)
        await quick.aclose()
    assert len(stored(sql)) == 1
    assert sql.execute("SELECT forgotten FROM outbox.outbox_jobs").fetchall() == [(1,)]


async def test_a_time_without_a_zone_and_missing_tables_are_refused(
    database: Database, outbox_url: str
) -> None:
    async with Retention(database) as tool:
        with pytest.raises(SettingsError, match="has no time zone"):
            tool.forget(datetime(2026, 1, 1))  # noqa: DTZ001 - the subject
    with pytest.raises(SchemaError):
        await forget(Database(outbox_url, schema="elsewhere"))


# --- what ends then --------------------------------------------------------------------


async def test_what_a_forgotten_event_was_part_of_begins_later(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    sink = MemorySink()
    events = [event("a", n) for n in range(6)]
    ids = [writer.write(each).event_id for each in events]
    await relay_all(database, sink)
    age(sql, *ids[:4])
    state = writer.entity("Car", "a")
    assert (await forget(database, before=CUT)).events == 4

    assert [each.version for each in writer.stream("Car", "a")] == [5, 6]
    assert [each.version for each in writer.stream("Car", "a", after=2)] == [5, 6]
    assert writer.entity("Car", "a") == state
    with pytest.raises(DuplicateEvent):
        writer.write(events[5])
    with pytest.raises(StaleVersion):
        writer.write(event("a"), expected_version=4)
    again = writer.write(events[0], expected_version=6)
    assert (again.status, again.entities[0].version) == ("committed", 7)
    await relay_all(database, sink)
    assert sink.messages[-1].headers["previousposition"] == sink.messages[-2].headers["position"]

    async with Messages(database) as tool:
        found = await gathered(tool.replay(entity="Car/a", dry_run=True))
        assert [each.event_id for each in found] == [*ids[4:], ids[0]]
        assert len(await gathered(tool.replay(dry_run=True))) == 3
        assert [each.status for each in await gathered(tool.replay(Selection(ids=(ids[1],))))] == [
            "missing"
        ]
    async with Targets(database) as targets:
        fill = (await targets.add("lake", from_start=True)).fill
    assert fill is not None
    assert (fill.messages, fill.forgotten) == (3, 4)
    assert await findings_in(database) == []


async def test_erased_events_are_forgotten_with_the_notice_that_says_so(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    for n in range(3):
        writer.write(event("a", n, "b"))
    async with Erasures(database) as tool:
        await tool.erase("Car/a", reason="t")
    await relay_all(database, MemorySink())
    assert (await forget(database)).events == 4
    assert stored(sql) == set()
    assert await findings_in(database) == []


async def test_a_keeper_may_forget_and_an_operator_may_not(
    database: Database, outbox_url: str, writer: Writer, sql: psycopg.Connection
) -> None:
    one = writer.write(event()).event_id
    await relay_all(database, MemorySink())
    await replay(database, one)
    await relay_all(database, MemorySink())
    with made_roles(outbox_url) as roles:
        grant(database, roles)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await forget(Database(as_role(outbox_url, str(roles.operator))))
        assert stored(sql) == {one}
        assert (await forget(Database(as_role(outbox_url, str(roles.keeper))))).events == 1


# --- beside everything else ------------------------------------------------------------


@pytest.mark.postgres_only("the endpoint forgets what a transaction has only locked at its COMMIT")
async def test_beside_writers_publishers_and_replays_nothing_is_lost(
    database: Database, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event goes as soon as it is delivered, and each message is sent at least once."""
    monkeypatch.setattr(forget_module, "MAX_ROWS", 8)
    monkeypatch.setattr(old_events, "_PAGE", 16)
    sinks = {"default": MemorySink(), "lake": MemorySink()}
    async with Targets(database) as targets:
        await targets.add("lake")
    written: list[UUID] = []
    again = set[tuple[UUID, int | None]]()
    forgotten = 0

    def write() -> None:
        with Writer(database) as writer:
            for n in range(30):
                some = [event(f"c-{n % 5}", n, f"d-{n % 3}"), event(f"d-{n % 3}", n)]
                if n % 4 == 0:
                    sinks["lake"].fail(some[0].id, Retry("later"))
                written.extend(each.id for each in some)
                writer.write_many(some)

    async def operate() -> None:
        while len(written) < 60:
            for event_id in written[-3:]:
                again.update((event_id, number) for number in await replay(database, event_id))
            await anyio.lowlevel.checkpoint()

    publishers = [Publisher(database, sink, target=name) for name, sink in sinks.items()]
    async with running(*publishers), anyio.create_task_group() as group:
        group.start_soon(to_thread.run_sync, write)
        group.start_soon(operate)
        with anyio.fail_after(120):
            while len(written) < 60 or count(sql, "business_events"):
                forgotten += (await forget(database)).events
    assert forgotten == 60
    for sink in sinks.values():
        assert {*sink.ids} == {*written}
    numbers = {(each.event_id, each.headers.get("replay")) for each in sinks["default"].messages}
    assert {(i, str(n)) for i, n in again if n is not None} <= numbers
    assert await findings_in(database) == []
    assert [count(sql, table) for table in TABLES] == [0] * len(TABLES)
