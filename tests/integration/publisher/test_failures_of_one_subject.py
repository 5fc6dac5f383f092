"""Several failures of one subject: what an operator does with one leaves the others blocked."""

from typing import Any
from uuid import UUID

import anyio
import psycopg
import pytest
from tests.support.publisher.given_up_messages import event, gathered

from dsql_outbox.operations import Messages, Selection
from dsql_outbox.operations.undelivered import UndeliveredMessage
from dsql_outbox.outbox import Database, SettingsError
from dsql_outbox.publisher import Publisher
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

FAILING = Selection(state="failing")
BLOCKED, SOON = "infinity", "2999-01-01"


@pytest.fixture
def ids(writer: Writer) -> list[UUID]:
    """Three messages of a subject that wait, and one of another."""
    return [writer.write(event(subject)).event_id for subject in ("a", "a", "a", "b")]


def fail(sql: psycopg.Connection, event_id: UUID, retry_at: str = BLOCKED) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox_failures (event_id, position, shard, attempts, last_error,"
        " retry_at) SELECT event_id, position, shard, 1, 'no', %s FROM outbox.outbox"
        " WHERE event_id = %s",
        (retry_at, event_id),
    )


def waiting(sql: psycopg.Connection) -> list[UUID]:
    rows = sql.execute("SELECT event_id FROM outbox.outbox ORDER BY position").fetchall()
    return [event_id for (event_id,) in rows]


def blocked(sql: psycopg.Connection) -> set[UUID]:
    rows = sql.execute("SELECT event_id FROM outbox.outbox_failures WHERE retry_at = 'infinity'")
    return {event_id for (event_id,) in rows.fetchall()}


async def bury(database: Database, **which: Any) -> list[UndeliveredMessage]:
    async with Messages(database) as messages:
        return await gathered(messages.drop(Selection(state="failing", **which)))


async def test_a_failure_is_behind_while_the_message_before_it_waits(
    database: Database, sql: psycopg.Connection, ids: list[UUID]
) -> None:
    for each in ids:
        fail(sql, each)
    async with Messages(database) as messages:
        found = {each.event_id: each.behind async for each in messages.find(FAILING)}
    assert [found[each] for each in ids] == [False, True, True, False]


@pytest.mark.parametrize("retry_at", [BLOCKED, SOON])
async def test_a_message_behind_a_blocked_one_is_not_given_up(
    database: Database, sql: psycopg.Connection, ids: list[UUID], retry_at: str
) -> None:
    """The third waits for the second alone: without it, it would not wait for the first."""
    fail(sql, ids[0])
    fail(sql, ids[1], retry_at)
    (left,) = await bury(database, ids=(ids[1],))
    assert left.behind
    assert waiting(sql) == ids
    assert ids[0] in blocked(sql)


async def test_a_blocked_subject_stays_blocked_when_another_failure_of_it_is_tried_anew(
    database: Database, sql: psycopg.Connection, ids: list[UUID]
) -> None:
    for each in ids[:2]:
        fail(sql, each)
    async with Messages(database) as messages:
        (told,) = await gathered(messages.retry(Selection(ids=(ids[1],))))
    assert told.status == "retried"
    assert blocked(sql) == {ids[0]}
    sink = MemorySink()
    with anyio.fail_after(60):
        await Publisher(database, sink).run(until_empty=True)
    assert sink.ids == [ids[3]]


@pytest.mark.parametrize("which", [{"subject": "Car/a"}, {}])
async def test_failures_that_are_given_up_together_go_in_order_whatever_their_ids(
    database: Database, sql: psycopg.Connection, ids: list[UUID], which: dict[str, str]
) -> None:
    for each in ids[:2]:
        fail(sql, each)
    done = await bury(database, **which)
    assert [(each.event_id, each.behind) for each in done] == [(each, False) for each in ids[:2]]
    assert waiting(sql) == ids[2:]


async def test_a_message_is_given_up_once_the_one_before_it_is_gone(
    database: Database, sql: psycopg.Connection, ids: list[UUID]
) -> None:
    fail(sql, ids[0])
    fail(sql, ids[1])
    await bury(database, ids=(ids[0],))
    (done,) = await bury(database, ids=(ids[1],))
    assert not done.behind
    assert waiting(sql) == ids[2:]


async def test_failures_are_found_by_topic_and_by_key(
    database: Database, sql: psycopg.Connection, ids: list[UUID]
) -> None:
    for each in ids:
        fail(sql, each)
    sql.execute("UPDATE outbox.outbox SET topic = 'other' WHERE event_id = %s", [ids[3]])

    async def found(**which: Any) -> list[UUID]:
        async with Messages(database) as messages:
            selected = messages.find(Selection(state="failing", **which))
            return sorted([each.event_id async for each in selected])

    assert await found(topic="other") == [ids[3]]
    assert await found(topic="events.CarCreated") == []
    assert await found(topic="events.CarMoved", subject="Car/a") == sorted(ids[:3])
    assert await found(topic="other", subject="Car/a") == []
    assert await found(subject="Car") == sorted(ids)
    with pytest.raises(SettingsError, match="is no TYPE/ID"):
        await found(subject="Car/")


async def test_messages_before_a_failed_one_go_though_they_were_sent_before(
    database: Database, sql: psycopg.Connection, ids: list[UUID]
) -> None:
    """A publisher that records a failure may end before it deletes what it sent before."""
    fail(sql, ids[2], "2000-01-01")
    sink = MemorySink()
    with anyio.fail_after(60):
        await Publisher(database, sink).run(until_empty=True)
    assert [each for each in sink.ids if each != ids[3]] == ids[:3]
