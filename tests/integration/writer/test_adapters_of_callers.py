"""Adapters of psycopg that a caller has registered, and servers that a caller chose."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import psycopg
import pytest
from psycopg.adapt import AdaptersMap, Dumper, Loader
from psycopg.types.string import StrBinaryDumper, StrBinaryDumperVarchar, StrDumper
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import refusing_server, workload_s
from tests.support.writer.callers import QUICK
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import ids

from dsql_outbox.inbox import Inbox
from dsql_outbox.outbox import Database, Event, Receipt
from dsql_outbox.writer import Transaction, Writer
from dsql_outbox.writer.tuned_settings import TunedSettings

pytestmark = pytest.mark.client

AUTO: TunedSettings = replace(QUICK, form="auto", coalesce=0, backlog_check=None)

DUMPERS = [StrDumper, StrBinaryDumper, StrBinaryDumperVarchar]
"""Those that say of which type a text is. psycopg's own dumper leaves it to the statement."""


class Shout(Loader):
    """Loads any value as something that the library does not expect."""

    def load(self, data: Any) -> str:
        """Return the server's text, in blanks."""
        return f" {bytes(data).decode()} "


def adapt(connection: Any, dumper: type[Dumper]) -> None:
    """Register a dumper, and loaders of what an append returns, on a connection."""
    connection.adapters.register_dumper(str, dumper)
    for kind in ("int4", "int8"):
        connection.adapters.register_loader(kind, Shout)


@pytest.fixture(params=DUMPERS)
def dumper(request: pytest.FixtureRequest) -> type[Dumper]:
    """A dumper of texts."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=["connection", "process"])
def mine(
    request: pytest.FixtureRequest, url: str, dumper: type[Dumper], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A connection of the caller, with adapters of its own or of its process."""
    if request.param == "process":
        of_process = AdaptersMap(psycopg.postgres.adapters)
        of_process.register_dumper(str, dumper)
        monkeypatch.setattr(psycopg.postgres, "adapters", of_process)
    with psycopg.connect(url) as connection:
        if request.param == "connection":
            adapt(connection, dumper)
        yield connection


def within(connection: Any, place: str) -> AbstractContextManager[Any]:
    return connection.pipeline() if place == "pipeline" else nullcontext()  # type: ignore[no-any-return]


@pytest.mark.parametrize("place", ["alone", "pipeline"])
@pytest.mark.parametrize("form", ["single", "plain"])
def test_append_to_stores_the_event_whatever_the_adapters(
    mine: Any, url: str, tables: Tables, form: Literal["single", "plain"], place: str
) -> None:
    events = [workload_s.car_created(), workload_s.three_entities()]
    with Writer(Database(url), replace(QUICK, form=form)) as writer:
        with within(mine, place):
            receipts = [writer.append_to(mine, event) for event in events]
        mine.commit()
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})


@pytest.mark.parametrize("form", ["single", "plain"])
def test_transact_stores_events_whatever_the_adapters(
    url: str, tables: Tables, dumper: type[Dumper], form: Literal["single", "plain"]
) -> None:
    events = [workload_s.car_created(), workload_s.three_entities()]

    def function(transaction: Transaction) -> list[Receipt]:
        adapt(transaction.connection, dumper)
        receipts = [transaction.append(event) for event in events]
        found = transaction.entity("Car", "CAR-1")
        assert found is not None
        assert found.version == 2
        return receipts

    with Writer(Database(url), replace(QUICK, form=form)) as writer:
        receipts = writer.transact(function)
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})


def test_a_message_is_remembered_whatever_the_adapters(mine: Any, url: str) -> None:
    with Inbox(Database(url), "consumer") as inbox:
        assert inbox.remember(mine, "a")
        assert not inbox.remember(mine, "a")
        mine.commit()
        assert not inbox.once("a", lambda _: None).ran


@pytest.mark.parametrize("sqlstate", ["42804", "0A000", "42601"])
@pytest.mark.parametrize("method", ["append_to", "transact"])
def test_what_one_connection_refuses_does_not_change_the_form_of_the_writer(
    proxy: PostgresProxy, tables: Tables, sqlstate: str, method: str
) -> None:
    event = workload_s.car_created()
    with Writer(Database(proxy.url), AUTO) as writer, psycopg.connect(proxy.url) as mine:
        writer.write(workload_s.car_created("CAR-2"))
        proxy.refuse(1, sqlstate=sqlstate, message="not here", matching="business_events")
        with pytest.raises(psycopg.Error) as raised:
            _append(writer, mine, method, event)
        assert raised.value.sqlstate == sqlstate
        assert not writer._core.statements.is_plain
        mine.rollback()
        _append(writer, mine, method, event)
        mine.commit()
    assert event.id in ids(tables)


@pytest.mark.parametrize("method", ["append_to", "transact"])
def test_what_the_server_refuses_to_the_writer_itself_changes_the_form(
    url: str, tables: Tables, method: str
) -> None:
    refusing_server.refuse(tables.execute, "0A000")
    event = workload_s.car_created()
    with Writer(Database(url), AUTO) as writer, psycopg.connect(url) as mine:
        if method == "append_to":
            with pytest.raises(psycopg.errors.FeatureNotSupported):
                writer.append_to(mine, event)
            mine.rollback()
        _append(writer, mine, method, event)
        mine.commit()
        assert writer._core.statements.is_plain
    refusing_server.accept(tables.execute)
    assert ids(tables) == {event.id}


def _append(writer: Writer, mine: Any, method: str, event: Event) -> None:
    if method == "append_to":
        writer.append_to(mine, event)
    else:
        writer.transact(lambda transaction: transaction.append(event))
