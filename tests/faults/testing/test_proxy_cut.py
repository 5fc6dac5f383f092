"""Connections that end before, while and after a statement is answered."""

from typing import Any

import psycopg
import pytest
from psycopg.errors import OperationalError
from tests.support.proxy import wire_protocol as wire
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.proxy_clients import (
    KINDS,
    SyncClient,
    inserting,
    own_socket,
    rows,
    wait_for_row,
    wait_in_database,
)

in_every_way = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.pairs
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("where", ["before", "mid_answer"])
@in_every_way
def test_a_cut_ends_the_connection(
    proxy: PostgresProxy, url: str, kind: str, where: Any, reset: bool
) -> None:
    with inserting(kind, proxy.url) as insert:
        insert(1)
        proxy.cut(where, reset=reset)
        with pytest.raises(OperationalError):
            insert(2)
        proxy.wait_until_closed(1)
    # The answer to an INSERT in a transaction of several round trips is not that to its COMMIT.
    stored = where != "before" and kind != "transaction"
    assert rows(url) == ([1, 2] if stored else [1])


@in_every_way
def test_an_answer_can_be_lost_after_the_commit(proxy: PostgresProxy, url: str, kind: str) -> None:
    matching = "COMMIT" if kind == "transaction" else "INSERT"
    with inserting(kind, proxy.url) as insert:
        proxy.cut("after_commit", matching=matching)
        with pytest.raises(OperationalError):
            insert(1)
        assert rows(url) == [1]  # at once: the cut came after the answer


@in_every_way
def test_a_statement_can_arrive_though_its_client_was_cut(
    proxy: PostgresProxy, url: str, kind: str
) -> None:
    matching = "COMMIT" if kind == "transaction" else "INSERT"
    with psycopg.connect(url) as other, inserting(kind, proxy.url) as insert:
        insert(0)  # prepares, where the kind does
        if kind != "transaction":
            other.execute("LOCK TABLE t")  # the server cannot answer, and the cut does not wait
        proxy.cut("after_sent", matching=matching)
        with pytest.raises(OperationalError):
            insert(1)
        other.rollback()
        wait_for_row(url, 1)


def test_a_reset_is_a_reset(proxy: PostgresProxy) -> None:
    proxy.cut("before", reset=True)
    proxy.cut("before", reset=False)
    with psycopg.connect(proxy.url) as client, own_socket(client) as stream:
        stream.sendall(wire.query("INSERT INTO t VALUES (1)").raw)
        with pytest.raises(ConnectionResetError):
            stream.recv(100)
    with psycopg.connect(proxy.url) as client, own_socket(client) as stream:
        stream.sendall(wire.query("INSERT INTO t VALUES (1)").raw)
        assert stream.recv(100) == b""


def test_what_a_client_sent_after_the_cut_is_lost_too(
    client: SyncClient, proxy: PostgresProxy, url: str
) -> None:
    proxy.cut("before", matching="VALUES (1)")
    with own_socket(client) as stream:
        stream.sendall(
            wire.query("INSERT INTO t VALUES (1)").raw + wire.query("INSERT INTO t VALUES (2)").raw
        )
        assert stream.recv(100) == b""
    wait_in_database(
        url,
        "(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) = 1",
    )
    assert rows(url) == []
