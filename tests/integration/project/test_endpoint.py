"""``make endpoint``: what it refuses, and how it ends."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from tests.support.checkout import ROOT
from tests.support.commands import run
from tests.support.dsql.server import CHOSEN, ON_DSQL, beside

from dsql_outbox.outbox import Database
from dsql_outbox.schema import check

SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)'"
COMMAND = [sys.executable, "-m", "tests.support.dsql"]


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ("", "set DSQL_OUTBOX_TEST_SERVER, or run make endpoint"),
        ("dsql-17", "DSQL_OUTBOX_TEST_SERVER is 'dsql-17': set dsql-16 or dsql-18, or nothing"),
    ],
)
def test_it_refuses_to_be_what_it_is_not(server: str, told: str) -> None:
    env = {"DSQL_OUTBOX_TEST_SERVER": server}
    done = run(env=env, program=("-m", "tests.support.dsql"))
    assert (done.code, done.out, done.err.strip()) == (1, b"", told)


@pytest.mark.skipif(not ON_DSQL, reason="it needs .venv/conformance")
@pytest.mark.usefixtures("postgres")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_tables_and_ends_in_order(number: signal.Signals) -> None:
    assert CHOSEN
    with subprocess.Popen(
        COMMAND, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url, told = (process.stdout.readline().strip() for _ in range(2))
        assert check(Database(url)) == []
        process.send_signal(number)
        _, err = process.communicate(timeout=30)  # its servers hold its stderr until they end
    assert (process.returncode, err) == (0, "")
    assert "Ctrl-C ends" in told


@pytest.mark.skipif(not ON_DSQL, reason="it needs .venv/conformance")
def test_a_cancel_request_reaches_the_session(outbox_url: str) -> None:
    with (
        Database(outbox_url).connect() as connection,
        psycopg.connect(beside(outbox_url), autocommit=True) as look,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(connection.execute, "SELECT pg_sleep(30)")
        while look.execute(SLEEPING).fetchall() == [(0,)]:
            pass
        connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            running.result()
