"""A publisher hears the doorbell of writers in other processes, and polls if it does not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import anyio
import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.running_relays import event, sql, until

from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Publisher, PublisherSettings
from dsql_outbox.publisher.relay import reader
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings

__all__ = ["sql"]

pytestmark = [pytest.mark.anyio, pytest.mark.postgres_only("DSQL has no LISTEN")]

RINGS = WriterSettings(doorbell=True)
NEVER = 3_600.0
LISTENERS = """
SELECT pid FROM pg_stat_activity
WHERE query LIKE '%LISTEN dsql_outbox%' AND pid <> pg_backend_pid()
"""
NOTIFY = "SELECT pg_notify('dsql_outbox', %s)"


@asynccontextmanager
async def listening(database: Database, sql: psycopg.Connection) -> AsyncIterator[MemorySink]:
    """A publisher that hears, and has delivered one message. It polls once an hour."""
    sink = MemorySink()
    settings = PublisherSettings(doorbell=True, idle_max=NEVER)
    async with Publisher(database, sink, settings):
        await until(lambda: sql.execute(f"{LISTENERS} AND state = 'idle'").fetchone() is not None)
        async with AsyncWriter(database, RINGS) as writer:
            await writer.write(event("FIRST"))
        await until(lambda: len(sink.messages) == 1)
        yield sink


@pytest.fixture
def _never_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a ring makes a publisher read, so what arrives has been rung."""
    monkeypatch.setattr(reader, "_FIRST_WAIT", NEVER)


def reads(proxy: PostgresProxy) -> int:
    return sum("AS predecessor" in text for text in proxy.statements)


@pytest.mark.usefixtures("_never_polls")
async def test_the_event_of_a_writer_that_ends_at_once_arrives_by_a_ring(
    database: Database, sql: psycopg.Connection
) -> None:
    async with listening(database, sql) as sink:
        with Writer(database, RINGS) as writer:  # a writer that ends at once has rung
            await anyio.to_thread.run_sync(writer.write, event("CAR-1"))
        await until(lambda: len(sink.messages) == 2)


@pytest.mark.usefixtures("_never_polls")
async def test_rings_for_other_schemas_wake_nobody_and_a_flood_wakes_every_ten_milliseconds(
    database: Database, database_proxy: PostgresProxy, sql: psycopg.Connection
) -> None:
    async with listening(Database(database_proxy.url), sql) as sink:
        database_proxy.reset_counts()
        began = monotonic()
        while monotonic() < began + 0.2:
            for other in ("outbox2", "", "outbo", "OUTBOX"):
                await anyio.to_thread.run_sync(sql.execute, NOTIFY, [other])
        sql.execute(NOTIFY, ["outbox"])
        await until(lambda: reads(database_proxy) > 0)
        assert reads(database_proxy) == 1
        began = monotonic()
        while monotonic() < began + 0.5:
            await anyio.to_thread.run_sync(sql.execute, NOTIFY, ["outbox"])
        assert 2 < reads(database_proxy) <= 100 * (monotonic() - began) + 2
        async with AsyncWriter(database, RINGS) as writer:
            await writer.write(event("LAST"))
        await until(lambda: len(sink.messages) == 2)


async def test_a_publisher_that_hears_nothing_polls_and_hears_again(
    database: Database, sql: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dsql_outbox")
    sink = MemorySink()
    async with Publisher(database, sink, PublisherSettings(doorbell=True, idle_max=0.2)):
        await until(lambda: sql.execute(LISTENERS).fetchone() is not None)
        sql.execute(f"SELECT pg_terminate_backend(pid) FROM ({LISTENERS}) AS listeners")
        await until(lambda: "does not hear the doorbell, and polls: " in caplog.text)
        async with AsyncWriter(database) as silent:
            await silent.write(event("CAR-1"))
        await until(lambda: len(sink.messages) == 1)
        await until(lambda: "hears the doorbell again" in caplog.text)
    assert caplog.text.count("does not hear") == 1


async def test_a_publisher_that_has_heard_again_waits_no_longer_after_the_next_loss(
    database: Database,
    sql: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, waits, sleep = 0.0123, list[float](), anyio.sleep
    monkeypatch.setattr("dsql_outbox.publisher.doorbell._FIRST_WAIT", first)

    async def recorded(seconds: float) -> None:
        waits.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(anyio, "sleep", recorded)
    caplog.set_level("INFO", "dsql_outbox")
    async with Publisher(database, MemorySink(), PublisherSettings(doorbell=True)):
        await until(lambda: sql.execute(LISTENERS).fetchone() is not None)
        for losses in range(1, 4):
            sql.execute(f"SELECT pg_terminate_backend(pid) FROM ({LISTENERS}) AS listeners")
            await until(lambda: caplog.text.count("hears the doorbell again") == losses)  # noqa: B023
    assert waits.count(first) >= 3, "each loss begins with the first wait"


async def test_a_publisher_whose_own_ring_does_not_arrive_says_so(
    database_proxy: PostgresProxy,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As behind a pooler: nothing is wrong with the connection."""
    monkeypatch.setattr("dsql_outbox.publisher.doorbell._PATIENCE", 0.2)
    deaf = PublisherSettings(doorbell=True)
    database_proxy.stall(None, matching="pg_notify")
    pooled = Database(database_proxy.url)
    async with Publisher(pooled, MemorySink(), deaf):
        await until(lambda: "a URL of the server itself" in caplog.text)
