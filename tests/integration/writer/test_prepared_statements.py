"""Which statements are prepared, under which name, and what happens when a session disagrees."""

from collections.abc import Iterator

import pytest

from dsql_outbox.outbox import Database
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.exchange import PREPARE_AFTER, exchange, numbered, rows_of

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
