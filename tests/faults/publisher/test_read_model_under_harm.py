"""A read model stays exactly right while its publishers are killed."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from random import Random

import anyio
import psycopg
import pytest
from tests.support.checkout import ROOT
from tests.support.commands import Command
from tests.support.publisher.running_relays import count, event, only_model
from tests.support.waiting import wait_until

from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply
from dsql_outbox.writer import Writer

PUBLISHERS, CARS, EVENTS, KILLS = 3, 7, 420, 8

Start = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def start(database_url: str) -> Iterator[Start]:
    """Start a process that applies events; all end with the test."""
    command = [sys.executable, "-m", "tests.support.publisher.applying_process"]
    command += [database_url, "model"]
    with ExitStack() as processes:

        def start() -> subprocess.Popen[bytes]:
            process = processes.enter_context(subprocess.Popen(command, cwd=ROOT))
            processes.callback(process.kill)
            return process

        yield start


@pytest.mark.slow
def test_each_event_changes_the_read_model_once_and_in_order_whatever_is_killed(
    start: Start, database_url: str
) -> None:
    database = Database(database_url)
    apply(database, shards=4)
    anyio.run(only_model, database)
    with psycopg.connect(database_url, autocommit=True) as sql, Writer(database) as writer:
        write_and_kill(start, writer, sql)
        wait_until(lambda: count(sql, "outbox") == 0, timeout=60)
        moved = model(sql)
    assert moved == {f"Car/car-{n}": (EVENTS // CARS, EVENTS // CARS) for n in range(CARS)}


def write_and_kill(start: Start, writer: Writer, sql: psycopg.Connection) -> None:
    """Write all events; after each part of them, kill a publisher that has begun to apply it."""
    sql.execute("CREATE TABLE moves (car text PRIMARY KEY, number int NOT NULL, last int NOT NULL)")
    random = Random(20261125)
    running = [start() for _ in range(PUBLISHERS)]
    written = 0
    for kill in range(1, KILLS + 1):
        while written < EVENTS * kill // KILLS:
            writer.write(event(f"car-{written % CARS}", written))
            written += 1
        applied = count(sql, "outbox")
        wait_until(lambda before=applied: count(sql, "outbox") < before or not before, timeout=30)
        victim = running.pop(random.randrange(len(running)))
        victim.kill()
        running.append(start())


SLOW = """
import sys
import anyio
from tests.support.publisher.applying_process import SETTINGS, count_move
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Publisher
from dsql_outbox.schema import session

session.SHARED_CALL_TIMEOUT = 0.1
calls = 0

async def apply(connection, message):
    global calls
    await count_move(connection, message)
    if message.key == "Car/slow":
        calls += 1
        print(calls, flush=True)
        await anyio.sleep(float(sys.argv[2]))

anyio.run(Publisher(Database(sys.argv[1]), settings=SETTINGS, apply=apply, target="model").run)
"""
"""Applies events; those of one car take the given seconds, which are more than a batch has."""


def test_a_message_is_applied_once_whose_publisher_dies_while_it_is_applied_alone(
    outbox_url: str,
) -> None:
    database = Database(outbox_url)
    anyio.run(only_model, database)
    with psycopg.connect(outbox_url, autocommit=True) as sql, Writer(database) as writer:
        sql.execute("CREATE TABLE moves (car text PRIMARY KEY, number int, last int)")
        writer.write_many([event(car) for car in ("slow", "a", "slow", "b", "slow")])
        with Command(outbox_url, "inf", program=("-c", SLOW)) as dying:
            assert [dying.line(), dying.line()] == [b"1\n", b"2\n"]  # with others, and alone
            writer.write(event("a"))
            wait_until(lambda: model(sql) == {"Car/a": (2, 2), "Car/b": (1, 1)}, timeout=30)
            dying.signal(signal.SIGKILL)
            dying.wait()
        with Command(outbox_url, 0.3, program=("-c", SLOW)):
            wait_until(lambda: count(sql, "outbox") == 0, timeout=30)
        assert model(sql) == {"Car/a": (2, 2), "Car/b": (1, 1), "Car/slow": (3, 3)}


def model(sql: psycopg.Connection) -> dict[str, tuple[int, int]]:
    """How often each car moved, and the last version of it."""
    return {car: (number, last) for car, number, last in sql.execute("SELECT * FROM moves")}
