"""Statements on libpq's own terms."""

from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.support.proxy.postgres_proxy import PostgresProxy

from dsql_outbox.outbox import Database
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.exchange import (
    PREPARE_AFTER,
    NumberedQuery,
    exchange,
    numbered,
    rows_of,
)

ECHO = numbered("echo", b"SELECT %(b)s::text, %(a)s::int, %(b)s::text || '%%' -- $3")


def run(
    connection: Connection, query: NumberedQuery, **values: str | None
) -> list[list[bytes | None]]:
    return rows_of(connection.wait(exchange(connection, query, query.encode(values))))


def test_a_query_is_numbered_in_the_order_of_its_first_mentions() -> None:
    assert ECHO.text == b"SELECT $1::text, $2::int, $1::text || '%' -- $3"
    assert ECHO.parameters == ("b", "a")


@pytest.mark.parametrize("times", [1, PREPARE_AFTER + 2])
def test_values_and_rows_are_text(url: str, times: int) -> None:
    with Database(url).connect() as connection:
        for _ in range(times):
            assert run(connection, ECHO, a="7", b="ä") == [["ä".encode(), b"7", "ä%".encode()]]
        assert run(connection, ECHO, a=None, b=None) == [[None, None, None]]


def test_tasks_run_it_as_threads_do(url: str) -> None:
    async def rows() -> list[list[bytes | None]]:
        async with await Database(url).connect_async() as connection:
            sent = exchange(connection, ECHO, ECHO.encode({"a": "7", "b": "x"}))
            return rows_of(await connection.wait(sent))

    assert anyio.run(rows) == [[b"x", b"7", b"x%"]]


@pytest.mark.parametrize("times", [0, PREPARE_AFTER])
def test_an_error_is_the_drivers_and_leaves_the_connection_whole(url: str, times: int) -> None:
    with Database(url).connect() as connection:
        for _ in range(times):
            run(connection, ECHO, a="7", b="x")
        with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="seven"):
            run(connection, ECHO, a="seven", b="x")
        assert run(connection, ECHO, a="7", b="x") == [[b"x", b"7", b"x%"]]


def test_a_statement_that_was_deallocated_is_prepared_anew(url: str) -> None:
    """psycopg sends DEALLOCATE ALL after a ROLLBACK, if it has prepared something itself."""
    with Database(url).connect() as connection:
        for _ in range(2):
            for _ in range(PREPARE_AFTER + 2):
                assert run(connection, ECHO, a="7", b="x") == [[b"x", b"7", b"x%"]]
            connection.execute("DEALLOCATE ALL")
        assert run(connection, ECHO, a="7", b="x") == [[b"x", b"7", b"x%"]]


def test_a_statement_that_cannot_be_prepared_says_so_at_its_first_execution(
    url: str,
) -> None:
    with (
        Database(url).connect() as connection,
        pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"),
    ):
        run(connection, numbered("wrong", b"SELECT FROM nowhere"))


@pytest.mark.postgres_only("DSQL takes no message over 10 MiB")
def test_a_large_value_gets_through_a_socket_that_takes_it_in_parts(url: str) -> None:
    large = "x" * (16 << 20)
    with Database(url).connect() as connection:
        assert run(connection, ECHO, a="1", b=large)[0][0] == large.encode()


@pytest.mark.postgres_only("ministack tells no process id of the server")
def test_a_connection_that_the_server_has_ended_raises_the_drivers_error(url: str) -> None:
    with Database(url).connect() as victim, Database(url).connect() as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [victim.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            run(victim, ECHO, a="1", b="x")
        assert victim.closed


def test_a_statement_takes_one_round_trip_and_one_more_to_be_prepared(
    proxy: PostgresProxy,
) -> None:
    with Database(proxy.url).connect() as connection:
        counts: list[int] = []
        for _ in range(PREPARE_AFTER + 2):
            before = proxy.round_trips
            run(connection, ECHO, a="1", b="x")
            counts.append(proxy.round_trips - before)
    assert counts == [1] * PREPARE_AFTER + [2, 1]


@pytest.mark.postgres_only("DSQL speaks UTF-8 only")
def test_a_database_in_another_encoding_gets_and_returns_utf8(url: str) -> None:
    name = f"latin_{uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(
            SQL(
                "CREATE DATABASE {} ENCODING 'LATIN1' TEMPLATE template0"
                " LC_COLLATE 'C' LC_CTYPE 'C'"
            ).format(Identifier(name))
        )
    with Database(urlsplit(url)._replace(path=f"/{name}").geturl()).connect() as latin:
        assert run(latin, ECHO, a="1", b="ä")[0][0] == "ä".encode()
        with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="ä"):
            run(latin, ECHO, a="ä", b="x")
