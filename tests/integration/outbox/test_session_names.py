"""``pg_stat_activity`` says what each session of the library is for."""

from datetime import timedelta

import anyio
import psycopg
import pytest
from tests.support.commands import Command
from tests.support.console_clients import browsing
from tests.support.outbox_databases import KEEPER
from tests.support.waiting import wait_until

from dsql_outbox.inbox import Inbox
from dsql_outbox.operations import StatusReader
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher import Publisher
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import AsyncWriter, Writer

pytestmark = [pytest.mark.anyio, pytest.mark.postgres_only("pg_stat_activity")]

NAMES = "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()"


async def check_names(url: str, database: Database, *names: str) -> None:
    """Let every part of the library work on a database, until their sessions have the names."""
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True, application_name="us") as sql,
        AsyncWriter(database) as writer,
        StatusReader(database) as reader,
        browsing(database) as browser,
        anyio.create_task_group() as tasks,
    ):
        with Writer(database) as other, Inbox(database, "mailer") as inbox:
            await writer.write(Event.new("CarMoved", [Entity("Car", "a")]))
            other.write(Event.new("CarMoved", [Entity("Car", "b")]))
            inbox.prune(timedelta(days=1))
            await reader.read()
            await browser.get("/")
            tasks.start_soon(Publisher(database, MemorySink()).run)
            with anyio.fail_after(30):
                while await _names(sql) != set(names):  # noqa: ASYNC110 - a state of the server
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()


async def _names(sql: psycopg.AsyncConnection) -> set[str]:
    found = await (await sql.execute(NAMES)).fetchall()
    return {name for (name,) in found} - {"us", KEEPER}


async def test_sessions_are_named_after_what_they_do(outbox_url: str) -> None:
    parts = ("console", "inbox", "operator", "publisher", "writer")
    await check_names(outbox_url, Database(outbox_url), *(f"dsql-outbox {each}" for each in parts))


def test_a_command_of_an_operator_names_itself_too(outbox_url: str) -> None:
    with (
        psycopg.connect(outbox_url, application_name="us") as holder,
        psycopg.connect(outbox_url, application_name="us", autocommit=True) as sql,
    ):
        holder.execute("LOCK outbox.outbox_leases")
        with Command("status", "--database", outbox_url) as command:

            def names() -> set[str]:
                return {name for (name,) in sql.execute(NAMES).fetchall()} - {"us", KEEPER}

            wait_until(lambda: names() == {"dsql-outbox operator status"})
            holder.rollback()
            assert command.wait().code == 0


async def test_the_name_of_a_url_stays(outbox_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGAPPNAME", "shop")
    await check_names(outbox_url, Database(outbox_url), "shop")
    own = f"{outbox_url}?application_name=billing"
    await check_names(outbox_url, Database(own), "billing")
