"""What the function leaves of its session: it is clean when the next call gets it, or closed."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from tests.support.waiting import wait_until
from tests.support.writer.callers import QUICK

from dsql_outbox.inbox import AsyncInbox, Inbox
from dsql_outbox.outbox import Database
from dsql_outbox.writer import AsyncWriter, Writer

pytestmark = [pytest.mark.anyio, pytest.mark.postgres_only("pg_stat_activity")]


@pytest.fixture
def rows(url: str) -> str:
    """A table for the effects of functions, by the number of their call."""
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("CREATE TABLE IF NOT EXISTS public.effects_by_call (call int)")
        sql.execute("TRUNCATE public.effects_by_call")
    return url


def calls_with_rows(url: str) -> list[int]:
    """The calls whose effects are stored."""
    with psycopg.connect(url) as sql:
        found = sql.execute("SELECT call FROM public.effects_by_call ORDER BY call")
        return [call for (call,) in found]


def until_none_is_open(url: str) -> None:
    """Wait until no session of the database is in a transaction, but the one that asks."""
    with psycopg.connect(url, autocommit=True) as sql:
        wait_until(lambda: not _open_transactions(sql))


def _open_transactions(sql: psycopg.Connection) -> int:
    return sql.execute(
        "SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    ).rowcount


async def insert(connection: Any, call: int) -> None:
    await connection.execute("INSERT INTO public.effects_by_call VALUES (%s)", (call,))


async def fails_beside_a_pipeline(connection: psycopg.AsyncConnection[Any]) -> None:
    """Raise while a sibling task is in its pipeline, as `gather` does not cancel it."""
    is_open, is_over = asyncio.Event(), asyncio.Event()

    async def part() -> None:
        with suppress(Exception):
            async with connection.pipeline():
                await (await connection.execute("SELECT 1")).fetchone()
                is_open.set()
                await is_over.wait()

    async def fails() -> None:
        await is_open.wait()
        raise LookupError

    task = asyncio.current_task()
    assert task is not None
    task.add_done_callback(lambda _: is_over.set())
    await asyncio.gather(part(), fails())


async def fails_in_an_open_pipeline(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.pipeline().__aenter__()
    raise LookupError


@pytest.mark.parametrize("fails", [fails_beside_a_pipeline, fails_in_an_open_pipeline])
@pytest.mark.parametrize("ways", ["transact", "once"])
async def test_no_call_commits_what_a_failed_one_left_in_a_pipeline(
    rows: str, ways: str, fails: Callable[[Any], Awaitable[None]]
) -> None:
    async def first(connection: Any) -> None:
        await insert(connection, 1)
        await fails(connection)

    async def second(connection: Any) -> None:
        await insert(connection, 2)

    database = Database(rows)
    if ways == "transact":
        async with AsyncWriter(database, QUICK) as writer:
            with pytest.raises(LookupError):
                await writer.transact(lambda each: first(each.connection))
            until_none_is_open(rows)
            await writer.transact(lambda each: second(each.connection))
    else:
        async with AsyncInbox(database, "mailer") as inbox:
            with pytest.raises(LookupError):
                await inbox.once("m1", first)
            until_none_is_open(rows)
            assert (await inbox.once("m2", second)).ran
            assert (await inbox.once("m1", second)).ran
    assert calls_with_rows(rows) == ([2] if ways == "transact" else [2, 2])


@pytest.mark.parametrize("ways", ["transact", "once"])
def test_no_call_of_a_thread_commits_what_a_failed_one_left_in_a_pipeline(
    rows: str, ways: str
) -> None:
    kept: list[Any] = []

    def first(connection: Any) -> None:
        connection.execute("INSERT INTO public.effects_by_call VALUES (1)")
        kept.append(connection.pipeline())
        kept[0].__enter__()
        raise LookupError

    def second(connection: Any) -> None:
        connection.execute("INSERT INTO public.effects_by_call VALUES (2)")

    database = Database(rows)
    if ways == "transact":
        with Writer(database, QUICK) as writer:
            with pytest.raises(LookupError):
                writer.transact(lambda each: first(each.connection))
            until_none_is_open(rows)
            writer.transact(lambda each: second(each.connection))
    else:
        with Inbox(database, "mailer") as inbox:
            with pytest.raises(LookupError):
                inbox.once("m1", first)
            until_none_is_open(rows)
            assert inbox.once("m2", second).ran
            assert inbox.once("m1", second).ran
    assert calls_with_rows(rows) == ([2] if ways == "transact" else [2, 2])
