"""Which statements are prepared, under which name, and what happens when a session disagrees."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import psycopg
import pytest
from tests.support.inboxes import new_received
from tests.support.writer.callers import QUICK

from dsql_outbox.inbox import Inbox
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.exchange import PREPARE_AFTER, exchange, numbered, rows_of
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.postgres_only("asks pg_prepared_statements, and prepares in SQL")

QUERY = numbered("answer", b"SELECT %(value)s::text")


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with Database(database_url).connect() as connection:
        yield connection


def answer(connection: Connection) -> bytes | None:
    result = connection.wait(exchange(connection, QUERY, QUERY.encode({"value": "x"})))
    ((found,),) = rows_of(result)
    return found


def prepared(connection: Connection) -> list[bytes]:
    rows = connection.execute("SELECT name FROM pg_prepared_statements ORDER BY name").fetchall()
    return [name.encode() for (name,) in rows]


def test_a_name_is_of_one_text() -> None:
    """Behind a pooler another schema's writer has prepared its statement in the same session."""
    one, two = (numbered("event", b"SELECT * FROM %s.t" % schema) for schema in (b"one", b"two"))
    assert one.name.startswith(b"event_")
    assert one.name != two.name
    assert len(one.name) < 64
    assert numbered("event", one.query) == one


def test_what_another_client_of_the_session_has_prepared_is_prepared(
    connection: Connection,
) -> None:
    connection.pgconn.prepare(QUERY.name, QUERY.text)
    assert [answer(connection) for _ in range(PREPARE_AFTER + 3)] == [b"x"] * (PREPARE_AFTER + 3)
    assert prepared(connection) == [QUERY.name]


def test_a_session_that_has_not_prepared_it_gets_the_text(connection: Connection) -> None:
    for _ in range(PREPARE_AFTER + 1):
        answer(connection)
    assert prepared(connection) == [QUERY.name]
    connection.execute("DEALLOCATE ALL")
    assert answer(connection) == b"x"
    assert prepared(connection) == []


def test_without_prepare_nothing_is_prepared(database_url: str) -> None:
    with Database(database_url, prepare=False).connect() as connection:
        for _ in range(PREPARE_AFTER + 3):
            assert answer(connection) == b"x"
        assert prepared(connection) == []


def test_the_driver_prepares_nothing_by_itself(connection: Connection) -> None:
    """Its names are numbers, which mean another statement in each client of a pooler."""
    for _ in range(2 * PREPARE_AFTER):
        connection.execute("SELECT %s::int", [1], prepare=True)
    assert prepared(connection) == []


def swallow(_: psycopg.Connection[Any], append: Callable[[], object]) -> None:
    with suppress(psycopg.Error):
        append()


def replace(_: psycopg.Connection[Any], append: Callable[[], object]) -> None:
    try:
        append()
    except psycopg.Error:
        raise LookupError from None


def in_a_savepoint(connection: psycopg.Connection[Any], append: Callable[[], object]) -> None:
    with connection.transaction():
        append()


def let_pass(_: psycopg.Connection[Any], append: Callable[[], object]) -> None:
    append()


WAYS: Final = {each.__name__: each for each in (let_pass, swallow, replace, in_a_savepoint)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("caller", ["transact", "once"])
def test_a_function_runs_again_with_the_text_if_its_session_has_lost_the_append(
    url: str, caller: str, way: str
) -> None:
    """Whatever it makes of the error. From then on nothing is prepared for functions."""
    runs: list[str] = []

    def function(connection: psycopg.Connection[Any], forgets: str) -> None:
        connection.execute(forgets.encode())
        found = connection.execute("SELECT name FROM pg_prepared_statements").fetchall()
        runs.append(",".join(name for (name,) in found))
        event = Event.new("CarSold", [Entity("Car", "C-1")])
        WAYS[way](connection, lambda: writer.append_to(connection, event))

    def call(forgets: str = "SELECT 1") -> int:
        before = len(runs)
        if caller == "transact":
            writer.transact(lambda tx: function(tx.connection, forgets))
        else:
            inbox.once(str(before), lambda connection: function(connection, forgets))
        return len(runs) - before

    with Writer(Database(url), QUICK) as writer, Inbox(Database(url), "consumer") as inbox:
        assert [call() for _ in range(PREPARE_AFTER + 2)] == [1] * (PREPARE_AFTER + 2)
        assert "event_write_one" in runs[-1]
        assert call("DEALLOCATE ALL") == 2
        assert [call("DEALLOCATE ALL") for _ in range(PREPARE_AFTER + 2)] == [1] * (
            PREPARE_AFTER + 2
        )
        assert call() == 1
        assert "event_write_one" not in runs[-1]
        versions = [event.version for event in writer.stream("Car", "C-1")]
    assert versions == list(range(1, 2 * PREPARE_AFTER + 7))


def test_messages_are_handled_together_though_their_session_has_lost_a_statement(url: str) -> None:
    with Inbox(Database(url), "consumer") as inbox:
        for n in range(PREPARE_AFTER + 3):
            messages = [new_received(2 * n + 1, 2 * n), new_received(2 * n + 2, 2 * n + 1)]
            found = inbox.once_many(messages, lambda session, _: session.execute("DEALLOCATE ALL"))
            assert [getattr(each, "ran", each) for each in found] == [True, True]
