"""Clients of many kinds, for tests of the proxy."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg

SyncClient: TypeAlias = psycopg.Connection[Any]

INSERT = "INSERT INTO t (n) VALUES (%s)"
CONFLICT = r"change conflicts with another transaction, please retry: \(OC000\)"
KINDS = ["simple", "unprepared", "prepared", "transaction", "pipeline", "async", "async prepared"]


@contextmanager
def inserting(kind: str, url: str) -> Iterator[Callable[[int], None]]:
    """One connection, and a function that inserts a row over it in the way `kind`."""
    if kind.startswith("async"):
        with asyncio.Runner() as runner:
            connection = runner.run(psycopg.AsyncConnection.connect(url, autocommit=True))
            prepare = kind == "async prepared"

            async def insert(n: int) -> None:
                await connection.execute(INSERT, [n], prepare=prepare)

            yield lambda n: runner.run(insert(n))
            runner.run(connection.close())
    else:
        with psycopg.connect(url, autocommit=True) as client:
            yield lambda n: insert_sync(kind, client, n)


def insert_sync(kind: str, client: SyncClient, n: int) -> None:
    match kind:
        case "simple":
            client.execute(f"INSERT INTO t (n) VALUES ({n})")
        case "unprepared":
            client.execute(INSERT, [n], prepare=False)
        case "prepared":
            client.execute(INSERT, [n], prepare=True)
        case "transaction":
            with client.transaction():
                client.execute(INSERT, [n])
        case _:
            insert_in_one_go(client, n)


def insert_in_one_go(client: SyncClient, n: int) -> None:
    try:
        with client.pipeline():
            client.execute("BEGIN")
            client.execute(INSERT, [n], prepare=True)
            client.execute("COMMIT")
    except psycopg.Error:
        if not client.closed:
            client.execute("ROLLBACK")
        raise


def in_one_go(client: SyncClient, *statements: str) -> None:
    with client.pipeline():
        for sql in statements:
            client.execute(sql)


def rows(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]


def wait_in_database(url: str, condition: str) -> None:
    """Wait until the SQL `condition` is true; five seconds at most."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET statement_timeout = '5s'")
        connection.execute(
            f"DO $$ BEGIN WHILE NOT ({condition}) LOOP PERFORM pg_sleep(0.005); "
            "PERFORM pg_stat_clear_snapshot(); COMMIT; END LOOP; END $$"
        )


def wait_for_row(url: str, n: int) -> None:
    wait_in_database(url, f"EXISTS (SELECT FROM t WHERE n = {n})")
