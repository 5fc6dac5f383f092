"""Connections of asyncpg as their callers set them up."""

import asyncio
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from tests.support.driver_sessions import without_options
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, formed
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.outbox.sessions import driver_sessions
from dsql_outbox.writer import AsyncWriter

__all__ = ["own"]

pytestmark = [pytest.mark.client, pytest.mark.anyio]

ROW = "INSERT INTO own VALUES (1)"
SECRET = "payload-7f3a"


class DotRecord(asyncpg.Record):
    """A record whose values are attributes, as applications have it."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


async def connected(url: str, **options: Any) -> Any:
    return await asyncpg.connect(without_options(url), ssl=False, **options)


@pytest.mark.parametrize("form", ["single", "plain"])
async def test_a_connection_with_codecs_and_records_of_its_own_takes_events(
    own: Tables, url: str, form: Any
) -> None:
    mine = await connected(url, record_class=DotRecord)
    for name in ("int2", "int4", "int8"):
        await mine.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=str)
    for name in ("json", "uuid", "text", "timestamptz"):
        await mine.set_type_codec(
            name, schema="pg_catalog", encoder=str, decoder=lambda value: ["decoded", value]
        )
    events = [workload_s.car_created(), workload_s.three_entities()]
    writer = AsyncWriter(Database(url), replace(QUICK, form=form))
    async with writer, mine.transaction():
        receipts = [await writer.append_to(mine, event) for event in events]
    await mine.close()
    own.assert_true_to({receipt.event_id: receipt for receipt in receipts})


async def test_a_connection_without_prepared_statements_takes_events(own: Tables, url: str) -> None:
    """As behind a pooler."""
    mine = await connected(url, statement_cache_size=0)
    async with AsyncWriter(Database(url), formed(QUICK)) as writer, mine.transaction():
        receipts = [await writer.append_to(mine, workload_s.car_created()) for _ in range(7)]
        (named,) = await mine.fetch("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")
    await mine.close()
    assert named["count"] == 0
    own.assert_true_to({receipt.event_id: receipt for receipt in receipts})


@pytest.mark.postgres_only("DSQL knows UTF-8 alone")
async def test_a_text_that_the_encoding_lacks_is_refused_without_the_payload(
    own: Tables, url: str
) -> None:
    """asyncpg quotes the value."""
    event = Event.new("CarSold", [Entity("Car", "CAR-1", {"note": f"{SECRET}\u20ac"})])
    mine = await connected(url, server_settings={"client_encoding": "latin1"})
    async with AsyncWriter(Database(url), formed(QUICK)) as writer:
        transaction = mine.transaction()
        await transaction.start()
        await mine.execute(ROW)
        with pytest.raises(asyncpg.DataError, match="hidden") as raised:
            await writer.append_to(mine, event)
        assert SECRET not in str(raised.value)
        await transaction.commit()
    await mine.close()
    assert (own_rows(own), ids(own)) == (0, set())


async def test_a_connection_that_was_given_back_to_its_pool_is_refused(
    own: Tables, url: str
) -> None:
    async with (
        asyncpg.create_pool(without_options(url), min_size=1, max_size=1, ssl=False) as pool,
        AsyncWriter(Database(url), formed(QUICK)) as writer,
    ):
        async with pool.acquire() as lent:
            pass
        with pytest.raises(asyncpg.InterfaceError, match="released back"):
            await writer.append_to(lent, workload_s.car_created())
    assert ids(own) == set()


async def test_a_connection_that_was_lost_is_not_taken_for_one_without_a_transaction(
    own: Tables, url: str
) -> None:
    mine = await connected(url)
    async with AsyncWriter(Database(url), formed(QUICK)) as writer:
        await mine.transaction().start()
        own.hang_up_all()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await writer.append_to(mine, workload_s.car_created())
        with pytest.raises(asyncpg.InterfaceError, match="closed"):
            await writer.append_to(mine, workload_s.car_created())
    assert ids(own) == set()


async def test_an_append_beside_a_statement_that_runs_fails_the_transaction_as_well(
    own: Tables, url: str, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncpg runs one statement at a time, and refuses the second before it is sent."""
    mine = await connected(proxy.url)
    async with AsyncWriter(Database(url), formed(QUICK)) as writer:
        await writer.write(workload_s.loan_created())
        transaction = mine.transaction()
        await transaction.start()
        held = proxy.hold(matching="INTO own")
        running = asyncio.ensure_future(mine.execute(ROW))
        await asyncio.to_thread(held.arrived)

        async def wait(_: float) -> None:
            held.release()
            await running

        monkeypatch.setattr(driver_sessions, "sleep", wait)
        with pytest.raises(asyncpg.InterfaceError, match="another operation"):
            await writer.append_to(mine, workload_s.car_created())
        await running
        await transaction.commit()
    await mine.close()
    assert own_rows(own) == 0
