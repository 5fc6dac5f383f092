"""Erasures on the real tables: no copy is left, and nothing else is changed."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import anyio
import psycopg
import pytest
from anyio import to_thread
from tests.support.database_roles import as_role, made_roles
from tests.support.operations.forgotten_events import texts
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.given_up_messages import gathered, relay_all
from tests.support.verified import findings_in

from dsql_outbox.operations import Erasures, Messages, Selection, Targets
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.operations.life import erase as erase_module
from dsql_outbox.operations.life import erased_rows
from dsql_outbox.operations.life.erase import EraseProgress
from dsql_outbox.operations.targets import AddRun
from dsql_outbox.outbox import Database, DuplicateEvent, Entity, Event, JobRefused, SettingsError
from dsql_outbox.outbox.database.address import Isolation
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.publisher import Rejected
from dsql_outbox.schema.roles import grant
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer
from dsql_outbox.writer.tuned_settings import TunedSettings

pytestmark = pytest.mark.anyio

MARK = "Zaphod Beeblebrox"
TABLES = """SELECT relname FROM pg_class
    WHERE relnamespace = 'outbox'::regnamespace AND relkind = 'r' ORDER BY relname"""
HEADERS = {"actor": MARK, "tenant": "7"}


@pytest.fixture
def database(outbox_url: str) -> Database:
    return Database(outbox_url)


@pytest.fixture(autouse=True)
def _quick_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)


@pytest.fixture
def sql(outbox_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(outbox_url, autocommit=True) as connection:
        yield connection


def new(*keys: str, headers: dict[str, str] | None = None, **attributes: object) -> Event:
    pairs = (key.split("/") for key in keys)
    entities = [Entity(kind, name, {"id": name, **attributes}) for kind, name in pairs]
    return Event.new("PersonMoved", entities, name="Person Moved", headers=headers)


def shared() -> Event:
    """An event of a car that a person has touched, too."""
    entities = [
        Entity("Car", "7", {"owner": "somebody", "km": 1.50}),
        Entity("Person", "ann", {"name": MARK, "city": "Bonn"}),
    ]
    return Event.new("CarSold", entities, name="Car Sold", headers=HEADERS)


def noted(event_id: UUID) -> str:
    """An event with members that the library does not know."""
    return json.dumps(
        {
            "eventHeader": {"uuid": str(event_id), "eventName": "Noted", "by": MARK},
            "entities": [
                {"entityHeader": {"entityType": "Person", "entityId": "ann", "by": MARK}},
                {"entityHeader": {"entityType": "Person", "entityId": "bob"}, "id": "bob"},
            ],
            "note": {"actor": MARK},
        }
    )


def with_bob() -> Event:
    """An event whose first entity is the person, beside another one."""
    ann = Entity("Person", "ann", {"id": "ann", "note": {"name": MARK, "x": [MARK]}})
    return Event.new("PersonMet", [ann, Entity("Person", "bob", {"id": "bob"})], name="Person Met")


class Given:
    """What `fill` has stored."""

    def __init__(self) -> None:
        self.sent: list[Event] = []
        self.waiting: list[Event] = []
        self.dead = new("Person/ann", name=MARK, city="Bonn", headers=HEADERS)
        self.failing = uuid4()
        self.others: list[Event] = []


async def fill(database: Database) -> Given:
    """Events of one person that are sent, dead, failing, replayed and waiting, and others."""
    given = Given()
    given.others += [new("Person/bob", name=f"not {n}", city="Köln") for n in range(5)]
    with Writer(database, TunedSettings(form="single")) as writer:
        writer.write_many(given.others[:2])
        given.sent += [new("Person/ann", name=MARK, city="Bonn", headers=HEADERS), shared()]
        writer.write_many(given.sent)
    await relay_all(database, MemorySink())
    with Writer(database) as writer:
        writer.write(given.dead)
    sink = MemorySink()
    sink.fail(given.dead.id, Rejected(f"the name {MARK} is too long"))
    await relay_all(database, sink)
    replayed = new("Person/ann", name=MARK, street="Main St")
    with Writer(database, TunedSettings(form="plain")) as writer:
        writer.write(replayed)
    await relay_all(database, MemorySink())
    async with Messages(database) as tool:
        await gathered(tool.replay(Selection(ids=(replayed.id,))))
    async with Targets(database) as targets:
        await targets.add("lake", from_start=True)
    given.waiting += [shared(), with_bob()]
    with Writer(database) as writer:
        writer.write_many([noted(given.failing), *given.waiting, *given.others[2:]])
    return given


async def completed(run: AddRun) -> None:
    await run


async def erase(database: Database, entity: str = "Person/ann", **given: Any) -> Any:
    async with Erasures(database) as tool:
        run = tool.erase(entity, reason="ticket 77", **given)
        async for _ in run:
            pass
        return run.progress


def everything(sql: psycopg.Connection[Any]) -> dict[str, str]:
    """All rows of all tables as text, by the name of each."""
    found: dict[str, str] = {}
    for (table,) in sql.execute(TABLES).fetchall():
        rows = sql.execute(f"SELECT t::text FROM outbox.{table} AS t".encode()).fetchall()
        found |= {f"{table} {n}": row[0] for n, row in enumerate(rows)}
    return found


def of_others(sql: psycopg.Connection[Any], given: Given) -> list[Any]:
    """All rows of the events of others."""
    ids = [each.id for each in given.others]
    found: list[Any] = []
    for table, key in (
        ("business_events", "id"),
        ("event_headers", "event_id"),
        ("outbox", "event_id"),
    ):
        query = f"SELECT t::text FROM outbox.{table} AS t WHERE {key} = ANY(%s) ORDER BY 1"
        found += sql.execute(query.encode(), (ids,)).fetchall()
    return found


async def test_a_record_of_a_replay_that_repeats_a_position_is_no_second_message(
    database: Database, sql: psycopg.Connection[Any]
) -> None:
    """An operator may add such rows, and the person must be erased all the same."""
    event = new("Person/ann", name=MARK)
    with Writer(database) as writer:
        writer.write(event)
    for number in (1, 2):
        sql.execute(
            "INSERT INTO outbox.outbox_replays SELECT id, %s, position, '', 'eve', now()"
            " FROM outbox.business_events",
            (number,),
        )
    done = await erase(database)
    assert (done.events, done.messages) == (1, 1)
    assert [name for name, text in everything(sql).items() if MARK in text] == []


@pytest.mark.parametrize(("events", "rows"), [(400, erased_rows.MAX_ROWS), (30, 20)])
async def test_events_that_have_more_rows_than_a_transaction_may_change_go_in_several(
    database: Database,
    sql: psycopg.Connection[Any],
    events: int,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has two: its own, and its header."""
    monkeypatch.setattr(erased_rows, "MAX_ROWS", rows)
    with Writer(database) as writer:
        writer.write_many([new("Person/ann", name=MARK, street=str(n)) for n in range(events)])
    await relay_all(database, MemorySink())
    progress = await erase(database)
    assert progress.events == events
    assert not [name for name, text in everything(sql).items() if MARK in text]
    assert await findings_in(database) == []


@pytest.mark.parametrize("size", [1, 300])
async def test_no_copy_is_left_and_nothing_else_is_changed(
    database: Database,
    sql: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    size: int,
) -> None:
    monkeypatch.setattr(erase_module, "_EVENTS", size)
    given = await fill(database)
    sql.execute(
        "INSERT INTO outbox.outbox_failures SELECT shard, position, event_id, 1, %s, 'infinity'"
        " FROM outbox.outbox WHERE event_id = %s", (f"no {MARK}", given.failing),
    )  # fmt: skip
    before = of_others(sql, given)
    keys = sql.execute(
        "SELECT shard, position, event_id FROM outbox.outbox ORDER BY 1, 2"
    ).fetchall()
    places = [name for name, text in everything(sql).items() if MARK in text]
    wanted = {"business_events", "dead_letters", "entities", "event_headers", "outbox"}
    assert {name.split()[0] for name in places} >= wanted | {"outbox_failures"}
    caplog.clear()

    done = await erase(database)

    assert done.events >= 6
    assert done.dead_letters == 1
    assert [name for name, text in everything(sql).items() if MARK in text] == []
    assert MARK not in caplog.text
    assert of_others(sql, given) == before
    now = sql.execute(
        "SELECT shard, position, event_id FROM outbox.outbox ORDER BY 1, 2"
    ).fetchall()
    assert set(now) > set(keys)
    assert len(now) == len(keys) + 2, "the notice goes to both targets"
    assert await findings_in(database) == []
    # An event of two entities keeps all of the other one.
    stored = texts(sql)
    cars = [text for text in stored.values() if '"eventName":"Car Sold"' in text]
    assert len(cars) == 2
    assert all('"owner":"somebody","km":1.5}' in text for text in cars)

    # A second run finds nothing, and writes nothing.
    rows = everything(sql)
    assert (await erase(database)).version is None
    again = everything(sql)
    assert {n: t for n, t in again.items() if not n.startswith("outbox_jobs")} == {
        n: t for n, t in rows.items() if not n.startswith("outbox_jobs")
    }

    # A repeat of an erased event is a duplicate, whatever its content; of another one it is not.
    for settings in (TunedSettings(form="single"), TunedSettings(form="plain")):
        with Writer(database, settings) as writer:
            for event in (given.dead, given.waiting[0], given.sent[0]):
                assert writer.write(event, on_duplicate="return").status == "duplicate"
                changed = parse_event(event).data.replace(MARK, "else")
                with pytest.raises(DuplicateEvent) as raised:
                    writer.write(changed)
                assert raised.value.same_content
            with pytest.raises(DuplicateEvent) as raised:
                writer.write(parse_event(given.others[0]).data.replace("not 0", "else"))
            assert not raised.value.same_content

    # What waits is still sent, in its order, and the notice last.
    sink = MemorySink()
    sql.execute("DELETE FROM outbox.outbox_failures")
    await relay_all(database, sink)
    versions = [
        json.loads(m.payload)["entities"][0]["entityHeader"] | {"p": m.payload}
        for m in sink.messages
    ]
    assert all(MARK.encode() not in each["p"] for each in versions)
    last = [m for m in sink.messages if m.key == "Person/ann"][-1]
    assert json.loads(last.payload)["eventHeader"]["eventName"] == "Person Erased"
    who = sql.execute(
        "SELECT reason, finished_at IS NOT NULL FROM outbox.outbox_erasures"
    ).fetchall()
    assert who == [("ticket 77", True)]


async def test_a_dry_run_counts_and_changes_nothing(
    database: Database, sql: psycopg.Connection[Any]
) -> None:
    await fill(database)
    rows = everything(sql)
    done = await erase(database, dry_run=True)
    assert (done.events > 5, done.version, everything(sql)) == (True, None, rows)


async def test_beside_writers_of_the_entity_what_is_older_than_the_notice_goes(
    database: Database, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase_module, "_EVENTS", 7)
    done = anyio.Event()

    def write(n: int) -> None:
        with Writer(database) as writer:
            writer.write_many([new("Person/ann", "Person/bob", name=MARK, n=n) for _ in range(3)])
            writer.write(new("Person/ann", name=MARK))

    async def writing() -> None:
        n = 0
        while not done.is_set():
            await to_thread.run_sync(write, n)
            n += 1

    async def relaying() -> None:
        while not done.is_set():
            await relay_all(database, MemorySink())

    write(0)
    async with anyio.create_task_group() as group:
        group.start_soon(writing)
        group.start_soon(relaying)
        for _ in range(2):
            version = (await erase(database)).version
            assert version is not None
            assert await findings_in(database) == []
            older = sql.execute(
                "SELECT b.event_data::text FROM outbox.event_headers h"
                " JOIN outbox.business_events b ON b.id = h.event_id"
                " WHERE h.entity_id = 'ann' AND h.entity_version < %s",
                (version,),
            ).fetchall()
            assert len(older) == version - 1
            assert not any(MARK in text.split('"bob"')[0] for (text,) in older)
        done.set()
    assert await findings_in(database) == []


async def test_a_page_of_a_fill_that_was_read_before_an_erasure_is_read_again(
    outbox_url: str, database: Database, sql: psycopg.Connection[Any]
) -> None:
    """The page was made of the old headers, and is stored while or after the events change."""
    given = [new("Person/ann", name=MARK, headers=HEADERS) for _ in range(3)]
    with Writer(database) as writer:
        writer.write_many([*given, new("Person/bob")])
    await relay_all(database, MemorySink())
    with PostgresProxy(outbox_url) as proxy:
        held = proxy.hold(matching='INSERT INTO "outbox".outbox (')
        async with (
            Targets(Database(proxy.url)) as targets,
            anyio.create_task_group() as group,
        ):
            group.start_soon(completed, targets.add("lake", from_start=True))
            await to_thread.run_sync(held.arrived)
            await erase(database)
            await to_thread.run_sync(held.release)
    rows = sql.execute("SELECT count(*) FROM outbox.outbox WHERE shard >= 1024").fetchall()
    assert rows == [(5,)], "the notice is one of them"
    assert [text for text in everything(sql).values() if MARK in text] == []
    assert await findings_in(database) == []


async def test_what_verify_accepts_was_erased(
    database: Database, sql: psycopg.Connection[Any]
) -> None:
    await fill(database)
    await erase(database)
    sql.execute("UPDATE outbox.outbox_erasures SET finished_at = NULL")
    assert [each.fault for each in await findings_in(database)] == ["unfinished-erasure"]
    sql.execute("UPDATE outbox.outbox_erasures SET erased_at = now()")
    found = {each.fault for each in await findings_in(database)}
    assert found == {"unfinished-erasure", "unlisted-erasure"}


async def interrupted(database: Database, left: int, *, stops: bool = False) -> None:
    """Begin an erasure and leave or stop it when so many of its events are changed."""
    async with Erasures(database) as tool:
        run = tool.erase("Person/ann", reason="")
        async for done in run:
            if done.events >= left:
                if not stops:
                    break
                run.stop()
        await run.aclose()


@pytest.mark.parametrize(("has_written", "stops"), [(False, False), (True, False), (False, True)])
async def test_an_interrupted_erasure_is_finished_by_the_next_one(
    database: Database,
    sql: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    *,
    has_written: bool,
    stops: bool,
) -> None:
    """With what was written meanwhile, for which the entity is erased a second time."""
    monkeypatch.setattr(erase_module, "_EVENTS", 2)
    await fill(database)
    await interrupted(database, 2, stops=stops)
    assert {each.fault for each in await findings_in(database)} == {"unfinished-erasure"}
    if has_written:
        with Writer(database) as writer:
            writer.write(new("Person/ann", name=MARK))
    await erase(database)
    assert [name for name, text in everything(sql).items() if MARK in text] == []
    assert await findings_in(database) == []
    notices = sql.execute("SELECT count(*) FROM outbox.outbox_erasures").fetchall()
    assert notices == [(1 + has_written,)]


async def written(database: Database, events: int) -> None:
    """Store events of one person, whose messages wait."""
    with Writer(database) as writer:
        for n in range(0, events, 100):
            writer.write_many(
                [new("Person/ann", name=MARK, n=each) for each in range(n, min(n + 100, events))]
            )


@pytest.mark.postgres_only("a lock is a change on DSQL")
@pytest.mark.parametrize("isolation", [None, "repeatable read"])
async def test_a_replay_that_commits_since_the_erasure_began_is_erased(
    database: Database,
    database_proxy: PostgresProxy,
    sql: psycopg.Connection[Any],
    isolation: Isolation | None,
) -> None:
    """At any isolation level of the database: the replay has only locked the event."""
    await written(database, 1)
    ((one,),) = sql.execute("SELECT id FROM outbox.business_events").fetchall()
    sql.execute("DELETE FROM outbox.outbox")

    async def replay() -> None:
        async with Messages(database) as tool:
            assert len(await gathered(tool.replay(Selection(ids=[one])))) == 1

    database_proxy.before(partial(anyio.run, replay), matching='UPDATE "outbox".business_events')
    await erase(Database(database_proxy.url, isolation=isolation))
    assert [name for name, text in everything(sql).items() if MARK in text] == []
    assert await findings_in(database) == []


async def test_an_erasure_that_lost_its_lease_before_a_transaction_changes_nothing(
    database: Database, database_proxy: PostgresProxy, sql: psycopg.Connection[Any]
) -> None:
    with Writer(database) as writer:
        writer.write(new("Person/ann", name=MARK))

    def begin_another() -> None:
        sql.execute("UPDATE outbox.outbox_jobs SET owner = 'another', epoch = epoch + 1")

    database_proxy.before(begin_another, matching='UPDATE "outbox".business_events')
    with pytest.raises(JobRefused, match="another job has begun"):
        await erase(Database(database_proxy.url))
    events = [text for name, text in everything(sql).items() if name.startswith("business_events")]
    assert sum(MARK in text for text in events) == 1


async def test_an_erasure_overwrites_no_event_that_changed_since_it_was_read(
    database: Database, database_proxy: PostgresProxy, sql: psycopg.Connection[Any]
) -> None:
    with Writer(database) as writer:
        writer.write(new("Person/ann", name=MARK))

    def change() -> None:
        sql.execute(
            "UPDATE outbox.business_events SET fingerprint = decode('00', 'hex'),"
            " event_data = replace(event_data::text, 'Person Moved', 'Person Came')::json"
        )

    database_proxy.before(change, matching='UPDATE "outbox".business_events')
    await erase(Database(database_proxy.url))
    texts = [text for name, text in everything(sql).items() if name.startswith("business_events")]
    assert sum("Person Came" in text for text in texts) == 1
    assert not any(MARK in text for text in texts)


async def test_a_keeper_may_erase_and_a_reader_may_verify(
    database: Database, outbox_url: str
) -> None:
    await fill(database)
    with made_roles(outbox_url) as roles:
        grant(database, roles)
        keeper = Database(as_role(outbox_url, str(roles.keeper)))
        assert (await erase(keeper)).events > 5
        reader = Database(as_role(outbox_url, str(roles.reader)))
        assert await findings_in(reader) == []


async def test_a_job_at_work_and_an_unknown_entity_are_refused(database: Database) -> None:
    with pytest.raises(SettingsError, match="no event has touched entity Person/eve"):
        await erase(database, "Person/eve")
    await fill(database)
    async with Erasures(database) as first:
        run = first.erase("Person/ann", reason="")
        await anext(run)
        with pytest.raises(JobRefused):
            await erase(database)
        await run.aclose()
    assert isinstance(await erase(database), EraseProgress)
