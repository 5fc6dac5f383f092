"""``make life-kills``: kill archive, forget and erase jobs in the middle of their work.

Each job has pages of two events. It is killed after some of its transactions, at any moment of the
next one, and started again when its lease is over, until nothing is left to do. After each kill
every event is looked for in the tables and in the files. Exits with 1 if one is lost or in two
places, a job leaves a file that no row names or counts an event twice, an erased text is found, or
`verify` finds something. The same seed gives the same choices, but not the same timing.
"""

import argparse
import logging
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any, Final, NamedTuple
from uuid import UUID

import anyio
import msgspec
import psycopg
from benchmarks.measure import machine
from benchmarks.relay.rows import new_database
from tests.support.commands import Command, run
from tests.support.operations.small_jobs import PROGRAM
from tests.support.verified import findings_in
from tests.support.waiting import wait_until

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.outbox.archive.archive_file import ArchiveFile
from dsql_outbox.outbox.archive.place import open_place
from dsql_outbox.testing import EmbeddedPostgres
from dsql_outbox.writer import Writer

Sql = psycopg.Connection[Any]

_EVENTS: Final = 40
_PAGE: Final = 2  # of `small_jobs`
_MOST: Final = 4
"""Most transactions of a job before it is killed."""

_SECRET: Final = "Zaphod"
_FACTS: Final = ", ".join(ArchiveFile.__struct_fields__)
_FILES: Final = f"SELECT {_FACTS} FROM outbox.outbox_archives"
_ROWS: Final = "SELECT id, event_data::text, archive FROM outbox.business_events"
_LEASES_END: Final = "UPDATE outbox.outbox_jobs SET expires_at = now() - interval '1 s'"


class Kind(NamedTuple):
    """A job: its words, what is there before it, and the events that it has done.

    `done` counts them, and `column` of `outbox_jobs` must say the same.
    """

    words: tuple[str, ...]
    prepare: Callable[[str, Sql, Path], None]
    done: str
    column: str


class Counts(msgspec.Struct):
    """What was seen of a job: how often it was killed, and what must not be."""

    rounds: int = 0
    kills: int = 0
    met_work: int = 0
    left_a_file: int = 0
    lost: int = 0
    doubled: int = 0
    miscounted: int = 0
    orphans: int = 0
    secrets: int = 0
    findings: int = 0

    @property
    def wrong(self) -> int:
        """How much was seen that must not be."""
        return sum(msgspec.structs.astuple(self)[4:])


# --- the jobs --------------------------------------------------------------------------


def _write(url: str, sql: Sql, number: int) -> None:
    """Write events of one entity, and let them be sent."""
    with Writer(Database(url)) as writer:
        for _ in range(number):
            writer.write(Event.new("Moved", [Entity("Car", "a", {"owner": _SECRET})]))
    sql.execute("DELETE FROM outbox.outbox")


def _sent(url: str, sql: Sql, folder: Path) -> None:
    del folder
    _write(url, sql, _EVENTS)


def _archived(url: str, sql: Sql, folder: Path) -> None:
    _write(url, sql, _EVENTS)
    _run(_ARCHIVE, folder, url)


def _half_archived(url: str, sql: Sql, folder: Path) -> None:
    _write(url, sql, _EVENTS // 2)
    _run(_ARCHIVE, folder, url)
    _write(url, sql, _EVENTS // 2)


_RATE: Final = ("--rate", "1000000")
"""Without rests, so that a kill meets work."""

_ARCHIVE: Final = ("archive", "--before", "0s", "--to", "FOLDER", *_RATE)
_FORGET: Final = ("forget", "--before", "0s", "--yes", *_RATE)
_ERASE: Final = ("erase", "Car/a", "--reason", "request 7", "--archive", "FOLDER", "--yes")

_GONE: Final = f"SELECT {_EVENTS} - count(*) FROM outbox.business_events"

KINDS: Final = {
    "archive": Kind(
        _ARCHIVE, _sent, "SELECT count(archive) FROM outbox.business_events", "archived"
    ),
    "forget": Kind((*_FORGET, "--archive", "FOLDER"), _archived, _GONE, "forgotten"),
    "forget stored": Kind(_FORGET, _sent, _GONE, "forgotten"),
    "erase": Kind(
        _ERASE,
        _half_archived,
        "SELECT count(erased_at) FROM outbox.business_events WHERE event_type = 'Moved'",
        "erased",
    ),
}


# --- one of them, killed ---------------------------------------------------------------


class Victim:
    """A job in a database and a folder of its own."""

    def __init__(self, kind: Kind, url: str, sql: Sql, folder: Path, counts: Counts) -> None:
        self._kind = kind
        self._url = url
        self._sql = sql
        self._folder = folder
        self._counts = counts
        kind.prepare(url, sql, folder)

    def kill_until_done(self, random: Random, most: int) -> None:
        """Kill it `most` times at most, and let it end."""
        counts = self._counts
        limit = counts.kills + most
        while counts.kills < limit and self._done() < _EVENTS:
            self._kill(random)
            self._look()
        self._sql.execute(_LEASES_END)
        _run(self._kind.words, self._folder, self._url)
        self._look()
        counts.rounds += 1
        counts.orphans += len(self._unnamed())
        if self._kind.words is _ERASE:
            texts = [text for _, text, _ in self._rows()] + [text for _, text, _ in self._lines()]
            counts.secrets += sum(_SECRET in (text or "") for text in texts)
        places = [self._folder] if self._folder.exists() else []
        counts.findings += len(anyio.run(findings_in, self._url, *places))

    def _kill(self, random: Random) -> None:
        """Kill it after some transactions, at any moment of the next one."""
        self._sql.execute(_LEASES_END)
        began = self._done()
        wanted = min(_EVENTS, began + _PAGE * random.randint(2, _MOST))
        with Command(*_words(self._kind.words, self._folder, self._url), program=PROGRAM) as job:
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
        self._counts.met_work += began < self._done() < _EVENTS
        self._counts.left_a_file += bool(self._unnamed())

    def _look(self) -> None:
        """Count events in no place or in two, and files beyond the one that a kill may leave."""
        rows = {event_id: (text, number) for event_id, text, number in self._rows()}
        lines = Counter[tuple[UUID, int | None]](
            (event_id, number) for event_id, _, number in self._lines()
        )
        counts = self._counts
        for event_id, (text, number) in rows.items():
            counts.lost += text is None and not lines[event_id, number]
            counts.doubled += text is not None and number is not None
        for (event_id, number), times in lines.items():
            counts.doubled += times - (rows.get(event_id, ("", None))[1] == number)
        if self._kind.column != "forgotten":
            counts.lost += max(0, _EVENTS - len(rows))
        query = f"SELECT {self._kind.column} FROM outbox.outbox_jobs"
        counts.miscounted += abs(_count(self._sql, query) - self._done())
        counts.orphans += max(0, len(self._unnamed()) - 1)

    def _rows(self) -> list[tuple[UUID, str | None, int | None]]:
        return self._sql.execute(_ROWS).fetchall()

    def _lines(self) -> list[tuple[UUID, str, int]]:
        """The events in the files that rows name, and the numbers of the files."""
        place = open_place(str(self._folder))
        files = [ArchiveFile.from_columns(row) for row in self._sql.execute(_FILES.encode())]
        return [(each.id, each.event, file.number) for file in files for each in file.read(place)]

    def _unnamed(self) -> set[str]:
        """The files of events that no row names."""
        named = {row[0] for row in self._sql.execute("SELECT file FROM outbox.outbox_archives")}
        return {each.name for each in self._folder.glob("*.jsonl.zst")} - named

    def _done(self) -> int:
        return _count(self._sql, self._kind.done)


def _count(sql: Sql, query: str) -> int:
    row = sql.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0


def _words(words: tuple[str, ...], folder: Path, url: str) -> list[str]:
    return [*(str(folder) if word == "FOLDER" else word for word in words), "--database", url]


def _run(words: tuple[str, ...], folder: Path, url: str) -> None:
    done = run(*_words(words, folder, url), program=PROGRAM)
    if done.code:
        raise RuntimeError(done.err)


def killed(kind: Kind, kills: int, random: Random, server: EmbeddedPostgres) -> Counts:
    """Kill a job so many times, in as many databases as that takes."""
    counts = Counts()
    while counts.kills < kills:
        url = new_database(server, "kills")
        with TemporaryDirectory() as folder, psycopg.connect(url, autocommit=True) as sql:
            victim = Victim(kind, url, sql, Path(folder) / "archive", counts)
            victim.kill_until_done(random, kills - counts.kills)
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
