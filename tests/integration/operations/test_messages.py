"""Messages that were not delivered, on real PostgreSQL: found, retried, dropped."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.support.publisher.given_up_messages import event, gathered, relay_all
from tests.support.publisher.running_relays import count

from dsql_outbox.operations import Messages, Selection
from dsql_outbox.operations.undelivered import UndeliveredMessage
from dsql_outbox.outbox import Database, Entity, Event, SchemaError, SettingsError
from dsql_outbox.publisher import Rejected
from dsql_outbox.publisher.relay.sql_store import SqlStore
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

DEAD = Selection(state="dead")


def written(writer: Writer, *events: Event) -> list[UUID]:
    return [writer.write(each).event_id for each in events]


# --- dead letters ----------------------------------------------------------------------


async def test_a_dead_letter_is_replayed_as_it_was_and_leaves_the_dead_letters(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    carrier = {"traceparent": f"00-{1:032x}-{2:016x}-01"}
    (event_id,) = written(writer, event())
    sql.execute(
        "UPDATE outbox.outbox SET headers = (headers::jsonb || %s::jsonb)::json",
        [f'{{"traceparent": "{carrier["traceparent"]}"}}'],
    )
    sink = MemorySink()
    await relay_all(database, sink, refused=[event_id])
    async with Messages(database) as letters:
        done = await gathered(letters.retry(DEAD, reason="mended"))
    assert [(each.event_id, each.status, each.replay) for each in done] == [
        (event_id, "retried", 1)
    ]
    assert count(sql, "dead_letters") == 0
    await relay_all(database, sink)
    (message,) = sink.messages
    assert (message.dedupe_id, message.attempt) == (f"{event_id}/r1", 1)
    assert message.headers["traceparent"].startswith(carrier["traceparent"][:35])


async def test_a_dead_letter_names_its_event_and_shows_and_sends_that_events_bytes(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    """The outbox row is gone; no second copy of the bytes is left."""
    given = Event.new("CarSold", [Entity("Car", "a", {"text": "é" * 9, "n": 1.50})])
    ids = written(writer, given, event("b"))
    sink = MemorySink()
    await relay_all(database, sink, refused=ids)
    sql.execute("DELETE FROM outbox.business_events WHERE id = %s", [ids[1]])
    async with Messages(database) as letters:
        found = {each.event_id: each async for each in letters.find(DEAD, payload=True)}
        assert found[ids[0]].payload == given.to_json().decode()
        assert found[ids[0]].payload_bytes == len(given.to_json())
        assert found[ids[1]].payload is None
        told = {each.event_id: each.status async for each in letters.retry(DEAD)}
        replayed = await gathered(letters.replay(Selection(ids=tuple(ids[1:]))))
    assert [told[each] for each in ids] == ["retried", "missing"]
    assert [each.status for each in replayed] == ["missing"]
    assert count(sql, "dead_letters") == 1
    await relay_all(database, sink)
    assert [message.payload for message in sink.messages] == [given.to_json()]


async def test_a_failure_is_that_of_one_row_of_its_event(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    """An event may have two rows of one position, in two shards."""
    (event_id,) = written(writer, event())
    await relay_all(database, MemorySink(), refused=[event_id], on_dead_letter="block")
    sql.execute(
        "INSERT INTO outbox.outbox SELECT (shard + 1) % 16, position, event_id, previous_position,"
        " subject_type, subject_id, subject_version, topic, headers, payload, payload_size,"
        " created_at FROM outbox.outbox"
    )
    async with Messages(database) as messages:
        both = await gathered(messages.find())
        assert [each.state for each in both] == ["failing", "waiting"]
        (failing,) = await gathered(messages.drop(Selection(state="failing")))
        assert failing.shard == both[0].shard
        left = await gathered(messages.find())
    assert [(each.state, each.shard) for each in left] == [
        ("dead", both[0].shard),
        ("waiting", both[1].shard),
    ]


async def test_one_that_dies_again_says_which_replay_it_was_and_the_next_counts_on(
    database: Database, writer: Writer
) -> None:
    (event_id,) = written(writer, event())
    sink = MemorySink()
    numbers: list[int] = []
    for _ in range(3):
        await relay_all(database, sink, refused=[event_id])
        async with Messages(database) as letters:
            (letter,) = await gathered(letters.find(DEAD))
            numbers.append(letter.replay)
            await gathered(letters.retry(DEAD))
    await relay_all(database, sink)
    assert numbers == [0, 1, 2]
    assert [message.dedupe_id for message in sink.messages] == [f"{event_id}/r3"]
    assert sink.messages[0].headers["replay"] == "3"


async def test_a_letter_whose_headers_cannot_be_read_is_shown_and_its_event_replayed(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    bad, good = written(writer, event("a"), event("b"))
    sql.execute(
        "UPDATE outbox.outbox SET headers = '[\"v\"]', created_at = 'infinity' WHERE event_id = %s",
        [bad],
    )
    sink = MemorySink()
    await relay_all(database, sink, refused=[good])
    async with Messages(database) as letters:
        found = {letter.event_id: letter for letter in await gathered(letters.find(DEAD))}
        assert found[bad].headers == {}
        assert found[bad].error == "is not a valid message: headers are not a JSON object of texts"
        assert found[bad].created_at.year == 9999
        done = await gathered(letters.retry(DEAD))
    assert {each.event_id: each.status for each in done} == {bad: "unreadable", good: "retried"}
    async with Messages(database) as tool:
        await gathered(tool.replay(Selection(ids=(bad,))))
    await relay_all(database, sink)
    assert sorted(sink.ids) == sorted([bad, good])


async def test_dead_letters_of_a_subject_go_in_its_order(
    database: Database, writer: Writer
) -> None:
    ids = written(writer, *(event("a", n) for n in range(9)))
    sink = MemorySink()
    await relay_all(database, sink, refused=ids)
    async with Messages(database) as letters:
        done = await gathered(letters.retry(DEAD))
    assert [each.event_id for each in done] == ids
    await relay_all(database, sink)
    assert sink.ids == ids


async def test_a_letter_whose_event_waits_again_stays(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    (event_id,) = written(writer, event())
    await relay_all(database, MemorySink(), refused=[event_id])
    async with Messages(database) as tool:
        await gathered(tool.replay(Selection(ids=(event_id,))))
    async with Messages(database) as letters:
        (done,) = await gathered(letters.retry(DEAD))
    assert done.status == "waiting"
    assert count(sql, "dead_letters") == 1


async def test_letters_are_found_by_all_that_is_asked_over_many_pages(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsql_outbox.operations.undelivered.PAGE_ROWS", 3)
    events = [event(f"c {n}", n) for n in range(11)]
    ids = written(writer, *events)
    sink = MemorySink()
    for each in ids[:5]:
        sink.fail(each, Rejected("Too LARGE: 100%"))
    await relay_all(database, sink, refused=ids[5:])
    sql.execute("UPDATE outbox.dead_letters SET died_at = %s", [datetime(2026, 1, 2, tzinfo=UTC)])
    sql.execute(
        "UPDATE outbox.dead_letters SET died_at = %s, topic = 'other' WHERE event_id = %s",
        [datetime(2026, 1, 3, tzinfo=UTC), ids[0]],
    )

    async def found(**fields: object) -> set[UUID]:
        async with Messages(database) as letters:
            which = Selection(state="dead", **fields)  # type: ignore[arg-type]
            return {each.event_id async for each in letters.find(which)}

    third = datetime(2026, 1, 3, tzinfo=UTC)
    assert await found() == set(ids)
    assert await found(ids=(ids[3], ids[3], uuid4(), ids[4])) == {ids[3], ids[4]}
    assert await found(subject="Car/c%206") == await found(subject="Car/c 6") == {ids[6]}
    assert await found(topic="other") == await found(since=third) == {ids[0]}
    assert await found(until=third) == set(ids[1:])
    assert await found(error="too large: 100%") == set(ids[:5])
    assert await found(error="too large", since=third) == {ids[0]}


async def test_a_payload_comes_only_when_asked_for(database: Database, writer: Writer) -> None:
    one = event()
    written(writer, one)
    await relay_all(database, MemorySink(), refused=[one.id])
    async with Messages(database) as letters:
        (bare,) = await gathered(letters.find(DEAD))
        (full,) = await gathered(letters.find(DEAD, payload=True))
    assert bare.payload is None
    assert bare.payload_bytes == len(one.to_json())
    assert full.payload == one.to_json().decode()


async def test_dropping_by_time_is_what_keeps_dead_letters_from_growing(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsql_outbox.operations.drop.MAX_ROWS", 2)
    ids = written(writer, *(event(f"c{n}") for n in range(7)))
    await relay_all(database, MemorySink(), refused=ids)
    limit = datetime(2026, 1, 1, tzinfo=UTC)
    old = [str(each) for each in ids[:5]]
    sql.execute(
        "UPDATE outbox.dead_letters SET died_at = %s WHERE event_id = ANY(%s::uuid[])",
        [limit - timedelta(days=1), old],
    )
    async with Messages(database) as letters:
        dropped = await gathered(letters.drop(Selection(state="dead", until=limit)))
        assert {each.event_id for each in dropped} == set(ids[:5])
        assert {each.event_id async for each in letters.find(DEAD)} == set(ids[5:])
    assert count(sql, "business_events") == 7


# --- failures --------------------------------------------------------------------------


async def test_a_blocked_subject_goes_on_after_a_retry(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    ids = written(writer, event("a", 1), event("a", 2), event("b", 3))
    sink = MemorySink()
    await relay_all(database, sink, refused=[ids[0]], on_dead_letter="block")
    assert sink.ids == [ids[2]]
    async with Messages(database) as failures:
        (blocked,) = await gathered(failures.find(Selection(blocked=True)))
        assert (blocked.subject, blocked.attempts, blocked.retry_at) == ("Car/a", 1, None)
        await gathered(failures.retry(Selection(subject="Car/a")))
        assert await gathered(failures.find(Selection(blocked=True))) == []
    await relay_all(database, sink, on_dead_letter="block")
    assert sink.ids == [ids[2], *ids[:2]]
    assert count(sql, "outbox_failures") == 0


async def test_a_blocked_subject_goes_on_without_what_is_given_up(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    ids = written(writer, event("a", 1), event("a", 2))
    sink = MemorySink()
    await relay_all(database, sink, refused=[ids[0]], on_dead_letter="block")
    async with Messages(database) as failures:
        await gathered(failures.drop(Selection(state="failing", ids=(ids[0],))))
    await relay_all(database, sink, on_dead_letter="block")
    assert sink.ids == [ids[1]]
    async with Messages(database) as letters:
        (letter,) = await gathered(letters.find(DEAD))
    assert (letter.event_id, letter.error, letter.attempts) == (ids[0], "Not for me", 1)
    assert count(sql, "outbox_failures") == 0


async def test_a_failure_without_its_message_is_swept_and_no_other(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    ids = written(writer, event("a", 1), event("b", 2))
    await relay_all(database, MemorySink(), refused=ids, on_dead_letter="block")
    sql.execute("DELETE FROM outbox.outbox WHERE event_id = %s", [ids[0]])
    async with Messages(database) as failures:
        assert [each.event_id async for each in failures.find(Selection(state="failing"))] == [
            ids[1]
        ]
    store = SqlStore(database)
    await store.open()
    await store.sweep()
    await store.close()
    assert sql.execute("SELECT event_id FROM outbox.outbox_failures").fetchall() == [(ids[1],)]


# --- waiting messages ------------------------------------------------------------------


async def found(database: Database, **which: Any) -> list[UndeliveredMessage]:
    async with Messages(database) as tool:
        return await gathered(tool.find(Selection(**which)))


async def test_messages_are_found_by_shard_and_position_page_by_page(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsql_outbox.operations.undelivered.PAGE_ROWS", 2)
    for n in range(7):
        writer.write(event(f"car-{n % 3}", n))
    rows = sql.execute(
        "SELECT event_id, shard, position, subject_version FROM outbox.outbox ORDER BY 2, 3"
    ).fetchall()
    told = await found(database)
    assert [(m.event_id, m.shard, m.position, m.subject_version) for m in told] == rows


async def test_messages_are_found_by_topic_and_by_key(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    ids = [writer.write(event(subject)).event_id for subject in ("a", "a", "b c")]
    sql.execute("UPDATE outbox.outbox SET topic = 'other' WHERE event_id = %s", [ids[1]])

    async def ids_of(**which: Any) -> set[UUID]:
        return {each.event_id for each in await found(database, **which)}

    assert await ids_of(topic="other") == {ids[1]}
    assert await ids_of(subject="Car/a") == set(ids[:2])
    assert await ids_of(subject="Car/b%20c") == await ids_of(subject="Car/b c") == {ids[2]}
    assert await ids_of(subject="Car/a", topic="events.CarMoved") == {ids[0]}
    assert await ids_of(subject="Car/nobody") == set()
    assert await ids_of(subject="Car") == set(ids)
    assert await ids_of(subject="Loan") == set()
    assert await ids_of(type="CarMoved") == set(ids)
    assert await ids_of(type="CarSold") == set()
    assert await ids_of(ids=(ids[2], uuid4())) == {ids[2]}


async def test_rows_that_no_writer_made_are_shown_too(
    database: Database, sql: psycopg.Connection
) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox VALUES (0, -5, gen_random_uuid(), 0, 'Car', 'a', 1, 't',"
        " '[]', 'é', 2, 'infinity')"
    )
    (message,) = await found(database)
    assert (message.position, message.payload_bytes, message.created_at.year) == (-5, 2, 9999)


async def test_what_is_malformed_or_missing_is_named(outbox_url: str, database: Database) -> None:
    with pytest.raises(SettingsError, match="is no TYPE/ID"):
        await found(database, subject="Car/")
    with pytest.raises(SchemaError, match="dsql-outbox schema apply"):
        await found(Database(outbox_url, schema="nowhere"))


@pytest.mark.parametrize("name", ["waiting_page", "failure_page"])
async def test_a_page_reads_no_more_rows_of_a_long_outbox(
    sql: psycopg.Connection, name: str
) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox SELECT n % 4, n, gen_random_uuid(), greatest(n - 4, 0), 'Car',"
        " n % 4, n, 't', '{}', repeat('x', 200), 200, now() FROM generate_series(1, 20000) AS n"
    )
    sql.execute(
        "INSERT INTO outbox.outbox_failures (event_id, position, shard, attempts, last_error,"
        " retry_at) SELECT event_id, position, shard, 1, 'no', 'infinity' FROM outbox.outbox"
        " WHERE position % 2 = 0"
    )
    key = {"shard": 0, "position": 0, "event_id": UUID(int=0), "last_shard": 3, "rows": 1_000}
    query = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement(name, "outbox")
    sql.execute("ANALYZE")
    row = sql.execute(query, Selection().parameters() | key).fetchone()
    assert row is not None
    assert ("Seq Scan", "outbox") not in set(nodes(row[0][0]["Plan"]))


def nodes(plan: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    yield plan["Node Type"], plan.get("Relation Name")
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


# --- all states ------------------------------------------------------------------------


@pytest.fixture
async def every(database: Database, writer: Writer, sql: psycopg.Connection) -> dict[str, UUID]:
    """A message in each state; the failing one is of the same subject as one that waits."""
    (dead,) = written(writer, event("a"))
    await relay_all(database, MemorySink(), refused=[dead])
    failing, behind, waiting = written(writer, event("b"), event("b"), event("c d"))
    await relay_all(database, MemorySink(), refused=[failing, waiting], on_dead_letter="block")
    sql.execute("DELETE FROM outbox.outbox_failures WHERE event_id = %s", [waiting])
    sql.execute("UPDATE outbox.outbox_failures SET retry_at = '2999-01-01'")
    return {"dead": dead, "failing": failing, "behind": behind, "waiting": waiting}


async def test_a_message_has_one_state_and_is_found_by_it(
    database: Database, every: dict[str, UUID]
) -> None:
    told = await found(database)
    assert [each.state for each in told] == ["failing", "dead", "waiting", "waiting"]
    by_id = {each.event_id: each for each in told}
    assert {each.type for each in told} == {"CarMoved"}
    assert by_id[every["behind"]].behind
    assert not by_id[every["waiting"]].behind
    assert by_id[every["failing"]].retry_at == datetime(2999, 1, 1, tzinfo=UTC)
    assert (by_id[every["dead"]].error, by_id[every["dead"]].attempts) == ("Not for me", 1)
    for state in ("failing", "dead", "waiting"):
        assert await found(database, state=state) == [each for each in told if each.state == state]
    for each in told:
        assert await found(database, ids=(each.event_id,)) == [each]
        assert await found(database, ids=(each.event_id,), state=each.state) == [each]
    assert await found(database, error="not FOR") == told[:2]
    assert await found(database, blocked=True) == []
    assert await found(database, ids=(every["failing"],), blocked=True) == []
    assert await found(database, ids=(every["failing"],), state="waiting") == []


async def test_a_payload_is_read_whatever_the_state(
    database: Database, every: dict[str, UUID]
) -> None:
    async with Messages(database) as tool:
        told = await gathered(tool.find(payload=True))
    assert len(told) == len(every)
    for each in told:
        assert each.payload is not None
        assert str(each.event_id) in each.payload
        assert len(each.payload.encode()) == each.payload_bytes


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 50])
async def test_pages_hold_each_message_once(
    database: Database, every: dict[str, UUID], rows: int
) -> None:
    seen: list[UndeliveredMessage] = []
    after: str | None = None
    async with Messages(database) as tool:
        while True:
            page = await tool.page(Selection(), after, rows=rows)
            assert len(page.found) <= rows
            seen += page.found
            after = page.after
            if after is None:
                break
    assert seen == await found(database)
    assert len(seen) == len(every)


async def test_a_retry_takes_failing_and_dead_messages_up_to_its_limit(
    database: Database, every: dict[str, UUID]
) -> None:
    async with Messages(database) as tool:
        planned = await gathered(tool.retry(dry_run=True))
        assert [(each.event_id, each.status) for each in planned] == [
            (every["failing"], "planned"),
            (every["dead"], "planned"),
        ]
        done = await gathered(tool.retry(limit=1))
        assert [(each.event_id, each.status) for each in done] == [(every["failing"], "retried")]
        done = await gathered(tool.retry())
        assert [(each.event_id, each.replay) for each in done] == [(every["dead"], 1)]
        assert await gathered(tool.retry()) == []
        with pytest.raises(SettingsError, match="needs no retry"):
            await gathered(tool.retry(Selection(state="waiting")))
        with pytest.raises(SettingsError, match="drop needs a state"):
            await gathered(tool.drop(Selection()))
        with pytest.raises(SettingsError, match="drop needs a state"):
            await gathered(tool.drop(Selection(state="waiting")))
