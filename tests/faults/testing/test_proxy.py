"""What a fault of the proxy does to the database: tests of faults stand on it.

That a fault comes at all, they see themselves: each of them counts what it leads to.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import pq
from psycopg.errors import OperationalError, SerializationFailure, UniqueViolation
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.proxy_clients import (
    CONFLICT,
    INSERT,
    KINDS,
    SyncClient,
    in_one_go,
    inserting,
    rows,
    wait_for_row,
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


@pytest.mark.parametrize(
    ("kind", "round_trips"),
    [("simple", 1), ("unprepared", 1), ("async", 1), ("transaction", 3), ("pipeline", 1)],
)
def test_round_trips_and_statements_are_counted(
    proxy: PostgresProxy, kind: str, round_trips: int
) -> None:
    with inserting(kind, proxy.url) as insert:
        insert(1)  # prepares, where the kind does
        proxy.reset_counts()
        insert(2)
        sent = proxy.statements
    assert proxy.round_trips == round_trips
    own = [sql for sql in sent if sql.startswith("INSERT")]
    assert len(own) == 1
    assert len(sent) == (3 if kind in {"transaction", "pipeline"} else 1)
