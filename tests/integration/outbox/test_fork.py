"""A forked child never uses its parent's connections, and works by opening its own."""

import json
import os
import subprocess
import sys
import threading
from time import monotonic
from typing import Any

import pytest
from psycopg.abc import PQGenConn
from psycopg.waiting import Wait
from tests.support.writer.checked_tables import Tables
from tests.support.writer.forking_process import WRITES

from dsql_outbox.outbox.database.connection import _until_deadline, connecting_until
from dsql_outbox.outbox.database.fork import held_forks

pytestmark = pytest.mark.client

TIMEOUT = 30.0


def told_by(kind: str, url: str) -> dict[str, Any]:
    """What a process and its child were told; see `tests.support.writer.forking_process`."""
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "tests.support.writer.forking_process",
        kind,
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["status"] == 0, "the child failed"
    return found


def stored(tables: Tables) -> dict[str, list[int]]:
    return {str(row["id"]): [1, row["position"], row["subject_version"]] for row in tables.events()}


@pytest.mark.parametrize("kind", ["threads", "asyncio", "coalescing"])
def test_parent_and_child_get_receipts_of_their_own_events(
    url: str, tables: Tables, kind: str
) -> None:
    found = told_by(kind, url)
    parent, child, again = found["parent"], found["child"], found["again"]
    assert (len(parent), len(child)) == (WRITES, WRITES)
    assert {**parent, **child, **again} == stored(tables)
    tables.assert_consistent()


def test_a_fork_within_a_transaction_leaves_it_to_the_parent(url: str, tables: Tables) -> None:
    found = told_by("inside", url)
    assert "belongs to the process that opened it" in found["child"]["error"]
    assert found["child"]["closed"]
    assert found["again"] == stored(tables)


@pytest.mark.postgres_only("asks which sessions hold leases")
def test_a_child_touches_nothing_of_the_publisher_that_it_inherits(
    url: str, tables: Tables
) -> None:
    found = told_by("publisher", url)
    for use in ("run", "read"):
        assert "a forked child must make its own" in found["child"][use]
    assert (found["delivered"], len(found["shards"])) == (2, 16)
    leases = tables.execute("SELECT DISTINCT owner, epoch FROM outbox.outbox_leases")
    assert leases == [{"owner": None, "epoch": 1}], "taken once, and released by the parent"


def test_a_fork_waits_for_a_step_that_opens_a_connection() -> None:
    """It runs without Python's lock; a lock of OpenSSL that it has would stay locked in a child."""
    begun, let_go, done = (threading.Event() for _ in range(3))

    def step() -> PQGenConn[None]:
        begun.set()
        assert let_go.wait(TIMEOUT)
        done.set()
        yield 0, Wait.R

    def connect() -> None:
        with connecting_until(monotonic() + TIMEOUT):
            next(_until_deadline(step()))

    thread = threading.Thread(target=connect)
    thread.start()
    assert begun.wait(TIMEOUT)
    threading.Timer(0.1, let_go.set).start()
    if (child := os.fork()) == 0:
        os._exit(0 if held_forks._steps == 0 else 1)
    assert done.is_set()
    assert os.waitpid(child, 0)[1] == 0
    thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whether a thread is gone")
def test_a_fork_waits_until_a_thread_that_opened_a_connection_is_gone() -> None:
    """It has a lock of OpenSSL as it ends."""
    ends, let_go, gone = (threading.Event() for _ in range(3))

    class Last:
        def __del__(self) -> None:
            ends.set()
            let_go.wait(TIMEOUT)
            gone.set()

    kept = threading.local()

    def work() -> None:
        kept.last = Last()
        held_forks.thread_ends()

    thread = threading.Thread(target=work)
    thread.start()
    assert ends.wait(TIMEOUT)
    threading.Timer(0.1, let_go.set).start()
    if (child := os.fork()) == 0:
        os._exit(0)
    assert gone.is_set()
    assert os.waitpid(child, 0)[1] == 0
    thread.join()
