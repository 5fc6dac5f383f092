"""Which stored events a replay takes, in which order, and how it goes on, on real PostgreSQL."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import anyio
import psycopg
import pytest
from tests.support.publisher.given_up_messages import event, gathered

from dsql_outbox.operations import Messages, Selection, event_pages
from dsql_outbox.operations.requeue import MessageResult
from dsql_outbox.outbox import Database, Entity, Event, SettingsError
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio


def written(writer: Writer, *events: Event) -> list[UUID]:
    return [writer.write(each).event_id for each in events]


async def test_an_entitys_events_are_replayed_in_version_order_after_a_version(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_pages, "_ENTITY_PAGE", 2)
    events = [event("a", 1), event("b", 2, "a"), event("a", 3), event("b", 4), event("a", 5)]
    ids = written(writer, *events)
    sql.execute("DELETE FROM outbox.outbox")
    async with Messages(database) as tool:
        done = await gathered(tool.replay(entity="Car/a", after="1"))
    assert [each.event_id for each in done] == [ids[1], ids[2], ids[4]]
    assert [each.subject for each in done] == ["Car/b", "Car/a", "Car/a"]


async def test_an_entity_that_nobody_knows_is_said_to_be_unknown(database: Database) -> None:
    async with Messages(database) as tool:
        with pytest.raises(SettingsError, match="no event has touched entity Car/x y"):
            await gathered(tool.replay(entity="Car/x y"))


async def test_an_entitys_events_are_filtered_too(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    ids = written(writer, event("a"), of_type("CarSold", "a"), event("a"), of_type("CarSold", "b"))
    sql.execute("DELETE FROM outbox.outbox")
    for which in (Selection(type="CarSold"), Selection(topic="events.CarSold")):
        async with Messages(database) as tool:
            done = await gathered(tool.replay(which, entity="Car/a", dry_run=True))
        assert [each.event_id for each in done] == [ids[1]]


def of_type(event_type: str, *subjects: str) -> Event:
    return Event.new(event_type, [Entity("Car", subject) for subject in subjects])


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of three touches, and transactions of two events."""
    monkeypatch.setattr(event_pages, "_PAGE", 3)
    monkeypatch.setattr("dsql_outbox.operations.requeue.MAX_ROWS", 2)


async def stored(database: Database, which: Selection, **settings: object) -> list[MessageResult]:
    async with Messages(database) as tool:
        return await gathered(tool.replay(which, **settings))  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_pages")
async def test_all_events_are_replayed_once_by_subject_and_in_its_order(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    subjects = "cabbacaab"
    ids = written(writer, *(event(subject, n, "z", "0") for n, subject in enumerate(subjects)))
    sql.execute("DELETE FROM outbox.outbox")
    done = await stored(database, Selection())
    wanted = [ids[n] for subject in "abc" for n, own in enumerate(subjects) if own == subject]
    assert [each.event_id for each in done] == wanted
    rows = sql.execute(
        "SELECT event_id FROM outbox.outbox ORDER BY subject_id, position"
    ).fetchall()
    assert [event_id for (event_id,) in rows] == wanted


@pytest.mark.usefixtures("small_pages")
async def test_events_are_selected_by_type_topic_and_time_together(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    kinds = ("CarSold", "CarMoved")
    ids = written(writer, *(of_type(kinds[n % 2], f"car-{n}") for n in range(8)))
    sql.execute("DELETE FROM outbox.outbox")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for n, event_id in enumerate(ids):
        saved = start + timedelta(seconds=n)
        sql.execute(
            "UPDATE outbox.business_events SET saved_date = %s WHERE id = %s", [saved, event_id]
        )

    async def found(**which: object) -> set[UUID]:
        done = await stored(database, Selection(**which), dry_run=True)  # type: ignore[arg-type]
        return {each.event_id for each in done}

    since, until = start + timedelta(seconds=2), start + timedelta(seconds=6)
    assert await found(type="CarSold") == set(ids[0::2])
    assert await found(topic="events.CarMoved") == set(ids[1::2])
    assert await found(since=since, until=until) == set(ids[2:6])
    assert await found(type="CarSold", since=since) == {ids[2], ids[4], ids[6]}
    assert await found(type="CarSold", topic="events.CarMoved") == set()


@pytest.mark.usefixtures("small_pages")
async def test_events_that_are_saved_during_the_replay_are_left_out(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    ids = written(writer, *(event(f"car-{n}") for n in range(8)))
    sql.execute("DELETE FROM outbox.outbox")
    done: list[UUID] = []
    async with Messages(database) as tool:
        async for each in tool.replay():
            done.append(each.event_id)
            writer.write(event(f"car-9{len(done)}"))
    assert done == ids


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("stop_after", [1, 2, 4, 7])
async def test_a_replay_that_was_stopped_goes_on_where_it_was(
    database: Database, writer: Writer, sql: psycopg.Connection, stop_after: int
) -> None:
    written(
        writer, *(of_type("CarSold" if n % 3 else "CarMoved", "aabbb"[n % 5]) for n in range(9))
    )
    sql.execute("DELETE FROM outbox.outbox")
    sold = Selection(type="CarSold")
    wanted = [each.event_id for each in await stored(database, sold, dry_run=True)]
    done: list[UUID] = []
    place, runs = None, 0
    while runs == 0 or len(done) < len(wanted):
        runs += 1
        async with Messages(database) as tool:
            told = 0
            run = tool.replay(sold, after=place)
            async for each in run:
                done.append(each.event_id)
                told += 1
                if told == stop_after:
                    run.stop()
            place = run.progress.place
    assert done == wanted
    assert runs > 1 or stop_after > len(wanted) - 2


async def test_an_entitys_replay_goes_on_after_the_version_it_reached(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    ids = written(writer, *(event("a", n) for n in range(5)))
    sql.execute("DELETE FROM outbox.outbox")
    async with Messages(database) as tool:
        run = tool.replay(entity="Car/a", rate=2)
        async for _ in run:
            run.stop()
    assert run.progress.place == "2"
    async with Messages(database) as tool:
        done = await gathered(tool.replay(entity="Car/a", after="2"))
    assert [each.event_id for each in done] == ids[2:]


async def test_a_stop_ends_the_wait_for_the_rate(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    ids = written(writer, event("a"), event("a"))
    sql.execute("DELETE FROM outbox.outbox")
    async with Messages(database) as tool:
        run = tool.replay(Selection(ids=tuple(ids)), rate=0.001)
        with anyio.fail_after(60):
            async for each in run:
                assert each.event_id == ids[0]
                run.stop()


@pytest.mark.usefixtures("small_pages")
async def test_a_stop_ends_the_reading_of_pages_without_matches(
    database: Database, writer: Writer
) -> None:
    kinds = ["CarSold", *["CarMoved"] * 8]
    written(writer, *(of_type(kind, "a") for kind in kinds))
    async with Messages(database) as tool:
        whole, stopped = (tool.replay(Selection(type="CarSold"), dry_run=True) for _ in range(2))
        async for _ in stopped:
            stopped.stop()
        assert len(await gathered(whole)) == 1
    assert (whole.progress.read, whole.again) == (9, None)
    assert (stopped.progress.read, stopped.again) == (0, {"after": "Car/a@1"})


async def test_the_progress_tells_what_was_read_and_of_how_much(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    written(writer, *(event("a", n, "b") for n in range(5)))
    async with Messages(database) as tool:
        run = tool.replay()
        assert (run.progress.read, run.progress.total, run.progress.place) == (0, None, None)
        sql.execute("ANALYZE outbox.event_headers")
        await gathered(run)
        assert run.progress.read == run.progress.total == 10
        assert run.progress.place == "Car/b@5"


async def test_the_cost_of_a_period_is_told_once_the_database_knows_it(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    written(writer, *(event("a", n) for n in range(7)))
    async with Messages(database) as tool:
        assert await tool.events_stored() is None
        sql.execute("ANALYZE outbox.business_events")
        assert await tool.events_stored() == 7
