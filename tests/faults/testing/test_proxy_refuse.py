"""Statements and commits that the proxy refuses in the server's name."""

import psycopg
import pytest
from psycopg import pq
from psycopg.errors import SerializationFailure, UniqueViolation
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.proxy_clients import (
    CONFLICT,
    INSERT,
    KINDS,
    SyncClient,
    in_one_go,
    inserting,
    rows,
)

in_every_way = pytest.mark.parametrize("kind", KINDS)


def is_idle(client: SyncClient) -> bool:
    return client.info.transaction_status == pq.TransactionStatus.IDLE


@in_every_way
def test_a_refused_statement_does_not_run_and_the_connection_goes_on(
    proxy: PostgresProxy, url: str, kind: str
) -> None:
    with inserting(kind, proxy.url) as insert:
        insert(1)
        for n in (2, 3):
            proxy.refuse()
            with pytest.raises(SerializationFailure, match=CONFLICT):
                insert(n)
            assert rows(url) == list(range(1, n))
            insert(n)
    assert rows(url) == [1, 2, 3]
    assert (proxy.opened, proxy.failures) == (1, [])


@in_every_way
def test_the_very_first_statement_can_be_refused(proxy: PostgresProxy, url: str, kind: str) -> None:
    proxy.refuse(2)
    with inserting(kind, proxy.url) as insert:
        for _ in range(2):
            with pytest.raises(SerializationFailure):
                insert(1)
        assert rows(url) == []
        insert(1)
    assert rows(url) == [1]


@pytest.mark.parametrize("sqlstate", ["OC000", "53300", None])
def test_a_refusal_has_the_state_and_text_that_were_asked_for(
    proxy: PostgresProxy, client: SyncClient, sqlstate: str | None
) -> None:
    proxy.refuse(sqlstate=sqlstate, message="not today")
    with pytest.raises(psycopg.Error, match="not today") as caught:
        client.execute(INSERT, [1])
    assert caught.value.diag.sqlstate == sqlstate
    assert caught.value.diag.message_primary == "not today"


def test_a_refusal_leaves_a_transaction_aborted(client: SyncClient, proxy: PostgresProxy) -> None:
    client.execute("BEGIN")
    client.execute(INSERT, [1])
    proxy.refuse()
    with pytest.raises(SerializationFailure):
        client.execute(INSERT, [2])
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        client.execute("SELECT 1")
    client.execute("ROLLBACK")
    assert client.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_only_matching_statements_are_refused_until_healed(
    client: SyncClient, proxy: PostgresProxy
) -> None:
    proxy.refuse(None, matching="insert INTO T")
    client.execute("SELECT 1")
    for _ in range(3):
        with pytest.raises(SerializationFailure):
            client.execute(INSERT, [1])
    proxy.heal()
    client.execute(INSERT, [1])


def test_an_error_of_the_servers_own_comes_through(
    client: SyncClient, proxy: PostgresProxy
) -> None:
    client.execute(INSERT, [1])
    proxy.refuse(matching="VALUES (2)")
    with pytest.raises(UniqueViolation):
        in_one_go(client, "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")


def test_a_batch_that_was_flushed_half_way_is_still_one(
    client: SyncClient, proxy: PostgresProxy
) -> None:
    with client.pipeline():
        assert client.execute("SELECT 1").fetchone() == (1,)  # asks with a Flush
        client.execute("SELECT 2")
    assert proxy.round_trips == 1
    proxy.refuse()
    with pytest.raises(SerializationFailure):
        client.execute(INSERT, [1])


def finish(client: SyncClient, way: str) -> None:
    if way == "pipeline":
        in_one_go(client, "BEGIN", "INSERT INTO t VALUES (1)", "COMMIT")
    else:
        client.execute("BEGIN")
        client.execute(INSERT, [1])
        before = "SELECT ';' -- no; end\n; " if way == "text" else ""
        client.execute(f"{before}COMMIT".encode(), prepare=way == "prepared")


@pytest.mark.parametrize("way", ["simple", "prepared", "pipeline", "text"])
def test_a_refused_commit_is_rolled_back(
    client: SyncClient, proxy: PostgresProxy, url: str, way: str
) -> None:
    client.prepare_threshold = 0 if way == "prepared" else None
    proxy.refuse(2, at="commit")
    for _ in range(2):
        with pytest.raises(SerializationFailure, match=CONFLICT):
            finish(client, way)
        assert is_idle(client)
        with psycopg.connect(url) as other:  # no lock is left behind, and no row
            other.execute("SET lock_timeout = '1s'")
            other.execute("LOCK TABLE t")
            assert other.execute("SELECT count(*) FROM t").fetchone() == (0,)
    finish(client, way)
    assert rows(url) == [1]


def test_each_statement_of_a_text_is_listed_and_those_before_a_refused_one_run(
    client: SyncClient, proxy: PostgresProxy, url: str
) -> None:
    proxy.reset_counts()
    proxy.refuse(matching="VALUES (2)")
    with pytest.raises(SerializationFailure, match=CONFLICT):
        client.execute("INSERT INTO t VALUES (1); COMMIT; INSERT INTO t VALUES (2);")
    assert [sql.strip() for sql in proxy.statements] == [
        *("INSERT INTO t VALUES (1)", "COMMIT", "INSERT INTO t VALUES (2)")
    ]
    assert proxy.round_trips == 1
    client.rollback()
    assert rows(url) == [1]


def test_a_refused_commit_is_one_round_trip(client: SyncClient, proxy: PostgresProxy) -> None:
    proxy.refuse(at="commit")
    with pytest.raises(SerializationFailure):
        finish(client, "pipeline")
    assert proxy.round_trips == 1


def test_the_commit_of_another_transaction_is_not_refused(
    client: SyncClient, proxy: PostgresProxy
) -> None:
    client.execute(INSERT, [1])
    proxy.refuse(at="commit")
    with client.transaction():
        client.execute("SELECT 1")
    with pytest.raises(SerializationFailure), client.transaction():
        client.execute(INSERT, [2])


def test_a_fault_of_no_times_never_comes(proxy: PostgresProxy, url: str) -> None:
    """A test that counts its faults may count none."""
    ran: list[int] = []
    proxy.refuse(0)
    proxy.cut("before", 0)
    proxy.stall(0)
    proxy.before(lambda: ran.append(1), 0)
    proxy.refuse_connections(0)
    with psycopg.connect(proxy.url, autocommit=True) as connection:
        for n in range(3):
            connection.execute(INSERT, (n,))
    assert (rows(url), ran) == ([0, 1, 2], [])
