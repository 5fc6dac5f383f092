"""The messages that wait in the outbox, as an operator finds them."""

from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.support.publisher.given_up_messages import event, gathered

from dsql_outbox.outbox import Database, SchemaError, SettingsError
from dsql_outbox.publisher import Waiting, WaitingFilter, WaitingMessage
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio


async def found(database: Database, **which: Any) -> list[WaitingMessage]:
    async with Waiting(database) as tool:
        return await gathered(tool.find(WaitingFilter(**which)))


async def test_messages_are_found_by_shard_and_position_page_by_page(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsql_outbox.publisher.operator.waiting_messages.PAGE_ROWS", 2)
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


async def test_rows_that_no_writer_made_are_shown_too(
    database: Database, sql: psycopg.Connection
) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox VALUES (0, -5, gen_random_uuid(), 0, 'Car', 'a', 1, 't',"
        " '[]', 'é', 'infinity')"
    )
    (message,) = await found(database)
    assert (message.position, message.payload_bytes, message.created_at.year) == (-5, 2, 9999)


async def test_what_is_malformed_or_missing_is_named(outbox_url: str, database: Database) -> None:
    with pytest.raises(SettingsError, match="is no TYPE/ID"):
        await found(database, subject="Car")
    with pytest.raises(SchemaError, match="dsql-outbox schema apply"):
        await found(Database(outbox_url, schema="nowhere"))
