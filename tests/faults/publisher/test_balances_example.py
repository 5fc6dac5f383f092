"""The example of a read model: exact balances after kills, replays and a rebuild."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from random import Random
from uuid import UUID

import anyio
import psycopg
import pytest
from tests.support.checkout import ROOT
from tests.support.publisher.running_relays import count
from tests.support.waiting import wait_until

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher import Messages, Selection
from dsql_outbox.schema import apply
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "examples" / "read_model"
ACCOUNTS = [f"account-{n}" for n in range(6)]
PAYMENTS = 240
COMMAND = str(Path(sys.executable).parent / "dsql-outbox")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(database_url: str) -> Iterator[Start]:
    """Start a command in the example's folder; all end with the test."""
    environment = os.environ | {"DSQL_OUTBOX_DATABASE": database_url}
    with ExitStack() as processes:

        def start(*command: str) -> subprocess.Popen[str]:
            process = processes.enter_context(
                subprocess.Popen(
                    command, cwd=EXAMPLE, env=environment, text=True, stderr=subprocess.PIPE
                )
            )
            processes.callback(process.kill)
            return process

        yield start


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def balances(sql: psycopg.Connection) -> dict[str, int]:
    return {account: int(n) for account, n in sql.execute("SELECT * FROM public.balances")}


def pay_all(database: Database) -> tuple[dict[str, int], list[UUID]]:
    """Write all payments; returns the balances after them, and the ids."""
    random, wanted, ids = Random(20261125), Counter[str](), []
    with Writer(database) as writer:
        for n in range(PAYMENTS):
            payer, payee = random.sample(ACCOUNTS, 2)
            entities = [Entity("Account", each, {"amount": str(n)}) for each in (payer, payee)]
            ids.append(writer.write(Event.new("Money Paid", "MoneyPaid", entities)).event_id)
            wanted.update({payer: -n, payee: n})
    return dict(wanted), ids


async def replay(database: Database, ids: list[UUID]) -> None:
    async with Messages(database) as tool:
        async for _ in tool.replay(Selection(ids=tuple(ids)), reason="test", target="balances"):
            pass


def test_the_balances_are_exact_whatever_is_killed_and_replayed(
    start: Start, database_url: str, sql: psycopg.Connection
) -> None:
    database = Database(database_url)
    apply(database, shards=4)
    python = sys.executable
    assert start(python, "balances.py", "create").wait(30) == 0
    assert start(COMMAND, "targets", "drop", "default", "--yes").wait(30) == 0
    wanted, ids = pay_all(database)
    running = [start(python, "balances.py", "run") for _ in range(2)]
    for kill, left in zip(cycle((0, 1)), (200, 120, 60), strict=False):
        wait_until(lambda left=left: count(sql, "outbox") <= left, timeout=60)
        running[kill].kill()
        running[kill] = start(python, "balances.py", "run")
        anyio.run(replay, database, ids[:left])
    wait_until(lambda: count(sql, "outbox") == 0, timeout=60)
    assert balances(sql) == wanted
    refused = start(COMMAND, "read-model", "rebuild", "--apply", "balances:apply")
    assert refused.wait(30) == 1
    assert "a publisher runs: stop every publisher" in read(refused)
    for each in running:
        each.kill()
    rebuild_in_parts(start, sql)
    assert balances(sql) == wanted


def rebuild_in_parts(start: Start, sql: psycopg.Connection) -> None:
    """Empty the table, and rebuild it with one Ctrl-C in the middle."""
    assert start(sys.executable, "balances.py", "clear").wait(30) == 0
    sql.execute("UPDATE outbox.outbox_leases SET expires_at = now() - interval '1 hour'")
    command = (COMMAND, "read-model", "rebuild", "--apply", "balances:apply")
    first = start(*command)
    wait_until(lambda: count(sql, "inbox") >= 10, timeout=30)
    first.send_signal(signal.SIGINT)
    code, told = first.wait(30), read(first)
    if code == 0:  # it was done before the signal came
        return
    assert code == 130
    (place,) = re.findall(r"command with --after (\S+)", told)
    second = start(*command, "--after", place)
    assert second.wait(30) == 0, read(second)


def read(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.read()


def test_the_readme_names_the_commands() -> None:
    text = Path(EXAMPLE / "README.md").read_text()
    assert "dsql-outbox read-model rebuild --apply balances:apply" in text
