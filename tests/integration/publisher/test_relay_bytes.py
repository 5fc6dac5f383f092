"""Large messages: what one statement of the relay may hold."""

import pytest
from tests.support.publisher.running_relays import relayed

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.schema import apply
from dsql_outbox.testing import MemorySink, PostgresProxy
from dsql_outbox.writer import AsyncWriter

pytestmark = pytest.mark.anyio


async def test_what_one_statement_deletes_is_no_more_than_dsql_may_allow(
    database_url: str,
) -> None:
    apply(Database(database_url))
    large = "ä" * (450 << 10)  # 900 KiB
    async with AsyncWriter(Database(database_url)) as writer:
        for n in range(18):
            entity = Entity("Car", f"CAR-{n}", {"note": large})
            await writer.write(Event.new("Car Created", "CarCreated", [entity]))
    sink = MemorySink()
    with PostgresProxy(database_url) as proxy:
        done = await relayed(Database(proxy.url), sink, batch_bytes=64 << 20)
        deletes = [text for text in proxy.statements if 'DELETE FROM "outbox".outbox o' in text]
    assert (done.read, done.deleted, len(sink.messages)) == (18, 18, 18)
    assert len(deletes) == 2  # of 9 rows each
