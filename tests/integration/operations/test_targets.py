"""Targets on the real tables: each has its own way, from its opening to its end."""

import re
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any
from uuid import uuid4

import anyio
import psycopg
import pytest
from anyio import to_thread
from tests.support.publisher.running_relays import event, in_order, quick_settings, running, until

from dsql_outbox.cli.status.tables import tables_of
from dsql_outbox.operations import Messages, Selection, StatusReader, Targets, Topics
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.operations.targets import DroppedTarget
from dsql_outbox.outbox import Database, Entity, Event, Message, SettingsError, SinkUnavailable
from dsql_outbox.publisher import Apply, Publisher, Rejected, Retry
from dsql_outbox.publisher.relay import reader
from dsql_outbox.schema import apply
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

CREATED = "events.CarCreated"

pytestmark = pytest.mark.anyio

LAKE_VERSIONS = """SELECT subject_version::int FROM outbox.outbox
    WHERE shard >= 1024 AND subject_id = %s ORDER BY position"""


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_REFRESH", 0.05)
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)


def lake(sql: psycopg.Connection, subject: str) -> list[int]:
    return [version for (version,) in sql.execute(LAKE_VERSIONS, (subject,))]


def state(sql: psycopg.Connection) -> str | None:
    row = sql.execute("SELECT state FROM outbox.outbox_targets WHERE name = 'lake'").fetchone()
    return row and row[0]


def waits_for_a_row(sql: psycopg.Connection) -> bool:
    query = """SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    return bool(sql.execute(query).fetchall())


@asynccontextmanager
async def ending(work: Any) -> AsyncGenerator[list[Any]]:
    """Let a call of the tool run beside the block; it is done when its result is in the list."""
    results: list[Any] = []

    async def run() -> None:
        results.append(await work)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            yield results


class Dead(MemorySink):
    """A sink whose broker is out of reach until `up`."""

    up = False

    async def publish(self, messages: Any, answer: Any, /) -> None:
        if not self.up:
            raise SinkUnavailable("it is dead")
        await super().publish(messages, answer)


class Picky(MemorySink):
    """A sink that refuses one subject until it is `mended`."""

    def __init__(self, answer: Rejected | Retry) -> None:
        super().__init__()
        self._answer = answer
        self._refused_at = monotonic()
        self.mended = False

    @property
    def refused_since(self) -> float:
        """Seconds since it refused a message last."""
        return monotonic() - self._refused_at

    async def publish(self, messages: Any, answer: Any, /) -> None:
        for number, message in enumerate(messages):
            if message.key == "Car/bad" and not self.mended:
                self._refused_at = monotonic()
                answer(number, self._answer)
            else:
                await super().publish([message], lambda _, told, n=number: answer(n, told))


async def test_of_two_brokers_one_that_is_dead_does_not_concern_the_other(
    database: Database, writer: Writer, targets: Targets
) -> None:
    assert (await targets.add("lake")).state == "running"
    ours, theirs = MemorySink(), Dead()
    publishers = [
        Publisher(database, ours, quick_settings()),
        Publisher(database, theirs, quick_settings(), target="lake"),
    ]
    async with running(*publishers):
        for n in range(5):
            writer.write_many([event(f"C-{subject}", n) for subject in range(7)])
        await ours.published(35)
        assert theirs.messages == []
        theirs.up = True
        await theirs.published(35)
    for sink in (ours, theirs):
        assert in_order(sink.messages)
        assert len(set(sink.ids)) == len(sink.ids) == 35


async def test_a_message_that_names_its_event_has_its_bytes_or_dies(
    database: Database, writer: Writer, targets: Targets, sql: psycopg.Connection
) -> None:
    """Those of a model do, as those of a fill. Not even an empty message is applied or sent."""
    await targets.add("lake")
    await targets.add("cars", kind="model")
    events = [event(f"C-{n}", n) for n in range(6)]
    writer.write_many(events)
    sql.execute("UPDATE outbox.outbox SET payload = NULL")
    missing = events[4].id
    sql.execute("DELETE FROM outbox.business_events WHERE id = %s", [missing])
    applied: list[Message] = []

    async def apply(_: psycopg.AsyncConnection[Any], message: Message) -> None:
        applied.append(message)

    sink = MemorySink()
    publishers = [
        Publisher(database, sink, quick_settings(), target="lake"),
        Publisher(database, None, quick_settings(), apply=apply, target="cars"),
    ]
    for publisher in publishers:
        done = await publisher.run(until_empty=True)
        assert (done.delivered, done.dead) == (5, 1)
    wanted = {each.id: each.to_json() for each in events if each.id != missing}
    for messages in (applied, sink.messages):
        assert {message.event_id: message.payload for message in messages} == wanted
    letters = sql.execute("SELECT event_id, error FROM outbox.dead_letters").fetchall()
    reason = "is not a valid message: the bytes of event {} are not stored any more"
    assert letters == 2 * [(missing, reason.format(missing))]


async def test_a_target_gets_its_types_and_an_empty_one_ends_the_run(
    database: Database, writer: Writer, targets: Targets
) -> None:
    types = ["Loan", 'A "quoted", one']
    found = await targets.add("lake", types=types)
    assert found.types == tuple(sorted(types))
    writer.write(event("a"))
    writer.write(Event.new("LoanCreated", [Entity("Loan", "1"), Entity("Car", "a")]))
    sink = MemorySink()
    done = await Publisher(database, sink, quick_settings(), target="lake").run(until_empty=True)
    assert (done.delivered, [m.key for m in sink.messages]) == (1, ["Loan/1"])
    done = await Publisher(database, sink, quick_settings()).run(until_empty=True)
    assert done.delivered == 2


@pytest.mark.postgres_only("DSQL lists no transactions, so 5 minutes are waited for")
@pytest.mark.parametrize("ahead", [0, 3_600_000_000])
async def test_a_writer_that_waits_behind_a_row_makes_no_hole(
    writer: Writer,
    targets: Targets,
    sql: psycopg.Connection,
    holder: psycopg.Connection,
    ahead: int,
) -> None:
    """Its statement knows only the old targets, and commits between two that know the new one.

    An earlier clock may have been fast: the positions of its subjects are after the clock's.
    """
    writer.write(event("hot", 1))
    sql.execute("UPDATE outbox.entities SET position = position + %s", [ahead])
    holder.execute("SELECT FROM outbox.entities WHERE entity_id = 'hot' FOR UPDATE")
    async with anyio.create_task_group() as group:
        group.start_soon(to_thread.run_sync, writer.write, event("hot", 3))
        await until(lambda: waits_for_a_row(sql))
        async with ending(targets.add("lake")) as added:
            await until(lambda: state(sql) == "opening")
            writer.append_to(holder, event("hot", 2))
            await anyio.sleep(0.5)
            assert (added, lake(sql, "hot")) == ([], [])
            holder.commit()
    writer.write_many([event("hot", 4), event("hot", 5)])
    assert added[0].state == "running"
    assert lake(sql, "hot") == [4, 5]


@pytest.mark.postgres_only("DSQL lists no transactions, so 5 minutes are waited for")
@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_a_transaction_that_began_before_is_waited_for_though_it_has_written_nothing(
    writer: Writer,
    targets: Targets,
    sql: psycopg.Connection,
    holder: psycopg.Connection,
    isolation: str,
) -> None:
    holder.execute(f"BEGIN ISOLATION LEVEL {isolation}".encode())
    holder.execute("SELECT FROM outbox.business_events")
    async with ending(targets.add("lake")) as added:
        await until(lambda: state(sql) == "opening")
        writer.write(event("other"))
        writer.append_to(holder, event("late", 1))
        await anyio.sleep(0.5)
        assert added == []
        holder.commit()
    writer.write(event("late", 2))
    assert (lake(sql, "late"), lake(sql, "other")) == ([2], [])


@pytest.mark.postgres_only("DSQL lists no transactions, so 5 minutes are waited for")
async def test_a_transaction_that_is_prepared_meanwhile_is_waited_for(
    writer: Writer, targets: Targets, sql: psycopg.Connection, holder: psycopg.Connection
) -> None:
    """It gives its virtual id back, and commits when somebody says so."""
    holder.execute("SELECT 1")
    writer.append_to(holder, event("late", 1))
    name = f"late-{uuid4()}"
    async with ending(targets.add("lake")) as added:
        await until(lambda: state(sql) == "opening")
        holder.execute(f"PREPARE TRANSACTION '{name}'".encode())
        await anyio.sleep(0.5)
        assert added == []
        sql.execute(f"COMMIT PREPARED '{name}'".encode())
    writer.write(event("late", 2))
    assert lake(sql, "late") == [2]


@pytest.mark.postgres_only("DSQL lists no transactions, so 5 minutes are waited for")
async def test_an_opening_that_was_interrupted_goes_on(
    writer: Writer, targets: Targets, sql: psycopg.Connection, holder: psycopg.Connection
) -> None:
    holder.execute("SELECT 1")
    with anyio.move_on_after(0.5):
        await targets.add("lake", types=["Car"])
    assert state(sql) == "opening"
    writer.write(event("a", 1))
    with pytest.raises(SettingsError, match="lake exists as another one: a sink of the types Car"):
        await targets.add("lake", types=["Loan"])
    holder.rollback()
    first = await targets.add("lake", types=["Car", "Car"])
    assert first == await targets.add("lake", types=["Car"])
    assert (first.state, first.first_shard) == ("running", 1024)
    writer.write(event("a", 2))
    assert lake(sql, "a") == [2]


@pytest.mark.postgres_only("DSQL lists no transactions, so 5 minutes are waited for")
async def test_a_late_writer_into_a_dropped_target_is_swept_and_counted(
    writer: Writer,
    targets: Targets,
    sql: psycopg.Connection,
    holder: psycopg.Connection,
) -> None:
    await targets.add("lake")
    await targets.add("orders")
    writer.write_many([event(f"C-{n}") for n in range(3)])
    sql.execute("UPDATE outbox.outbox SET position = position * 2 WHERE subject_id = 'C-1'")
    writer.append_to(holder, event("late"))
    async with ending(targets.drop("lake")) as dropped:
        await until(lambda: state(sql) == "dropped")
        await until(lambda: lake(sql, "C-0") == [1])  # those of orders
        await anyio.sleep(0.5)
        assert dropped == []
        holder.commit()
    assert dropped == [DroppedTarget("lake", messages=3, late=1, dead_letters=0)]
    writer.write(event("after"))
    ranges = sql.execute("SELECT shard / 1024, count(*) FROM outbox.outbox GROUP BY 1 ORDER BY 1")
    assert ranges.fetchall() == [(0, 5), (2, 5)]
    with pytest.raises(SettingsError, match="lake was dropped: a name is used once"):
        await targets.add("lake")
    assert (await targets.add("next")).first_shard == 3 * 1024


async def nothing(connection: psycopg.AsyncConnection[Any], message: Message) -> None:
    """Apply nothing."""


async def test_a_publisher_of_no_or_another_target_is_refused_at_its_start(
    database: Database, targets: Targets
) -> None:
    await targets.add("lake")
    await targets.add("orders", kind="model")
    await targets.add("old")
    await targets.drop("old")
    with pytest.raises(SettingsError) as error:
        await Publisher(database, apply=nothing, target="lake").run()
    wrong = "target lake is a sink, not for a publisher that applies; there is only orders"
    assert str(error.value) == wrong
    for name, told in (
        ("Lake", "there is no target 'Lake', there are default, lake"),
        ("old", "target old was dropped, there are default, lake"),
        (
            "orders",
            "target orders is a model, not for a publisher with a sink; there are default, lake",
        ),
    ):
        with pytest.raises(SettingsError) as error:
            await Publisher(database, MemorySink(), target=name).run()
        assert str(error.value) == told


async def test_a_topic_that_is_paused_for_a_target_waits_there_and_not_for_another(
    database: Database, writer: Writer, targets: Targets
) -> None:
    await targets.add("lake")
    topics = Topics(database, target="lake")
    await topics.pause(CREATED, "ticket 7")
    sink, other = MemorySink(), MemorySink()
    writer.write_many([event("a", n) for n in range(3)])
    with anyio.fail_after(60):
        await Publisher(database, sink, quick_settings(), target="lake").run(until_empty=True)
    publishers = [
        Publisher(database, sink, quick_settings(), target="lake"),
        Publisher(database, other, quick_settings()),
    ]
    async with running(*publishers):
        await other.published(3)
        assert sink.messages == []
        assert await topics.resume(CREATED)
        await sink.published(3)
        await topics.pause(CREATED)
        await anyio.sleep(0.5)
        writer.write(event("a", 3))
        await other.published(4)
        await anyio.sleep(0.3)
        assert len(sink.messages) == 3
        await topics.resume(CREATED)
        await sink.published(4)
    assert in_order(sink.messages)
    assert not await topics.resume(CREATED)
    await topics.close()


async def test_a_message_that_failed_keeps_its_attempts_while_its_topic_is_paused(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write_many([event("bad"), event("good")])
    sink = Picky(Retry("not now"))
    settings = quick_settings(backoff_base=0.1, backoff_cap=0.1)
    async with Publisher(database, sink, settings), Topics(database) as topics:
        await sink.published(1)
        await until(lambda: bool(sql.execute("SELECT FROM outbox.outbox_failures").fetchall()))
        await topics.pause(CREATED)
        await until(lambda: sink.refused_since > 0.5)
        assert sql.execute("SELECT count(*) FROM outbox.outbox_failures").fetchall() == [(1,)]
        sink.mended = True
        await topics.resume(CREATED)
        await sink.published(2)


async def test_shards_grow_for_all_targets(
    database: Database, targets: Targets, sql: psycopg.Connection
) -> None:
    await targets.add("lake")
    apply(database, shards=19)
    await targets.add("orders")
    leases = "SELECT shard / 1024, count(*) FROM outbox.outbox_leases GROUP BY 1 ORDER BY 1"
    assert sql.execute(leases).fetchall() == [(0, 19), (1, 19), (2, 19)]
    with Writer(database) as knowing:
        knowing.write_many([event(f"C-{n}") for n in range(100)])
    for name in ("default", "lake", "orders"):
        publisher = Publisher(database, MemorySink(), quick_settings(), target=name)
        assert (await publisher.run(until_empty=True)).delivered == 100
    assert sql.execute("SELECT count(*) FROM outbox.outbox").fetchall() == [(0,)]


async def test_a_dead_letter_of_a_target_comes_back_to_it_alone(
    database: Database, writer: Writer, targets: Targets, sql: psycopg.Connection
) -> None:
    await targets.add("lake")
    writer.write_many([event("bad"), event("good")])
    ours, theirs = MemorySink(), Picky(Rejected("no"))
    for _ in range(2):
        await Publisher(database, ours, quick_settings()).run(until_empty=True)
        publisher = Publisher(database, theirs, quick_settings(), target="lake")
        await publisher.run(until_empty=True)
        theirs.mended = True
        async with Messages(database) as messages:
            async for _ in messages.retry():
                pass
    await Publisher(database, theirs, quick_settings(), target="lake").run(until_empty=True)
    await Publisher(database, ours, quick_settings()).run(until_empty=True)
    assert sorted(m.key for m in ours.messages) == ["Car/bad", "Car/good"]
    assert sorted(m.key for m in theirs.messages) == ["Car/bad", "Car/good"]
    assert sql.execute("SELECT FROM outbox.dead_letters").fetchall() == []


async def test_a_replay_goes_to_the_named_target_alone(
    database: Database, writer: Writer, targets: Targets
) -> None:
    await targets.add("lake")
    await targets.add("old")
    await targets.drop("old")
    writer.write_many([event("a", n) for n in range(3)])
    sinks = {name: MemorySink() for name in ("default", "lake")}
    for again in (None, "lake", "default"):
        if again is not None:
            async with Messages(database) as messages:
                told = [each async for each in messages.replay(target=again)]
            assert [each.status for each in told] == ["replayed"] * 3
        for name, sink in sinks.items():
            publisher = Publisher(database, sink, quick_settings(), target=name)
            await publisher.run(until_empty=True)
    replays = {n: [m.headers.get("replay") for m in sink.messages] for n, sink in sinks.items()}
    assert replays == {"lake": [None] * 3 + ["1"] * 3, "default": [None] * 3 + ["2"] * 3}
    async with Messages(database) as messages:
        with pytest.raises(SettingsError, match="target old was dropped, there are default, lake"):
            await anext(messages.replay(target="old"))


async def test_the_status_tells_the_targets_apart(
    database: Database, writer: Writer, targets: Targets
) -> None:
    sink = MemorySink()
    sink.down = True
    async with StatusReader(database) as status:
        assert (await status.read()).targets == ()
        await targets.add("lake", types=["Car"])
        await targets.add("orders", kind="model")
        writer.write_many([event(f"C-{n}") for n in range(4)])
        writer.write(Event.new("LoanCreated", [Entity("Loan", "1")]))
        async with Publisher(database, sink, quick_settings(), target="lake"):
            found = await status.read()
    assert [(each.name, each.waiting.count) for each in found.targets] == [
        ("default", 5),
        ("lake", 4),
        ("orders", 5),
    ]
    assert [seen.target for seen in found.publishers] == ["lake"]
    shown = "\n".join(" ".join(row) for table in tables_of(found) for row in table.rows)
    assert "lake sink running 4" in shown
    assert re.search(r"^\d+ lake ", shown, re.MULTILINE)


async def test_two_versions_of_a_read_model_and_a_broker_have_their_own_progress(
    database: Database, writer: Writer, targets: Targets, sql: psycopg.Connection
) -> None:
    """The second version fails on one subject, which delays neither the others nor the broker."""
    now = "timestamptz DEFAULT clock_timestamp()"
    sql.execute(f"CREATE TABLE public.seen (model int, subject text, version int, seen_at {now})")

    def applying(model: int) -> Apply:
        async def apply(connection: psycopg.AsyncConnection[Any], message: Message) -> None:
            if model == 2 and message.key == "Car/bad" and not mended:
                raise ValueError("no")
            row = (model, message.key, int(message.headers["sequence"]))
            await connection.execute("INSERT INTO public.seen VALUES (%s, %s, %s)", row)

        return apply

    def seen() -> dict[int, int]:
        rows = sql.execute("SELECT model, count(*) FROM public.seen GROUP BY 1")
        return dict(rows.fetchall())

    mended: list[bool] = []
    for name in ("first", "second"):
        await targets.add(name, kind="model")
    sink = MemorySink()
    settings = quick_settings(backoff_base=0.1, backoff_cap=0.1)
    publishers = [
        Publisher(database, sink, settings),
        Publisher(database, apply=applying(1), settings=settings, target="first"),
        Publisher(database, apply=applying(2), settings=settings, target="second"),
    ]
    async with running(*publishers):
        for n in range(4):
            writer.write_many([event(subject, n) for subject in ("bad", "good", "other")])
        await sink.published(12)
        await until(lambda: seen() == {1: 12, 2: 8})
        mended.append(True)
        await until(lambda: seen() == {1: 12, 2: 12})
    rows = sql.execute(
        "SELECT model, subject, version FROM public.seen ORDER BY seen_at"
    ).fetchall()
    versions: dict[tuple[int, str], list[int]] = defaultdict(list)
    for model, subject, version in rows:
        versions[model, subject].append(version)
    assert list(versions.values()) == [[1, 2, 3, 4]] * 6
    assert sql.execute("SELECT FROM outbox.outbox").fetchall() == []


async def test_on_dsql_the_longest_transaction_is_waited_for(
    targets: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists no transactions, so nobody could remember them."""
    monkeypatch.setattr(operator_targets, "is_dsql", lambda _: True)
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.6)
    began, run = monotonic(), targets.add("lake")
    async with ending(run):
        await until(lambda: run.waits_for == "0.6 s for the transactions that are open")
    assert monotonic() - began >= 0.6


async def test_a_replay_leaves_out_what_the_target_does_not_take(
    database: Database, writer: Writer, targets: Targets, sql: psycopg.Connection
) -> None:
    """It records what it did only if it did something."""
    await targets.add("lake", types=["Loan"])
    car = writer.write(event("a")).event_id
    loan = writer.write(Event.new("Made", [Entity("Loan", "1")])).event_id
    verbs = "SELECT verb FROM outbox.outbox_operations ORDER BY operated_at"
    async with Messages(database) as messages:
        for ids in ((car, uuid4()), (uuid4(),), (car, loan)):
            assert sql.execute(verbs).fetchall() == [("targets add",)]
            which = Selection(ids=ids)
            told = [(r.event_id, r.status) async for r in messages.replay(which, target="lake")]
            assert (car, "untaken") in told or car not in ids
    assert told[1] == (loan, "waiting"), "as it was written"
    await Publisher(database, MemorySink(), quick_settings(), target="lake").run(until_empty=True)
    async with Messages(database) as messages:
        told = [(r.event_id, r.status) async for r in messages.replay(which, target="lake")]
    assert sorted(status for _, status in told) == ["replayed", "untaken"]
    assert sql.execute(verbs).fetchall() == [("targets add",), ("messages replay",)]


@pytest.mark.parametrize("types", ["Car", "{", '["Car"]', "{}", ""])
async def test_types_that_are_no_array_are_refused_by_the_table(
    writer: Writer, targets: Targets, sql: psycopg.Connection, types: str
) -> None:
    """Each write reads them, so all writes would fail."""
    await targets.add("lake", types=["Car"])
    with pytest.raises((psycopg.errors.CheckViolation, psycopg.DataError)):
        sql.execute("UPDATE outbox.outbox_targets SET types = %s WHERE name = 'lake'", (types,))
    writer.write(event("a"))
