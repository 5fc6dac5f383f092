"""A proxy that is not asked for harm changes nothing, and counts."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.proxy_clients import INSERT, SyncClient, inserting, rows, wait_in_database


def test_a_healthy_proxy_changes_nothing(proxy: PostgresProxy, url: str) -> None:
    with psycopg.connect(proxy.url) as client:
        client.execute(INSERT, [1], prepare=True)
        client.execute(INSERT, [2], prepare=True)
        with client.cursor().copy("COPY t FROM STDIN") as copy:
            for n in range(3, 20_000):
                copy.write_row([n])
        with client.pipeline():
            cursors = [client.execute("SELECT %s::int", [n]) for n in range(3)]
            assert cursors[0].fetchone() == (0,)  # asks with a Flush, before the Sync
        assert [cursor.fetchall() for cursor in cursors[1:]] == [[(1,)], [(2,)]]
        big = client.execute("SELECT repeat('x', 3000000)").fetchone()
        assert big is not None
        assert len(big[0]) == 3_000_000
    assert len(rows(url)) == 19_999


def test_a_client_that_asks_for_encryption_is_told_no(proxy: PostgresProxy) -> None:
    with psycopg.connect(proxy.url, sslmode="prefer", gssencmode="prefer") as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_an_engine_connects_by_its_url(proxy: PostgresProxy, driver: str) -> None:
    engine = create_engine(proxy.url.replace("://", f"+{driver}://", 1), poolclass=NullPool)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1


@pytest.mark.anyio
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_an_async_engine_connects_by_its_url(proxy: PostgresProxy, driver: str) -> None:
    engine = create_async_engine(proxy.url.replace("://", f"+{driver}://", 1), poolclass=NullPool)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1


def test_a_statement_can_be_cancelled_through_it(
    proxy: PostgresProxy, client: SyncClient, url: str
) -> None:
    def cancel() -> None:
        wait_in_database(
            url,
            "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
            "AND query LIKE '%sleep(60)' AND pid <> pg_backend_pid())",
        )
        client.cancel_safe(timeout=5)

    with ThreadPoolExecutor() as pool:
        cancelling = pool.submit(cancel)
        with pytest.raises(psycopg.errors.QueryCanceled):
            client.execute("SELECT pg_sleep(60)")
        cancelling.result()
    assert proxy.opened == 1


@pytest.mark.parametrize(
    ("kind", "round_trips"),
    [("simple", 1), ("unprepared", 1), ("async", 1), ("transaction", 3), ("pipeline", 1)],
)
def test_round_trips_and_statements_are_counted(
    proxy: PostgresProxy, kind: str, round_trips: int
) -> None:
    with inserting(kind, proxy.url) as insert:
        insert(1)  # prepares, where the kind does
        proxy.reset_counts()
        insert(2)
        sent = proxy.statements
    assert proxy.round_trips == round_trips
    own = [sql for sql in sent if sql.startswith("INSERT")]
    assert len(own) == 1
    assert len(sent) == (3 if kind in {"transaction", "pipeline"} else 1)


def test_connections_are_counted(proxy: PostgresProxy) -> None:
    with psycopg.connect(proxy.url), psycopg.connect(proxy.url):
        assert (proxy.opened, proxy.closed) == (2, 0)
        assert (proxy.round_trips, proxy.statements) == (0, [])
        with pytest.raises(TimeoutError, match=r"0 of 1 connections closed within 0\.01 s"):
            proxy.wait_until_closed(1, timeout=0.01)
    proxy.wait_until_closed(2)
    assert (proxy.opened, proxy.closed) == (2, 2)
