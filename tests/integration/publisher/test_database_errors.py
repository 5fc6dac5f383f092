"""Errors of the publisher's own statements: it outlives all but a wrong schema and a missing right.

On PostgreSQL itself, a failover leads through a server that accepts no writes.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import psycopg
import pytest
from psycopg import sql as text
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.running_relays import count, event, until

from dsql_outbox.observability.hooks import Hook
from dsql_outbox.operations import Health
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Publisher, PublisherSettings
from dsql_outbox.publisher.leases.table import SqlLeaseTable
from dsql_outbox.schema.session import Session
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = [pytest.mark.anyio, pytest.mark.client]

QUICK = PublisherSettings(lease=1.0, idle_max=0.05)
PASS = ["25006", "54000", "57P03"]
LEASES = "WITH renewed AS"
READ = "o.payload"
FAILURES = "outbox_failures f"
SETTLE = 'DELETE FROM "outbox".outbox o'


@asynccontextmanager
async def relaying(url: str, sink: MemorySink, *hooks: Hook) -> AsyncGenerator[Publisher]:
    """A publisher that runs until the end of the block, whose error the block raises."""
    with anyio.fail_after(60):
        async with Publisher(Database(url), sink, QUICK, hooks=hooks) as publisher:
            yield publisher


@pytest.mark.parametrize("sqlstate", PASS)
async def test_whatever_refuses_a_statement_for_a_while_all_rows_are_relayed(
    database_proxy: PostgresProxy, writer: Writer, sql: psycopg.Connection, sqlstate: str
) -> None:
    sink = MemorySink()
    async with relaying(database_proxy.url, sink):
        for number, matching in enumerate((LEASES, READ, SETTLE), start=1):
            database_proxy.refuse(3, sqlstate=sqlstate, message="not now", matching=matching)
            writer.write(event("car", number))
            await until(lambda number=number: len(sink.messages) == number)  # type: ignore[misc]
            await until(lambda: count(sql, "outbox") == 0)
    assert len(sink.messages) == 3


@pytest.mark.parametrize("matching", [LEASES, READ, SETTLE, FAILURES])
async def test_a_missing_right_ends_a_publisher_and_frees_its_shards(
    database_proxy: PostgresProxy, writer: Writer, sql: psycopg.Connection, matching: str
) -> None:
    async def lose_a_right() -> None:
        async with relaying(database_proxy.url, MemorySink()):
            await until(lambda: "renewed" in str(database_proxy.statements))
            database_proxy.refuse(None, sqlstate="42501", message="denied", matching=matching)
            if matching == FAILURES:  # they are read of shards that are taken
                sql.execute("UPDATE outbox.outbox_leases SET owner = NULL, epoch = epoch + 1")
            writer.write(event("car"))
            await anyio.sleep_forever()

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await lose_a_right()
    assert sql.execute("SELECT DISTINCT owner FROM outbox.outbox_leases").fetchall() == [(None,)]


@pytest.mark.parametrize("sqlstate", ["57014", "57P03", "42501"])
async def test_after_any_error_but_a_conflict_the_next_statement_has_another_connection(
    database_proxy: PostgresProxy, sqlstate: str
) -> None:
    database = Database(database_proxy.url)
    table, session = SqlLeaseTable(database, QUICK), Session(database)
    try:
        for state, stays in (("40001", True), (sqlstate, False)):
            await table.look()
            await session.fetch_rows("shard_list", {})
            before = table._connection.current, session._connection.current
            database_proxy.refuse(1, sqlstate=state, message="no", matching="outbox_leases")
            if stays:
                await table.look()
            else:
                with pytest.raises(psycopg.Error):
                    await table.look()
            database_proxy.heal()
            database_proxy.refuse(1, sqlstate=state, message="no", matching="outbox_leases")
            if stays:
                await session.fetch_rows("shard_list", {})
            else:
                with pytest.raises(psycopg.Error):
                    await session.fetch_rows("shard_list", {})
            assert ((table._connection.current, session._connection.current) == before) is stays
    finally:
        table.drop()
        await session.close()


# --- a failover through a server that accepts no writes ----------------------------------


@contextmanager
def read_only_sessions(sql: psycopg.Connection) -> Iterator[None]:
    """Let each session that begins in the block accept no writes, for as long as it lasts.

    A former primary does so after a failover: it answers, and it stays what it is.
    """
    name = text.Identifier(sql.info.dbname)
    on = text.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name)
    sql.execute(on)
    try:
        yield
    finally:
        sql.execute("SET default_transaction_read_only = off")
        sql.execute(text.SQL("ALTER DATABASE {} RESET ALL").format(name))


def end_sessions(sql: psycopg.Connection) -> None:
    """End all sessions of the database beside our own, as the end of a primary does."""
    sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def sessions(sql: psycopg.Connection) -> int:
    """How many sessions of the database there are beside our own."""
    return len(
        sql.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        ).fetchall()
    )


@pytest.mark.postgres_only("changes the defaults of sessions")
async def test_nothing_is_read_of_a_server_that_accepts_no_writes(
    database: Database, sql: psycopg.Connection
) -> None:
    """It may be a former primary: its rows are out of date, and it reports no error."""
    session, operator = Session(database, needs_primary=True), Session(database)
    with read_only_sessions(sql):
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await session.fetch_rows("shard_list", {})
        assert await operator.fetch_rows("shard_list", {}), "an operator may look at a standby"
        await operator.close()
        kept = await database.connect_async()
    assert not kept.accepts_writes
    session._connection.current = kept
    assert await session.fetch_rows("shard_list", {})
    assert kept.closed
    await session.close()


@pytest.mark.postgres_only("ends sessions and changes their defaults")
@pytest.mark.parametrize(("lasts", "waits"), [(0.0, 5), (2.5, 5), (2.5, 0)])
async def test_a_failover_through_a_server_without_writes_ends_with_all_rows_relayed(
    outbox_url: str, writer: Writer, sql: psycopg.Connection, lasts: float, waits: int
) -> None:
    sink = MemorySink()
    async with relaying(outbox_url, sink):
        writer.write(event("car", 0))
        await until(lambda: len(sink.messages) == 1 and count(sql, "outbox") == 0)
        with read_only_sessions(sql):
            writer.write_many([event(f"car-{n}") for n in range(waits)])
            end_sessions(sql)
            await until(lambda: sessions(sql) >= 1)
            await anyio.sleep(lasts)  # a time is what is asked for: shorter or longer than a lease
        writer.write_many([event(f"late-{n}") for n in range(5)])
        await until(lambda: count(sql, "outbox") == 0)
    assert len({message.event_id for message in sink.messages}) == 1 + waits + 5


@pytest.mark.postgres_only("changes the server")
async def test_a_server_that_is_without_writes_for_a_while_ends_with_all_rows_relayed(
    outbox_url: str, writer: Writer, sql: psycopg.Connection
) -> None:
    sink = MemorySink()
    async with relaying(outbox_url, sink):
        writer.write(event("car", 0))
        await until(lambda: count(sql, "outbox") == 0)
        try:
            sql.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            sql.execute("SELECT pg_reload_conf()")
            await until(lambda: is_read_only(outbox_url))
            await anyio.sleep(1.5 * QUICK.lease)
        finally:
            sql.execute("ALTER SYSTEM RESET default_transaction_read_only")
            sql.execute("SELECT pg_reload_conf()")
        await until(lambda: not is_read_only(outbox_url))
        writer.write_many([event(f"late-{n}") for n in range(5)])
        await until(lambda: count(sql, "outbox") == 0)
    assert len(sink.messages) == 6


def is_read_only(url: str) -> bool:
    """Whether a session that begins now accepts no writes."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW transaction_read_only").fetchone()
    return row == ("on",)


# --- what is said of it -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matching", "sqlstate", "part"),
    [
        ("outbox_leases", "25006", "relay"),
        (READ, "54000", "database"),
        (SETTLE, "57014", "database"),
    ],
)
async def test_a_publisher_whose_statements_are_refused_is_not_ready(
    database_proxy: PostgresProxy, writer: Writer, matching: str, sqlstate: str, part: str
) -> None:
    health = Health()
    health.database = health.broker = "ok"
    async with relaying(database_proxy.url, MemorySink(), health):
        await until(lambda: health.ready().ready)
        database_proxy.refuse(None, sqlstate=sqlstate, message="no", matching=matching)
        writer.write(event("car"))
        await until(lambda: getattr(health.ready(), part) != "ok")
        assert health.alive().alive, "a restart would not help"
        database_proxy.heal()
        await until(lambda: health.ready().ready)
