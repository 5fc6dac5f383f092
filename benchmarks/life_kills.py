"""``make life-kills``: kill forget and erase jobs in the middle of their work.

Each job has pages of two events. It is killed after some of its transactions, at any moment of the
next one, and started again when its lease is over, until nothing is left to do. After each kill
every event is looked for. Exits with 1 if one is lost that should stay, a job counts an event
twice, an erased text is found, or `verify` finds something. The same seed gives the same choices,
but not the same timing.
"""

import argparse
import logging
import signal
import sys
from random import Random
from time import monotonic, sleep
from typing import Any, Final, NamedTuple

import anyio
import msgspec
import psycopg
from benchmarks.measure import machine
from benchmarks.relay.rows import new_database
from tests.support.commands import Command, run
from tests.support.operations.forgotten_events import texts
from tests.support.operations.small_jobs import PROGRAM
from tests.support.verified import findings_in
from tests.support.waiting import wait_until

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.testing import EmbeddedPostgres
from dsql_outbox.writer import Writer

Sql = psycopg.Connection[Any]

_EVENTS: Final = 40
_PAGE: Final = 2  # of `small_jobs`
_MOST: Final = 4
"""Most transactions of a job before it is killed."""

_SECRET: Final = "Zaphod"
_OTHERS: Final = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'"
)
"""The sessions of a killed job: the server may still finish a transaction, which renews a lease."""

_LEASES_END: Final = "UPDATE outbox.outbox_jobs SET expires_at = now() - interval '1 s'"


class Kind(NamedTuple):
    """A job: its words, and the events that it has done.

    `done` counts them, and `column` of `outbox_jobs` must say the same.
    """

    words: tuple[str, ...]
    done: str
    column: str


class Counts(msgspec.Struct):
    """What was seen of a job: how often it was killed, and what must not be."""

    rounds: int = 0
    kills: int = 0
    lost: int = 0
    miscounted: int = 0
    secrets: int = 0
    findings: int = 0

    @property
    def wrong(self) -> int:
        """How much was seen that must not be."""
        return self.lost + self.miscounted + self.secrets + self.findings


_RATE: Final = ("--rate", "1000000")
"""Without rests, so that a kill meets work."""

KINDS: Final = {
    "forget": Kind(
        ("forget", "--before", "0s", "--yes", *_RATE),
        f"SELECT {_EVENTS} - count(*) FROM outbox.business_events",
        "forgotten",
    ),
    "erase": Kind(
        ("erase", "Car/a", "--reason", "request 7", "--yes"),
        "SELECT count(erased_at) FROM outbox.business_events WHERE event_type = 'Moved'",
        "erased",
    ),
}


class Victim:
    """A job in a database of its own."""

    def __init__(self, kind: Kind, url: str, sql: Sql, counts: Counts) -> None:
        self._kind = kind
        self._url = url
        self._sql = sql
        self._counts = counts
        with Writer(Database(url)) as writer:
            for _ in range(_EVENTS):
                writer.write(Event.new("Moved", [Entity("Car", "a", {"owner": _SECRET})]))
        sql.execute("DELETE FROM outbox.outbox")

    def kill_until_done(self, random: Random, most: int) -> None:
        """Kill it `most` times at most, and let it end."""
        counts = self._counts
        limit = counts.kills + most
        while counts.kills < limit and self._done() < _EVENTS:
            self._kill(random)
            self._look()
        self._end_leases()
        done = run(*self._words(), program=PROGRAM)
        if done.code:
            raise RuntimeError(done.err)
        self._look()
        counts.rounds += 1
        if self._kind.column == "erased":
            counts.secrets += sum(_SECRET in text for text in texts(self._sql).values())
        counts.findings += len(anyio.run(findings_in, self._url))

    def _kill(self, random: Random) -> None:
        """Kill it after some transactions, at any moment of the next one."""
        self._end_leases()
        began = self._done()
        wanted = min(_EVENTS, began + _PAGE * random.randint(2, _MOST))
        with Command(*self._words(), program=PROGRAM) as job:
            wait_until(lambda: self._done() > began)
            first = monotonic()
            wait_until(lambda: self._done() >= wanted)
            sleep(random.random() * (monotonic() - first) * _PAGE / max(_PAGE, wanted - began))
            job.signal(signal.SIGKILL)
            ended = job.wait()
        if ended.code == 0:
            return
        if ended.code != -signal.SIGKILL:
            raise RuntimeError(ended.err)
        self._counts.kills += 1

    def _end_leases(self) -> None:
        wait_until(lambda: not _count(self._sql, _OTHERS))
        self._sql.execute(_LEASES_END)

    def _look(self) -> None:
        """Count events that are lost, and those that were counted twice or not at all."""
        counts = self._counts
        if self._kind.column != "forgotten":
            counts.lost += max(0, _EVENTS - len(texts(self._sql)))
        query = f"SELECT {self._kind.column} FROM outbox.outbox_jobs"
        counts.miscounted += abs(_count(self._sql, query) - self._done())

    def _done(self) -> int:
        return _count(self._sql, self._kind.done)

    def _words(self) -> list[str]:
        return [*self._kind.words, "--database", self._url]


def _count(sql: Sql, query: str) -> int:
    row = sql.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0


def killed(kind: Kind, kills: int, random: Random, server: EmbeddedPostgres) -> Counts:
    """Kill a job so many times, in as many databases as that takes."""
    counts = Counts()
    while counts.kills < kills:
        url = new_database(server, "kills")
        with psycopg.connect(url, autocommit=True) as sql:
            Victim(kind, url, sql, counts).kill_until_done(random, kills - counts.kills)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.life_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="of each job")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.getLogger("dsql_outbox").setLevel(logging.CRITICAL)
    random, wrong = Random(given.seed), 0
    print(f"{'job':13}", *(name.replace("_", " ") for name in Counts.__struct_fields__), sep="  ")
    with EmbeddedPostgres(settings={"fsync": "off"}) as server:
        for name, kind in KINDS.items():
            counts = killed(kind, given.kills, random, server)
            wrong += counts.wrong
            numbers = msgspec.structs.asdict(counts).items()
            print(f"{name:13}", *(f"{n:>{len(key)}}" for key, n in numbers), sep="  ", flush=True)
    print(machine())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
