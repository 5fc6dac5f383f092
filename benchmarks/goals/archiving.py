"""An archive of a large table beside a steady writer."""

import json
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT
from statistics import quantiles
from tempfile import TemporaryDirectory
from threading import Event as Flag
from threading import Thread
from time import perf_counter, sleep
from typing import IO, Final

import psycopg
from benchmarks.relay.rows import new_database

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.outbox.archive.archive_file import ArchiveFile
from dsql_outbox.outbox.archive.place import open_place
from dsql_outbox.writer import Writer

from .conditions import Conditions

_WRITES: Final = 500
_THREADS: Final = 4
_KIB: Final = 1024
_FACTS: Final = ", ".join(ArchiveFile.__struct_fields__)
_BYTES: Final = """SELECT (SELECT coalesce(sum(octet_length(event_data::text)), 0)
    + sum(octet_length(touches::text)) + coalesce(sum(octet_length(headers::text)), 0)
    FROM outbox.business_events WHERE id = ANY(%(ids)s))
  + (SELECT coalesce(sum(octet_length(header_data::text)), 0) FROM outbox.event_headers
    WHERE event_id = ANY(%(ids)s))"""


def archive(conditions: Conditions) -> list[float]:
    """The default: the writer's p99 to that of alone, and events per second; then all the rest.

    That is events per second without rests, MiB, the share of JSON that stays, and losses.
    """
    url = new_database(conditions.server, "archive")
    events, seconds = conditions.sizes.load, conditions.sizes.seconds
    with Writer(Database(url)) as writer:
        for start in range(0, events, 2_000):
            writer.write_many([_event(n) for n in range(start, min(events, start + 2_000))])
    alone, beside, paced = list[float](), list[float](), 0
    with psycopg.connect(url, autocommit=True) as sql, TemporaryDirectory() as folder:
        sql.execute("DELETE FROM outbox.outbox")
        sql.execute("VACUUM ANALYZE")
        ids = [row[0] for row in sql.execute("SELECT id FROM outbox.business_events LIMIT 5000")]
        before = _size(sql, ids)
        (cut,) = sql.execute("SELECT now()::text").fetchone() or ("",)
        words = ("--before", cut.replace(" ", "T"), "--to", f"{folder}/a", "--database", url)
        for _ in range(conditions.sizes.rounds):
            with _writing(url, alone):
                sleep(seconds)
            with _archiving(sql, words), _writing(url, beside):
                done = _archived(sql)
                sleep(seconds)
                paced += _archived(sql) - done
        with _writing(url, []):
            began = perf_counter()
            peak, archived = _archive(folder, *words, "--rate", "1000000")
            took = perf_counter() - began
        share = _size(sql, ids) / before
        lost = _lost(sql, folder)
    ratio = quantiles(beside, n=100)[98] / quantiles(alone, n=100)[98]
    paced_rate = paced / (seconds * conditions.sizes.rounds)
    return [ratio, paced_rate, archived / took, peak, share, lost]


def _event(n: int) -> Event:
    return Event.new("CarMoved", [Entity("Car", f"C-{n % 9_973}", {"t": "x" * 200})])


def _size(sql: psycopg.Connection, ids: list[object]) -> float:
    (size,) = sql.execute(_BYTES, {"ids": ids}).fetchone() or (0,)
    return float(size)


@contextmanager
def _writing(url: str, times: list[float]) -> Generator[None]:
    """Write `_WRITES` events a second during the block; adds their seconds to `times`."""
    ended = Flag()

    def work(seed: int) -> None:
        pause = _THREADS / _WRITES
        with Writer(Database(url)) as writer:
            due = perf_counter()
            for n in range(seed * 1_000_000, (seed + 1) * 1_000_000):
                began = perf_counter()
                writer.write(_event(n))
                times.append(perf_counter() - began)
                due = max(due + pause, perf_counter() - 1)
                if ended.wait(max(0.0, due - perf_counter())):
                    return

    threads = [Thread(target=work, args=(seed,)) for seed in range(_THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@contextmanager
def _archiving(sql: psycopg.Connection, words: Sequence[str]) -> Generator[None]:
    """Run the command during the block, from its first file on."""
    done = _archived(sql)
    process = _command(*words, output=subprocess.DEVNULL)
    while _archived(sql) == done:
        if process.poll() is not None:
            raise RuntimeError("the archive ended before its first file")
        sleep(0.01)
    try:
        yield
    finally:
        process.send_signal(SIGINT)
        process.wait()


def _archived(sql: psycopg.Connection) -> int:
    (events,) = sql.execute("SELECT sum(events) FROM outbox.outbox_archives").fetchone() or (0,)
    return int(events or 0)


def _command(*words: str, output: int | IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dsql_outbox", "archive", *words]
    return subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)


def _archive(folder: str, *words: str) -> tuple[float, int]:
    """Run the command. Returns its peak of memory in MiB, and how many events it archived."""
    told = Path(folder) / "told.json"
    with told.open("wb") as output:
        process = _command(*words, "--json", output=output)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the archive ended with {process.returncode}")
    return usage.ru_maxrss / _KIB, json.loads(told.read_bytes())["events"]


def _lost(sql: psycopg.Connection, folder: str) -> int:
    """How many events have no bytes: neither in the table nor in the file that they name."""
    place, found = open_place(f"{folder}/a"), set[object]()
    for row in sql.execute(f"SELECT {_FACTS} FROM outbox.outbox_archives"):
        found |= {(each.id, row[0]) for each in ArchiveFile.from_columns(row).read(place)}
    rows = sql.execute("SELECT id, archive FROM outbox.business_events WHERE event_data IS NULL")
    return len({*rows.fetchall()} ^ found)
