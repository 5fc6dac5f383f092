"""Statements that wait in the proxy, get lost there, or meet something first."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.errors import OperationalError, UniqueViolation
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.proxy_clients import (
    INSERT,
    KINDS,
    SyncClient,
    inserting,
    rows,
)

in_every_way = pytest.mark.parametrize("kind", KINDS)


@in_every_way
def test_a_held_statement_runs_when_released_though_its_client_has_gone(
    proxy: PostgresProxy, url: str, kind: str
) -> None:
    matching = "COMMIT" if kind == "transaction" else "INSERT"
    held = proxy.hold(matching=matching)
    with ThreadPoolExecutor() as pool, inserting(kind, proxy.url) as insert:
        inserted = pool.submit(insert, 1)
        held.arrived()
        proxy.cut_all()
        proxy.wait_until_closed(1)
        with pytest.raises(OperationalError):
            inserted.result(5)
        assert rows(url) == []
        held.release()
        assert rows(url) == [1]


def test_a_held_statement_can_go_on_as_if_nothing_was(
    proxy: PostgresProxy, client: SyncClient
) -> None:
    held = proxy.hold()
    with ThreadPoolExecutor() as pool:
        inserted = pool.submit(client.execute, INSERT, [1])
        held.arrived()
        assert not inserted.done()
        held.release()
        assert inserted.result(5).statusmessage == "INSERT 0 1"
    client.execute(INSERT, [2])


def test_a_held_statement_can_be_dropped(
    proxy: PostgresProxy, client: SyncClient, url: str
) -> None:
    held = proxy.hold()
    with ThreadPoolExecutor() as pool:
        inserted = pool.submit(client.execute, INSERT, [1])
        held.arrived()
        held.drop()
        with pytest.raises(OperationalError):
            inserted.result(5)
    assert rows(url) == []


def test_a_held_statement_whose_server_connection_dies_cannot_be_released(
    proxy: PostgresProxy, client: SyncClient, url: str
) -> None:
    held = proxy.hold()
    with ThreadPoolExecutor() as pool:
        inserted = pool.submit(client.execute, INSERT, [1])
        held.arrived()
        with psycopg.connect(url) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [client.info.backend_pid])
        with pytest.raises(psycopg.errors.AdminShutdown):
            inserted.result(5)
        with pytest.raises(ConnectionError, match="the server's connection was lost"):
            held.release()


def test_nothing_held_is_a_timeout(proxy: PostgresProxy) -> None:
    held = proxy.hold()
    with pytest.raises(TimeoutError):
        held.arrived(timeout=0.01)


@pytest.mark.anyio
async def test_an_async_test_can_hold_and_release(proxy: PostgresProxy) -> None:
    held = proxy.hold()
    async with await psycopg.AsyncConnection.connect(proxy.url, autocommit=True) as client:
        inserting = asyncio.create_task(client.execute(INSERT, [1]))
        await asyncio.to_thread(held.arrived)
        held.release()
        assert (await inserting).statusmessage == "INSERT 0 1"


def test_a_stalled_statement_is_lost_and_the_connection_stays(
    proxy: PostgresProxy, client: SyncClient, url: str
) -> None:
    proxy.stall()
    with ThreadPoolExecutor() as pool:
        inserted = pool.submit(client.execute, INSERT, [1])
        # Nothing will come: the client is seen waiting, with its statement sent.
        with psycopg.connect(proxy.url, autocommit=True) as other:
            while INSERT.replace("%s", "$1") not in proxy.statements:
                other.execute("SELECT 1")
            other.execute(INSERT, [2])  # only one was to be stalled
        assert not inserted.done()
        proxy.cut_all()
        with pytest.raises(OperationalError):
            inserted.result(5)
    assert rows(url) == [2]


@in_every_way
def test_a_competing_write_comes_first(proxy: PostgresProxy, url: str, kind: str) -> None:
    def compete() -> None:
        with psycopg.connect(url) as other:
            other.execute(INSERT, [1])

    proxy.before(compete)
    with inserting(kind, proxy.url) as insert:
        with pytest.raises(UniqueViolation):
            insert(1)
        insert(2)
    assert rows(url) == [1, 2]


def test_actions_come_before_faults_and_faults_in_the_order_they_were_set(
    proxy: PostgresProxy, client: SyncClient
) -> None:
    done: list[str] = []
    proxy.refuse(sqlstate="OC001")
    proxy.cut("before")
    proxy.before(lambda: done.append("first"), times=2)
    with pytest.raises(psycopg.DatabaseError) as caught:
        client.execute(INSERT, [1])
    assert (caught.value.sqlstate, done) == ("OC001", ["first"])
    with pytest.raises(OperationalError):
        client.execute(INSERT, [1])
    assert done == ["first", "first"]


def test_an_action_that_fails_is_not_forgotten(url: str) -> None:
    def fail() -> None:
        raise ZeroDivisionError("on purpose")

    def meet_it() -> None:
        with PostgresProxy(url) as proxy, psycopg.connect(proxy.url, autocommit=True) as client:
            proxy.before(fail)
            with pytest.raises(OperationalError):
                client.execute(INSERT, [1])

    with pytest.raises(ZeroDivisionError, match="on purpose"):
        meet_it()
    assert rows(url) == []
