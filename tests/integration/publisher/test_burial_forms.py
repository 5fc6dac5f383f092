"""A dead letter is made in the form that the database takes, and both are the same."""

import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.given_up_messages import gathered
from tests.support.publisher.running_relays import relayed
from tests.support.writer.checked_tables import Row, Tables

from dsql_outbox.operations import Messages, Selection
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher import Publisher, Rejected, Retry
from dsql_outbox.publisher.relay.sql_store import SqlStore
from dsql_outbox.schema.burial import Letter
from dsql_outbox.schema.outbox_rows import RowId
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

BURY = "WITH gone AS"
STATES = [None, "0A000"]


@pytest.fixture
def event(url: str) -> Event:
    event = Event.new("CarSold", [Entity("Car", "C-1", {"text": "\x00"})])
    with Writer(Database(url)) as writer:
        writer.write(event)
    return event


def letters(tables: Tables) -> list[Row]:
    return tables.execute("SELECT * FROM outbox.dead_letters")


def refused(proxy: PostgresProxy, sqlstate: str | None) -> Database:
    if sqlstate is not None:
        proxy.refuse(None, sqlstate=sqlstate, message="not supported", matching=BURY)
    return Database(proxy.url)


@pytest.mark.parametrize("sqlstate", STATES)
async def test_a_rejected_message_becomes_a_dead_letter_in_both_forms(
    proxy: PostgresProxy, tables: Tables, event: Event, sqlstate: str | None
) -> None:
    (before,) = tables.execute("SELECT * FROM outbox.outbox")
    database, sink = refused(proxy, sqlstate), MemorySink()
    sink.fail(event.id, Rejected("no"))
    await Publisher(database, sink).run(until_empty=True)
    (letter,) = letters(tables)
    assert before.pop("payload") == event.to_json().decode()
    assert {name: letter[name] for name in before} == before
    assert "payload" not in letter
    assert (letter["error"], letter["attempts"], letter["replays"]) == ("no", 1, 0)
    assert tables.messages() == []
    assert sum(BURY in sql for sql in proxy.statements) == 1


@pytest.mark.parametrize("sqlstate", STATES)
async def test_an_operator_buries_in_both_forms(
    proxy: PostgresProxy, tables: Tables, event: Event, sqlstate: str | None
) -> None:
    database, sink = refused(proxy, sqlstate), MemorySink()
    sink.fail(event.id, Retry("later"))
    await relayed(database, sink, backoff_base=300.0)
    assert len(tables.execute("SELECT * FROM outbox.outbox_failures")) == 1
    selected = Selection(state="failing", ids=(event.id,))
    async with Messages(database) as messages:
        (buried,) = await gathered(messages.drop(selected))
        assert await gathered(messages.drop(selected)) == []
    assert buried.event_id == event.id
    assert [row["event_id"] for row in letters(tables)] == [event.id]
    assert tables.messages() == tables.execute("SELECT * FROM outbox.outbox_failures") == []


@pytest.mark.parametrize("sqlstate", STATES)
async def test_a_row_that_somebody_else_settles_meanwhile_does_not_die(
    proxy: PostgresProxy, tables: Tables, event: Event, sqlstate: str | None
) -> None:
    store = SqlStore(refused(proxy, sqlstate))
    await store.open()
    (row,) = tables.messages()
    key = RowId(row["shard"], row["position"], str(row["event_id"]))
    proxy.before(
        lambda: tables.connection.execute("DELETE FROM outbox.outbox").close(),
        matching=BURY if sqlstate is None else 'DELETE FROM "outbox".outbox',
    )
    await store.bury([Letter(key, "no", 1)])
    await store.close()
    assert letters(tables) == tables.messages() == []
    assert tables.events(event.id), "it stays stored"


BUSY = "XX000", "server unavailable"
TAKEN = "23505", 'duplicate key value violates unique constraint "dead_letters_pkey"'


@pytest.mark.parametrize(("error", "times"), [(BUSY, 2), (TAKEN, 7)], ids=str)
async def test_a_server_that_fails_has_not_refused_the_form(
    proxy: PostgresProxy, tables: Tables, event: Event, error: tuple[str, str], times: int
) -> None:
    """`TAKEN`: the messages of one event died in two targets within a microsecond."""
    sqlstate, message = error
    proxy.refuse(times, sqlstate=sqlstate, message=message, matching=BURY)
    sink = MemorySink()
    sink.fail(event.id, Rejected("no"))
    await Publisher(Database(proxy.url), sink).run(until_empty=True)
    assert len(letters(tables)) == 1
    assert sum(BURY in sql for sql in proxy.statements) == times + 1
    assert tables.messages() == []
