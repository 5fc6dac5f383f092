"""The example for SQLAlchemy: orders are sent, it is killed, and they are sent again."""

import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Thread
from uuid import uuid4

import pytest
from tests.support.checkout import ROOT
from tests.support.proxy.postgres_proxy import OutboxProxy
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import ids

pytestmark = pytest.mark.slow

PROGRAM = ROOT / "examples" / "sqlalchemy" / "orders.py"
ORDERS = [{"id": str(uuid4()), "item": "book", "quantity": n} for n in range(200)]


@pytest.fixture
def own(tables: Tables) -> Iterator[Tables]:
    """The tables, and none of an earlier run of the example."""
    tables.execute("DROP TABLE IF EXISTS orders")
    yield tables
    tables.hang_up_all()
    tables.execute("DROP TABLE IF EXISTS orders")


@contextmanager
def running(database: str) -> Generator["subprocess.Popen[str]"]:
    """The program, ready for orders; killed at the end."""
    with subprocess.Popen(
        [sys.executable, PROGRAM],
        env=os.environ | {"DSQL_OUTBOX_DATABASE": database},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def send(process: "subprocess.Popen[str]") -> None:
    """Send all orders, unless the program ends before."""
    assert process.stdin is not None
    try:
        process.stdin.write("".join(json.dumps(order) + "\n" for order in ORDERS))
        process.stdin.close()
    except BrokenPipeError:
        process.stdin = None


def stored(tables: Tables) -> set[str]:
    return {str(row["id"]) for row in tables.execute("SELECT id FROM orders")}


def test_orders_of_a_killed_program_are_stored_once_with_their_events(
    own: Tables, url: str
) -> None:
    with running(url) as process:
        sender = Thread(target=send, args=[process])
        sender.start()
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().split()[0] for _ in range(50)]
        process.kill()
        sender.join()
    own.hang_up_all()
    assert set(acknowledged) <= stored(own) < {order["id"] for order in ORDERS}
    assert stored(own) == set(map(str, ids(own)))

    with running(url) as process:
        send(process)
        assert process.stdout is not None
        answers = [line.split(maxsplit=1)[1] for line in process.stdout]
        assert process.wait() == 0
    assert answers.count("stored before\n") >= len(acknowledged)
    assert answers.count("committed attempt 1\n") + answers.count("stored before\n") == len(ORDERS)
    assert stored(own) == set(map(str, ids(own))) == {order["id"] for order in ORDERS}
    own.assert_consistent()


def test_conflicts_and_a_lost_commit_are_nothing_that_a_client_sees(own: Tables, url: str) -> None:
    with OutboxProxy(url) as proxy, running(proxy.url) as process:
        lose = partial(proxy.cut, "after_commit", matching="COMMIT")
        proxy.conflicts(2)
        assert process.stdin is not None
        assert process.stdout is not None
        for order, answer in zip(ORDERS, ("attempt 3", "attempt 1"), strict=False):
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{order['id']} committed {answer}\n"
            proxy.before(lose, matching="INSERT INTO orders")  # the last statement before COMMIT
    assert len(stored(own)) == len(ids(own)) == 2
