"""Large messages: what one statement of the relay may hold."""

from uuid import uuid4

import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.given_rows import rows_in
from tests.support.publisher.running_relays import relayed

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher.relay.sql_store import SqlStore
from dsql_outbox.publisher.relay.store import HEAD, PassedOver, Range, RowPlace
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import AsyncWriter

pytestmark = pytest.mark.anyio


@pytest.fixture
def shards() -> int:
    return 1


@pytest.fixture
async def large(database: Database) -> Database:
    """18 messages of 900 KiB each, in one shard."""
    note = "ä" * (450 << 10)
    async with AsyncWriter(database) as writer:
        for n in range(18):
            entity = Entity("Car", f"CAR-{n}", {"note": note})
            await writer.write(Event.new("CarCreated", [entity]))
    return database


async def test_a_read_returns_no_more_bytes_than_asked_for_but_one_row_at_least(
    large: Database,
) -> None:
    store = SqlStore(large)
    for size, rows in ((1, 1), (2 << 20, 2), (64 << 20, 18)):
        reading = await store.read([Range(0, HEAD, 100, size, 100)], PassedOver({}, ()))
        (found,) = reading.ranges
        assert (len(found.rows), found.is_cut) == (rows, rows < 18)
        last = rows_in(found)[-1]
        assert found.end == RowPlace(last.position, last.event_id)
    await store.close()


async def test_what_one_statement_deletes_is_no_more_than_dsql_may_allow(
    large: Database, outbox_url: str
) -> None:
    assert large
    sink = MemorySink()
    with PostgresProxy(outbox_url) as proxy:
        done = await relayed(Database(proxy.url), sink, batch_bytes=64 << 20)
        deletes = [text for text in proxy.statements if 'DELETE FROM "outbox".outbox o' in text]
    assert (done.read, done.deleted, len(sink.messages)) == (18, 18, 18)
    assert len(deletes) == 2  # of 9 rows each


async def test_the_bytes_of_a_row_without_a_payload_are_those_of_its_event(
    database: Database, sql: psycopg.Connection
) -> None:
    """They count in the limit of a read as they do elsewhere."""
    texts = [
        f'{{"eventHeader": {{"uuid": "{uuid4()}", "eventName": "Moved", "eventType": "CarMoved"}},'
        f' "entities": [{{"entityHeader": {{"entityType": "Car", "entityId": "{n}"}},'
        f' "attributes": {{"note": "{"ä" * size}"}}}}]}}'
        for n, size in enumerate((3, 9_000, 90_000, 7))
    ]
    async with AsyncWriter(database) as writer:
        for text in texts:
            await writer.write(text)
    sql.execute("UPDATE outbox.outbox SET payload = NULL WHERE subject_id <> '0'")
    store = SqlStore(database)
    reading = await store.read([Range(0, HEAD, 100, 60_000, 100)], PassedOver({}, ()))
    await store.close()
    assert [row.payload for row in rows_in(reading.ranges[0])] == texts[:2]
    sink = MemorySink()
    await relayed(database, sink)
    assert [message.payload.decode() for message in sink.messages] == texts
