"""A forget job over a large table, beside a steady writer."""

import json
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from signal import SIGINT
from statistics import quantiles
from tempfile import TemporaryFile
from threading import Event as Flag
from threading import Thread
from time import perf_counter, sleep
from typing import IO, Final

import psycopg
from benchmarks.relay.rows import new_database

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.writer import Writer

from .conditions import Conditions

_WRITES: Final = 500
_THREADS: Final = 4
_KIB: Final = 1024
_DONE: Final = "SELECT coalesce(sum(forgotten), 0) FROM outbox.outbox_jobs"


def forget(conditions: Conditions) -> list[float]:
    """The default: the writer's p99 to that of alone, and events per second; then all the rest.

    That is events per second without rests, and MiB.
    """
    url = new_database(conditions.server, "forget")
    events, seconds = conditions.sizes.load, conditions.sizes.seconds
    with Writer(Database(url)) as writer:
        for start in range(0, events, 2_000):
            writer.write_many([_event(n) for n in range(start, min(events, start + 2_000))])
    alone, beside, paced = list[float](), list[float](), 0
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("DELETE FROM outbox.outbox")
        sql.execute("VACUUM ANALYZE")
        (cut,) = sql.execute("SELECT now()::text").fetchone() or ("",)
        words = ("--before", cut.replace(" ", "T"), "--yes", "--database", url)
        for _ in range(conditions.sizes.rounds):
            with _writing(url, alone):
                sleep(seconds)
            with _forgetting(sql, words), _writing(url, beside):
                done = _done(sql)
                sleep(seconds)
                paced += _done(sql) - done
        with _writing(url, []):
            began = perf_counter()
            peak, forgotten = _forget(*words, "--rate", "1000000")
            took = perf_counter() - began
    ratio = quantiles(beside, n=100)[98] / quantiles(alone, n=100)[98]
    return [ratio, paced / (seconds * conditions.sizes.rounds), forgotten / took, peak]


def _event(n: int) -> Event:
    return Event.new("CarMoved", [Entity("Car", f"C-{n % 9_973}", {"t": "x" * 200})])


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
def _forgetting(sql: psycopg.Connection, words: Sequence[str]) -> Generator[None]:
    """Run the command during the block, from its first transaction on."""
    done = _done(sql)
    process = _command(*words, output=subprocess.DEVNULL)
    while _done(sql) == done:
        if process.poll() is not None:
            raise RuntimeError("the job ended before its first transaction")
        sleep(0.01)
    try:
        yield
    finally:
        process.send_signal(SIGINT)
        process.wait()


def _done(sql: psycopg.Connection) -> int:
    (events,) = sql.execute(_DONE).fetchone() or (0,)
    return int(events)


def _command(*words: str, output: int | IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dsql_outbox", "forget", *words]
    return subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)


def _forget(*words: str) -> tuple[float, int]:
    """Run the command. Returns its peak of memory in MiB, and how many events it forgot."""
    with TemporaryFile() as told:
        process = _command(*words, "--json", output=told)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"the job ended with {process.returncode}")
        told.seek(0)
        return usage.ru_maxrss / _KIB, json.loads(told.read())["events"]
