"""Every session speaks UTF-8, and what has no UTF-8 form is found before anything is sent."""

from collections.abc import Callable

import anyio
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer.callers import QUICK
from tests.support.writer.checked_tables import Tables

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.outbox.database.exchange import numbered
from dsql_outbox.writer import AsyncWriter, Transaction, Writer, WriterSettings

pytestmark = pytest.mark.client

SHOW = "SHOW client_encoding"


def with_option(url: str) -> str:
    return f"{url}?options=-c%20client_encoding%3Dlatin1"


def with_parameter(url: str) -> str:
    return f"{url}?client_encoding=latin1"


@pytest.mark.parametrize("changed", [with_option, with_parameter, str])
def test_a_session_is_utf8_whatever_url_and_environment_say(
    url: str, changed: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with Database(changed(url)).connect() as connection:
        assert connection.execute(SHOW).fetchone() == ("UTF8",)
        assert connection.is_clean


@pytest.mark.parametrize("settings", [QUICK, WriterSettings(coalesce=1)], ids=["alone", "together"])
def test_events_outside_the_encoding_of_the_environment_are_stored(
    url: str, tables: Tables, monkeypatch: pytest.MonkeyPatch, settings: WriterSettings
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    events = [Event.new("A", [Entity("Łódź", f"{n}", {"text": "日本"})]) for n in range(20)]

    async def write() -> None:
        async with (
            AsyncWriter(Database(url), settings) as writer,
            anyio.create_task_group() as tasks,
        ):
            for event in events:
                tasks.start_soon(writer.write, event)

    anyio.run(write)
    assert len(tables.events()) == 20


def test_a_session_whose_encoding_a_function_changed_is_not_used_again(
    proxy: PostgresProxy, tables: Tables
) -> None:
    def change(transaction: Transaction) -> None:
        transaction.connection.execute("SET client_encoding TO latin1")

    with Writer(Database(proxy.url)) as writer:
        writer.transact(change)
        writer.transact(lambda tx: tx.append(Event.new("A", [Entity("Łódź", "1")])))
    assert proxy.opened == 2
    assert [row["subject_type"] for row in tables.events()] == ["Łódź"]


def test_a_value_without_a_utf8_form_is_refused_before_it_can_be_sent() -> None:
    echo = numbered("echo", b"SELECT %(value)s::text")
    assert echo.encode({"value": "\u0141"}) == ["\u0141".encode()]
    with pytest.raises(UnicodeEncodeError):
        echo.encode({"value": "\ud800"})
