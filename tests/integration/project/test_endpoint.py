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
from dsql_outbox.schema.comparison import check

SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)'"
MANY = (
    "INSERT INTO outbox.outbox_leases (shard, epoch) SELECT n, 0"
    f" FROM (VALUES {', '.join(f'({n})' for n in range(100, 3_101))}) v (n)"
)
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


@pytest.mark.skipif(not ON_DSQL, reason="it needs .venv/conformance")
@pytest.mark.parametrize(
    ("steps", "sqlstate", "told"),
    [
        (["TRUNCATE outbox.outbox"], "0A000", "unsupported statement: Truncate"),
        (["CREATE TABLE a (id serial)"], "42704", 'type "serial" does not exist'),
        (
            ["ALTER TABLE outbox.outbox VALIDATE CONSTRAINT a"],
            "0A000",
            "unsupported ALTER TABLE VALIDATE CONSTRAINT statement",
        ),
        (
            ["BEGIN", "CREATE TABLE outbox.a (id int)", "CREATE TABLE outbox.b (id int)"],
            "0A000",
            "multiple ddl statements not supported in a transaction",
        ),
        (
            ["CREATE TABLE a (id int); INSERT INTO a VALUES (1)"],
            "0A000",
            "ddl and dml are not supported in the same transaction",
        ),
        (["BEGIN", MANY], "54000", "transaction row limit exceeded"),
    ],
    ids=lambda value: value[-1][:30] if isinstance(value, list) else None,
)
@pytest.mark.parametrize("prepared", [False, True])
def test_the_words_of_a_cluster_come_before_those_of_ministack(
    outbox_url: str, steps: list[str], sqlstate: str, told: str, prepared: bool
) -> None:
    with Database(outbox_url).connect() as connection:
        connection.prepare_threshold = 0 if prepared and ";" not in steps[0] else None
        for step in steps[:-1]:
            connection.execute(step.encode())
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(steps[-1].encode())
    assert (refused.value.sqlstate, refused.value.diag.message_primary) == (sqlstate, told)
