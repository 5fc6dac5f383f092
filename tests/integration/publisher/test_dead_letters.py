"""Dead letters and failures on real PostgreSQL: found, replayed, dropped, set free."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.support.publisher.given_up_messages import event, gathered, relay_all
from tests.support.publisher.running_relays import count

from dsql_outbox.outbox import Database, Event
from dsql_outbox.publisher import (
    DeadLetters,
    FailureFilter,
    Failures,
    LetterFilter,
    Rejected,
    Replay,
)
from dsql_outbox.publisher.relay.sql_store import SqlStore
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio


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
    async with DeadLetters(database) as letters:
        done = await gathered(letters.replay(reason="mended"))
    assert [(each.event_id, each.status, each.replay) for each in done] == [
        (event_id, "replayed", 1)
    ]
    assert count(sql, "dead_letters") == 0
    await relay_all(database, sink)
    (message,) = sink.messages
    assert (message.dedupe_id, message.attempt) == (f"{event_id}/r1", 1)
    assert message.headers["traceparent"].startswith(carrier["traceparent"][:35])


async def test_one_that_dies_again_says_which_replay_it_was_and_the_next_counts_on(
    database: Database, writer: Writer
) -> None:
    (event_id,) = written(writer, event())
    sink = MemorySink()
    numbers: list[int] = []
    for _ in range(3):
        await relay_all(database, sink, refused=[event_id])
        async with DeadLetters(database) as letters:
            (letter,) = await gathered(letters.find())
            numbers.append(letter.replay)
            await gathered(letters.replay())
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
    async with DeadLetters(database) as letters:
        found = {letter.event_id: letter for letter in await gathered(letters.find())}
        assert found[bad].headers == {}
        assert found[bad].error == "is not a valid message: headers are not a JSON object of texts"
        assert found[bad].created_at.year == 9999
        done = await gathered(letters.replay())
    assert {each.event_id: each.status for each in done} == {bad: "unreadable", good: "replayed"}
    async with Replay(database) as tool:
        await gathered(tool.events([bad]))
    await relay_all(database, sink)
    assert sorted(sink.ids) == sorted([bad, good])


async def test_dead_letters_of_a_subject_go_in_its_order(
    database: Database, writer: Writer
) -> None:
    ids = written(writer, *(event("a", n) for n in range(9)))
    sink = MemorySink()
    await relay_all(database, sink, refused=ids)
    async with DeadLetters(database) as letters:
        done = await gathered(letters.replay())
    assert [each.event_id for each in done] == ids
    await relay_all(database, sink)
    assert sink.ids == ids


async def test_a_letter_whose_event_waits_again_stays(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    (event_id,) = written(writer, event())
    await relay_all(database, MemorySink(), refused=[event_id])
    async with Replay(database) as tool:
        await gathered(tool.events([event_id]))
    async with DeadLetters(database) as letters:
        (done,) = await gathered(letters.replay())
    assert done.status == "waiting"
    assert count(sql, "dead_letters") == 1


async def test_letters_are_found_by_all_that_is_asked_over_many_pages(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsql_outbox.publisher.operator.dead_letter_filter.PAGE_ROWS", 3)
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
        async with DeadLetters(database) as letters:
            which = LetterFilter(**fields)  # type: ignore[arg-type]
            return {each.event_id async for each in letters.find(which)}

    third = datetime(2026, 1, 3, tzinfo=UTC)
    assert await found() == set(ids)
    assert await found(event_ids=(ids[3], ids[3], uuid4(), ids[4])) == {ids[3], ids[4]}
    assert await found(subject="Car/c%206") == await found(subject="Car/c 6") == {ids[6]}
    assert await found(topic="other") == await found(since=third) == {ids[0]}
    assert await found(until=third) == set(ids[1:])
    assert await found(error="too large: 100%") == set(ids[:5])
    assert await found(error="too large", since=third) == {ids[0]}


async def test_a_payload_comes_only_when_asked_for(database: Database, writer: Writer) -> None:
    one = event()
    written(writer, one)
    await relay_all(database, MemorySink(), refused=[one.id])
    async with DeadLetters(database) as letters:
        (bare,) = await gathered(letters.find())
        (full,) = await gathered(letters.find(payload=True))
    assert bare.payload is None
    assert bare.payload_bytes == len(one.to_json())
    assert full.payload == one.to_json().decode()


async def test_dropping_by_time_is_what_keeps_dead_letters_from_growing(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsql_outbox.publisher.operator.dead_letters.MAX_ROWS", 2)
    ids = written(writer, *(event(f"c{n}") for n in range(7)))
    await relay_all(database, MemorySink(), refused=ids)
    limit = datetime(2026, 1, 1, tzinfo=UTC)
    old = [str(each) for each in ids[:5]]
    sql.execute(
        "UPDATE outbox.dead_letters SET died_at = %s WHERE event_id = ANY(%s::uuid[])",
        [limit - timedelta(days=1), old],
    )
    async with DeadLetters(database) as letters:
        dropped = await gathered(letters.drop(LetterFilter(until=limit)))
        assert {each.event_id for each in dropped} == set(ids[:5])
        assert {each.event_id async for each in letters.find()} == set(ids[5:])
    assert count(sql, "business_events") == 7


# --- failures --------------------------------------------------------------------------


async def test_a_blocked_subject_goes_on_after_a_retry(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    ids = written(writer, event("a", 1), event("a", 2), event("b", 3))
    sink = MemorySink()
    await relay_all(database, sink, refused=[ids[0]], on_dead_letter="block")
    assert sink.ids == [ids[2]]
    async with Failures(database) as failures:
        (blocked,) = await gathered(failures.find(FailureFilter(blocked=True)))
        assert (blocked.subject, blocked.attempts, blocked.retry_at) == ("Car/a", 1, None)
        await gathered(failures.retry(FailureFilter(subject="Car/a")))
        assert await gathered(failures.find(FailureFilter(blocked=True))) == []
    await relay_all(database, sink, on_dead_letter="block")
    assert sink.ids == [ids[2], *ids[:2]]
    assert count(sql, "outbox_failures") == 0


async def test_a_blocked_subject_goes_on_without_what_is_given_up(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    ids = written(writer, event("a", 1), event("a", 2))
    sink = MemorySink()
    await relay_all(database, sink, refused=[ids[0]], on_dead_letter="block")
    async with Failures(database) as failures:
        await gathered(failures.bury(FailureFilter(event_ids=(ids[0],))))
    await relay_all(database, sink, on_dead_letter="block")
    assert sink.ids == [ids[1]]
    async with DeadLetters(database) as letters:
        (letter,) = await gathered(letters.find())
    assert (letter.event_id, letter.error, letter.attempts) == (ids[0], "Not for me", 1)
    assert count(sql, "outbox_failures") == 0


async def test_a_failure_without_its_message_is_swept_and_no_other(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    ids = written(writer, event("a", 1), event("b", 2))
    await relay_all(database, MemorySink(), refused=ids, on_dead_letter="block")
    sql.execute("DELETE FROM outbox.outbox WHERE event_id = %s", [ids[0]])
    async with Failures(database) as failures:
        assert [each.event_id async for each in failures.find()] == [ids[1]]
    store = SqlStore(database)
    await store.open()
    await store.sweep()
    await store.close()
    assert sql.execute("SELECT event_id FROM outbox.outbox_failures").fetchall() == [(ids[1],)]
