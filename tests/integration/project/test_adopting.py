"""The README of examples/adopting, run: from own tables, under load, to a relay that took over."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event as Flag
from types import ModuleType
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.sql import SQL
from tests.support.checkout import ROOT
from tests.support.database_roles import as_role
from tests.support.publisher.given_up_messages import relay_all
from tests.support.publisher.running_relays import count
from tests.support.service_tables import create, new_event, own_events, polled, write_as_before
from tests.support.waiting import wait_until

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FOLDER = ROOT / "examples" / "adopting"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")
CARS = [("Car", f"CAR-{n}") for n in range(4)]
LOANS = [("Loan", f"LOAN-{n}") for n in range(2)]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", TEXT, re.MULTILINE | re.DOTALL)


def sql_with(text: str) -> str:
    (found,) = [block for block in blocks("sql") if text in block]
    return found


@pytest.fixture
def dual(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The guide's Python: what the block says is what the file says."""
    monkeypatch.syspath_prepend(str(FOLDER))
    code = (FOLDER / "dual.py").read_text(encoding="utf-8")
    assert code in blocks("python")
    import dual  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

    return dual


@pytest.fixture(params=["text, repeatable read", "jsonb, read committed"])
def kind(request: pytest.FixtureRequest) -> list[str]:
    """The own tables' JSON, and the isolation level: as on Aurora DSQL, and as on PostgreSQL."""
    return str(request.param).split(", ")


@pytest.fixture
def url(database_url: str, kind: list[str]) -> str:
    level = kind[1].replace(" ", "\\ ")
    sign = "&" if "?" in database_url else "?"
    as_app = as_role(database_url, "app")
    return f"{as_app}{sign}options={quote(f'-c default_transaction_isolation={level}')}"


@pytest.fixture
def sql(database_url: str, kind: list[str]) -> Iterator[psycopg.Connection]:
    """The own tables, ours, and what the guide prepares; the service is the role `app`."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        create(connection, kind[0])
        with suppress(psycopg.errors.DuplicateObject):
            connection.execute("CREATE ROLE app")
        password = urlsplit(database_url).password
        connection.execute(SQL("ALTER ROLE app LOGIN PASSWORD {}").format(password))
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
        for command in blocks("sh")[0].splitlines():
            words = [*shlex.split(command)[1:], "--database", database_url]
            done = CliRunner().invoke(main, words)
            assert done.exit_code == 0, done.output
        connection.execute(sql_with("CREATE TABLE adopting").encode())
        yield connection


def backfill(url: str, *options: str) -> "subprocess.Popen[str]":
    (command,) = [b for b in blocks("sh") if "backfill.py" in b]
    script = command.replace("python ", f"exec {sys.executable} ", 1).strip()
    return subprocess.Popen(
        ["bash", "-c", f"{script} {' '.join(options)}"],
        cwd=ROOT,
        env={**os.environ, "URL": url},
        stderr=subprocess.PIPE,
        text=True,
    )


def brought(url: str, *options: str) -> int:
    with backfill(url, *options) as process:
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    return int(re.findall(r"^brought (\d+), refused", said, re.MULTILINE)[0])


def write(writer: Writer, dual: ModuleType, *entities: tuple[str, str], **data: Any) -> UUID:
    """The new path, as the guide has it; the event is dated when its entities are locked."""
    event = new_event(entities, **data)

    def stored(transaction: Any) -> None:
        for about in sorted((e["entityHeader"] for e in event["entities"]), key=str):
            dual.lock(transaction.connection, about)
        event["eventHeader"]["savedDate"] = new_event([])["eventHeader"]["savedDate"]
        dual.store(transaction, event)

    writer.transact(stored)
    return UUID(event["eventHeader"]["uuid"])


def streams(sql: psycopg.Connection) -> dict[tuple[str, str], list[UUID]]:
    """Each entity's events by version, after a look that versions have no gap."""
    found: dict[tuple[str, str], list[UUID]] = defaultdict(list)
    query = """SELECT entity_type, entity_id, entity_version, event_id FROM outbox.event_headers
        ORDER BY entity_type, entity_id, entity_version"""
    for kind, entity, version, event_id in sql.execute(query):
        found[kind, entity].append(event_id)
        assert version == len(found[kind, entity])
    return found


def own_order(sql: psycopg.Connection, dual: ModuleType) -> dict[str, list[UUID]]:
    """Each entity's events as they were stored: all were dated while it was locked."""
    found: dict[str, list[UUID]] = defaultdict(list)
    query = """SELECT id, event_data::text FROM business_events
        ORDER BY coalesce(saved_date, created_date), id"""
    for own_id, data in sql.execute(query):
        for entity in json.loads(data)["entities"]:
            found[entity["id"]].append(dual.event_uuid(own_id))
    return found


class Load:
    """Writers that go on until they are told to stop, some on the old path and some on the new."""

    def __init__(self, url: str, dual: ModuleType) -> None:
        self.url = url
        self.dual = dual
        self.written: list[UUID] = []
        self._stop_old, self._stop = Flag(), Flag()
        self._pool = ThreadPoolExecutor(4)
        self._running = [
            self._pool.submit(run, seed) for seed in range(2) for run in (self._old, self._new)
        ]

    def _old(self, seed: int) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            n = seed
            while not self._stop_old.wait(0.02):
                n += 1
                with suppress(psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                    write_as_before(connection, [CARS[n % 4], *(LOANS if n % 5 == 0 else ())], n=n)

    def _new(self, seed: int) -> None:
        with Writer(Database(self.url)) as writer:
            n = seed
            while not self._stop.wait(0.02):
                n += 1
                others = LOANS[:1] if n % 3 == 0 else ()
                fresh = ("Car", f"CAR-new-{seed}-{n}")
                entity = fresh if n % 7 == 0 else CARS[n % 4]
                # Refused, or too many conflicts: nothing is stored then, which is looked at.
                with suppress(self.dual.NotAdopted, psycopg.errors.SerializationFailure):
                    self.written.append(write(writer, self.dual, entity, *others, n=n))

    def more(self, events: int) -> None:
        """Wait until the new path has written some more."""
        goal = len(self.written) + events
        wait_until(lambda: len(self.written) >= goal or self._broken(), timeout=30)

    def _broken(self) -> bool:
        return any(f.done() and f.exception() for f in self._running)

    def stop_old(self) -> None:
        """The rollout is complete; writers of the old path have committed what they had."""
        self._stop_old.set()
        for future in self._running[::2]:
            future.result(30)

    def stop(self) -> None:
        self._stop_old.set()
        self._stop.set()
        for future in self._running:
            future.result(30)
        self._pool.shutdown()


def history(sql: psycopg.Connection, events: int) -> None:
    """What was stored before: some without a UUID, some without a date."""
    for n in range(events):
        own_id = f"event-{n}" if n % 10 == 3 else None
        entities = [CARS[n % 4], *(LOANS if n % 6 == 0 else ())]
        write_as_before(sql, entities, own_id=own_id, dated=n % 25 != 7, n=n)


async def test_a_service_adopts_the_outbox_under_load_and_nothing_is_lost_doubled_or_reordered(
    sql: psycopg.Connection, url: str, database_url: str, dual: ModuleType
) -> None:
    history(sql, 240)
    load = Load(url, dual)
    try:
        load.more(10)
        with backfill(url, "--rows", "20") as process:
            wait_until(lambda: count(sql, "business_events") > 60, timeout=30)
            process.kill()
            said = process.communicate()[1]
        assert process.returncode == -9, said
        assert count(sql, "business_events") < len(own_events(sql))
        load.more(10)
        assert brought(url, "--rows", "20") > 100
        load.stop_old()
        brought(url)
        load.more(20)
        assert count(sql, "outbox") == 0
        sql.execute(sql_with("relayed = true").encode())
        load.more(5)
        wait_until(lambda: sql.execute(sql_with("pg_stat_activity").encode()).fetchone() == (0,))
        brought(url)
        load.more(40)
    finally:
        load.stop()
    assert brought(url) == 0
    assert sql.execute(sql_with("(h.id IS NULL) =").encode()).fetchone() == (0,)

    by_poller = polled(sql)
    sink = MemorySink()
    await relay_all(Database(database_url), sink)
    relayed = [message.event_id for message in sink.messages]
    ours = {i for (i,) in sql.execute("SELECT id FROM outbox.business_events")}
    everything = {dual.event_uuid(own_id) for own_id in own_events(sql)}
    assert ours == everything >= set(load.written)
    assert len(relayed) == len(set(relayed)) >= 40
    assert set(relayed) == {
        i for i in everything if i not in by_poller and str(i) in own_events(sql)
    }
    places = {event_id: n for n, event_id in enumerate(relayed)}
    stored = own_order(sql, dual)
    for (_, entity), stream in streams(sql).items():
        assert stream == stored[entity]
        after = [event_id in places for event_id in stream]
        assert after == sorted(after), "the poller's come before the relay's"
    assert_states(sql)


def assert_states(sql: psycopg.Connection) -> None:
    """Entities are as their last event left them, and hold the last positions as subjects."""
    query = """SELECT e.version = h.last AND e.event_id = b.id
          AND e.entity_data->>'n' = b.event_data->'entities'->0->>'n'
          AND e.position = coalesce(s.position, 0) AND (s.shard IS NULL OR s.shard = e.shard)
        FROM outbox.entities e
        JOIN (SELECT entity_type, entity_id, max(entity_version) AS last
          FROM outbox.event_headers GROUP BY 1, 2) h USING (entity_type, entity_id)
        JOIN outbox.event_headers l ON l.entity_type = e.entity_type
          AND l.entity_id = e.entity_id AND l.entity_version = h.last
        JOIN outbox.business_events b ON b.id = l.event_id
        LEFT JOIN (SELECT subject_type, subject_id, max(position) AS position, min(shard) AS shard
          FROM outbox.business_events GROUP BY 1, 2) s
          ON s.subject_type = e.entity_type AND s.subject_id = e.entity_id"""
    rows = sql.execute(query).fetchall()
    assert rows
    assert set(rows) == {(True,)}
