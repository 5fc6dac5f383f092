"""The example of a read model: exact balances after kills and replays, and in a new version."""

import os
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
from tests.support.waiting import wait_until

from dsql_outbox.operations import Messages, Selection
from dsql_outbox.outbox import Database, Entity, Event
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


def balances(sql: psycopg.Connection, model: str = "balances") -> dict[str, int]:
    rows = sql.execute(f"SELECT * FROM public.{model}".encode())
    return {account: int(n) for account, n in rows}


def waiting(sql: psycopg.Connection, target: int) -> int:
    """How many messages of a target wait."""
    query = "SELECT FROM outbox.outbox WHERE shard / 1024 = %s"
    return len(sql.execute(query, (target,)).fetchall())


def pay_all(database: Database) -> tuple[dict[str, int], list[UUID]]:
    """Write all payments; returns the balances after them, and the ids."""
    random, wanted, ids = Random(20261125), Counter[str](), []
    with Writer(database) as writer:
        for n in range(PAYMENTS):
            payer, payee = random.sample(ACCOUNTS, 2)
            entities = [Entity("Account", each, {"amount": str(n)}) for each in (payer, payee)]
            ids.append(writer.write(Event.new("MoneyPaid", entities)).event_id)
            wanted.update({payer: -n, payee: n})
    return dict(wanted), ids


async def replay(database: Database, ids: list[UUID]) -> None:
    async with Messages(database) as tool:
        async for _ in tool.replay(Selection(ids=tuple(ids)), target="balances"):
            pass


def test_the_balances_are_exact_whatever_is_killed_and_replayed_and_in_a_new_version(
    start: Start, database_url: str, sql: psycopg.Connection
) -> None:
    database = Database(database_url)
    apply(database, shards=4)
    python = sys.executable
    assert start(COMMAND, "targets", "add", "balances", "--kind", "model").wait(30) == 0
    assert start(COMMAND, "targets", "drop", "default", "--yes").wait(30) == 0
    assert start(python, "balances.py", "create", "balances").wait(30) == 0
    wanted, ids = pay_all(database)
    running = [start(python, "balances.py", "run", "balances") for _ in range(2)]
    for kill, left in zip(cycle((0, 1)), (200, 120, 60), strict=False):
        wait_until(lambda left=left: waiting(sql, 1) <= left, timeout=60)
        running[kill].kill()
        running[kill] = start(python, "balances.py", "run", "balances")
        anyio.run(replay, database, ids[:left])
    wait_until(lambda: waiting(sql, 1) == 0, timeout=60)
    assert balances(sql) == wanted
    assert start(python, "balances.py", "create", "balances_2").wait(30) == 0
    fill = ("targets", "add", "balances_2", "--kind", "model", "--from-start")
    assert start(COMMAND, *fill).wait(60) == 0
    start(python, "balances.py", "run", "balances_2")
    pay_all(database)
    wait_until(lambda: waiting(sql, 1) == waiting(sql, 2) == 0, timeout=60)
    wanted = {account: 2 * number for account, number in wanted.items()}
    assert balances(sql) == balances(sql, "balances_2") == wanted
    assert start(COMMAND, "targets", "drop", "balances", "--yes").wait(60) == 0


def test_the_readme_names_the_commands() -> None:
    text = Path(EXAMPLE / "README.md").read_text()
    assert "dsql-outbox targets add balances_2 --kind model --from-start" in text
