"""The life of targets as a user has it: all commands, real brokers, judged by SQL."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import anyio
import psycopg
import pytest
from tests.support.brokers.readable_brokers import FileBroker, NatsBroker
from tests.support.checkout import ROOT
from tests.support.waiting import wait_until

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.schema import apply
from dsql_outbox.testing import NatsServer
from dsql_outbox.testing.sink_contract import ReadableBroker
from dsql_outbox.writer import Writer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.postgres_only("DSQL lists no transactions, so 5 minutes are waited for"),
]

COMMAND = str(Path(sys.executable).parent / "dsql-outbox")
SUBJECTS = 23

MODELS = """
async def first(connection, message):
    await count(connection, message, "public.moves")

async def second(connection, message):
    await count(connection, message, "public.moves_2")

async def count(connection, message, table):
    await connection.execute(
        f"INSERT INTO {table} AS m VALUES (%s, 1, %s) ON CONFLICT (car) DO UPDATE SET"
        " number = m.number + 1, last ="
        " CASE WHEN m.last = excluded.last - 1 THEN excluded.last ELSE -1 END",
        (message.key, int(message.headers["sequence"])),
    )
"""

WRONG = """SELECT * FROM
  (SELECT 'Car/' || subject_id AS car, count(*) AS number, max(subject_version) AS last
   FROM outbox.business_events GROUP BY 1) AS truth
FULL JOIN public.{} AS model USING (car, number, last)
WHERE truth.car IS NULL OR model.car IS NULL"""

LOST = """SELECT id FROM outbox.business_events
EXCEPT SELECT event_id FROM received WHERE broker = %s"""

OUT_OF_ORDER = """SELECT * FROM (
  SELECT subject, version, lag(version) OVER (PARTITION BY subject ORDER BY number) AS before
  FROM (SELECT subject, version, min(n) AS number FROM received
    WHERE broker = %s GROUP BY 1, 2) AS first_ones
) AS firsts WHERE version <> coalesce(before, 0) + 1"""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(database_url: str, tmp_path: Path) -> Iterator[Start]:
    """Start a command of the user; all end with the test."""
    (tmp_path / "story_models.py").write_text(MODELS)
    environment = os.environ | {"DSQL_OUTBOX_DATABASE": database_url, "PYTHONPATH": str(tmp_path)}
    with ExitStack() as processes:

        def start(*words: str) -> subprocess.Popen[bytes]:
            command = [COMMAND, *words]
            process = processes.enter_context(
                subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
            )
            processes.callback(process.kill)
            return process

        yield start


@pytest.fixture
def writing(database_url: str) -> Iterator[Flag]:
    """Write events of all cars, in the background, until the flag is set."""
    apply(Database(database_url), shards=4)
    ended = Flag()

    def work() -> None:
        number = 0
        with Writer(Database(database_url)) as writer:
            while not ended.wait(0.4):
                cars = [f"C-{(number + n) % SUBJECTS}" for n in range(3)]
                writer.write_many([Event.new("M", [Entity("Car", car)]) for car in cars])
                number += len(cars)

    thread = Thread(target=work)
    thread.start()
    yield ended
    ended.set()
    thread.join()


def test_two_brokers_and_a_model_live_through_a_dead_broker_a_new_version_and_more_shards(
    start: Start, database_url: str, writing: Flag, tmp_path: Path
) -> None:
    def done(*words: str) -> None:
        assert start(*words).wait(120) == 0, words

    def applying(target: str, function: str) -> subprocess.Popen[bytes]:
        return start("publish", "--target", target, "--apply", f"story_models:{function}")

    lake = FileBroker(tmp_path / "lake.jsonl")
    with (
        psycopg.connect(database_url, autocommit=True) as sql,
        NatsServer(tmp_path / "nats") as bus,
    ):
        for table in ("moves", "moves_2"):
            query = f"CREATE TABLE public.{table} (car text PRIMARY KEY, number int, last int)"
            sql.execute(query.encode())
        broker = NatsBroker(bus)
        start("publish", "--sink", broker.url)
        done("targets", "add", "lake", "--from-start")
        start("publish", "--target", "lake", "--sink", lake.url)
        done("targets", "add", "moves", "--kind", "model", "--from-start")
        old = applying("moves", "first")
        wait_until(lambda: waiting(sql, "moves") < 50 and applied(sql) > 30, timeout=180)

        bus.kill()
        before = applied(sql)
        wait_until(lambda: applied(sql) > before + 30, timeout=180)
        wait_until(lambda: waiting(sql, "default") > 9, timeout=60)
        done("targets", "add", "moves_2", "--kind", "model", "--from-start")
        applying("moves_2", "second")
        done("schema", "apply", "--shards", "7")
        bus.start()
        wait_until(lambda: waiting(sql, "moves_2") < 50, timeout=180)
        done("targets", "list")

        writing.set()
        for target in ("default", "lake", "moves", "moves_2"):
            wait_until(lambda target=target: waiting(sql, target) == 0, timeout=180)
        old.terminate()
        assert old.wait(60) == 0
        for table in ("moves", "moves_2"):
            assert sql.execute(WRONG.format(table).encode()).fetchall() == []
        done("targets", "drop", "moves", "--yes")
        judge(sql, {"bus": broker, "lake": lake})
        assert sql.execute("SELECT count(*) FROM outbox.outbox").fetchall() == [(0,)]
        shards = "SELECT shard / 1024, count(*) FROM outbox.outbox_leases GROUP BY 1 ORDER BY 1"
        assert sql.execute(shards).fetchall() == [(0, 7), (1, 7), (3, 7)]


def judge(sql: psycopg.Connection, brokers: dict[str, ReadableBroker]) -> None:
    """Each broker got each event, and the first deliveries of each subject came in order."""
    sql.execute(
        "CREATE TABLE received (n bigserial, broker text, event_id uuid, subject text, version int)"
    )
    for name, broker in brokers.items():
        for found in anyio.run(broker.stored):
            row = (name, found.headers["id"], found.headers["subject"])
            sql.execute(
                "INSERT INTO received (broker, event_id, subject, version) VALUES (%s, %s, %s, %s)",
                (*row, int(found.headers["sequence"])),
            )
        assert sql.execute(LOST, (name,)).fetchall() == []
        assert sql.execute(OUT_OF_ORDER, (name,)).fetchall() == []


def waiting(sql: psycopg.Connection, target: str) -> int:
    """How many messages of a target wait; many, while it does not run."""
    query = """SELECT count(*) FROM outbox.outbox o JOIN outbox.outbox_targets t
        ON o.shard BETWEEN t.first_shard AND t.first_shard + 1023 WHERE t.name = %s"""
    row = sql.execute(query, (target,)).fetchone()
    return row[0] if row else 0


def applied(sql: psycopg.Connection) -> int:
    """How many messages the model has applied."""
    row = sql.execute("SELECT coalesce(sum(number), 0) FROM public.moves").fetchone()
    return int(row[0]) if row else 0
