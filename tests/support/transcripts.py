"""Transcripts: what commands print, in files whose diff a person reads.

A section of a transcript is a test with a database of its own. Its lines begin with ``$`` for a
command, ``~`` for one whose lines come in any order and are sorted here, ``>`` for SQL, and ``@``
for a step of `Shop`; what follows is the output. ``!`` stands before each line of stderr, and an
exit code that is not 0 is the last line, in brackets.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import anyio
import psycopg
from click.testing import CliRunner

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher import Rejected, Retry
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

from .publisher.running_relays import relayed

TITLE: Final = "== "
_STEPS: Final = ("$ ", "~ ", "> ", "@ ", "# ")
_USAGE: Final = ("Usage: ", "Try '")  # what click says before each error


class Section(NamedTuple):
    """A test of a file of transcripts."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """The command, and what holds."""
        return f"{self.path.stem}: {self.text.partition(chr(10))[0].removeprefix(TITLE)}"


def sections(folder: Path) -> Iterator[Section]:
    """All sections of a folder's files."""
    for path in sorted(folder.glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        yield from (Section(path, found) for found in re.split(f"(?m)^(?={TITLE})", text)[1:])


def replayed(section: Section, url: str) -> str:
    """The section with what its steps print now."""
    shop, lines = Shop(url), [section.text.partition("\n")[0]]
    for line in section.text.splitlines():
        if line.startswith(_STEPS):
            lines += [line, *shop.answer(line[0], line[2:])]
    return "\n".join(lines) + "\n\n"


class Shop:
    """A database, and events in it that are named by their numbers: ``{1}`` is the first's id."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ids: list[UUID] = []

    def answer(self, kind: str, words: str) -> list[str]:
        """The lines that a step prints."""
        words = re.sub(r"\{(\d+)\}", lambda found: str(event_id(int(found[1]))), words)
        do: dict[str, Callable[[str], Iterator[str]]] = {
            "$": self._command,
            "~": lambda command: iter(sorted(self._command(command))),
            ">": self._sql,
            "@": self._step,
            "#": lambda _: iter(()),
        }
        return [line.rstrip() for line in _masked("\n".join(do[kind](words))).splitlines()]

    def _command(self, words: str) -> Iterator[str]:
        name, *given = shlex.split(words)
        assert name == "dsql-outbox", words
        env = {"DSQL_OUTBOX_DATABASE": self._url, "LOGNAME": "carol"}
        done = CliRunner().invoke(main, given, env=env)
        yield from done.stdout.splitlines()
        errors = [line for line in done.stderr.splitlines() if line]
        yield from (f"! {line}" for line in errors if not line.startswith(_USAGE))
        if done.exit_code:
            yield f"[{done.exit_code}]"

    def _sql(self, query: str) -> Iterator[str]:
        with psycopg.connect(self._url, autocommit=True) as connection:
            found = connection.execute(query.encode())
            for row in found.fetchall() if found.description else []:
                yield " | ".join(map(str, row))

    def _step(self, words: str) -> Iterator[str]:
        verb, *given = shlex.split(words)
        named = dict(each.split("=", 1) for each in given if "=" in each)
        getattr(self, verb)(*(each for each in given if "=" not in each), **named)
        return iter(())

    def write(self, *events: str) -> None:
        """Write events, such as ``Car/a``, ``Car/a+Car/b`` that touches another, ``Sold:Car/a``."""
        with Writer(Database(self._url)) as writer:
            for each in events:
                kind, _, entities = each.rpartition(":")
                touched = [Entity(*entity.split("/"), {"n": 7}) for entity in entities.split("+")]
                self._ids.append(event_id(len(self._ids) + 1))
                writer.write(Event.new(kind or "CarMoved", touched, id=self._ids[-1]))

    def relay(self) -> None:
        """Let a publisher send all that can go."""
        self._relay(MemorySink())

    def give_up(self, *events: str, policy: str = "release") -> None:
        """Write events one after the other, each of which the broker refuses."""
        for each in events:
            self.write(each)
            sink = MemorySink()
            sink.fail(self._ids[-1], Rejected("Not for me"))
            self._relay(sink, on_dead_letter=policy)

    def block(self, *events: str) -> None:
        """As `give_up`, and each blocks its subject."""
        self.give_up(*events, policy="block")

    def fail(self, *events: str) -> None:
        """As `give_up`, but each is tried again later."""
        for each in events:
            self.write(each)
            sink = MemorySink()
            sink.fail(self._ids[-1], Retry("the disk of the broker is full"))
            self._relay(sink, backoff_base=300.0)

    def announce(
        self,
        owner: str = "relay-a",
        *,
        target: str = "default",
        paused: str = "[]",
        seen: str = "0 s",
        waits: str | None = None,
    ) -> None:
        """Let a publisher say that it is alive, what it has paused, and how long it waits."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO outbox.outbox_publishers"
                " (owner, seen_at, lease_seconds, paused, target, waiting_since)"
                " VALUES (%s, now() - %s::interval, 60, %s, %s, now() - %s::interval)",
                (owner, seen, paused, target, waits),
            )

    def _relay(self, sink: MemorySink, **settings: Any) -> None:
        anyio.run(partial(relayed, Database(self._url), sink, **settings))


def event_id(number: int) -> UUID:
    """The id of an event of a transcript."""
    return UUID(f"00000000-0000-4000-8000-{number:012}")


_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d(?:[ T\n]\d\d:\d\d:\d\d(?:\.\d+)?)?")
_VARYING: Final = {
    r"test_[0-9a-f]{32}": "DATABASE",
    r"(?!00000000-)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "#" * 36,
    r"(?<=127\.0\.0\.1:)\d{4,5}": "#",
    r"(?<=PostgreSQL )\d+\.\d+": "#",
    r"\b\d+\.\d+ (?=m?s\b)": "#.# ",
    r"(?<=Seconds\":)(?!60\.0)-?[\d.]+(e-\d+)?": "#.#",  # all but the lease that a step gave
    r"(?<=lease ends in )\d+(?= s)": "#",
    r"\b\d{16}\b": "#",  # a position
    r"ahead of this machine": "behind this machine",  # the same clock: by chance
}


def _masked(text: str) -> str:
    """A text without what differs from run to run."""
    text = _TIME.sub(_time, text)
    for pattern, shown in _VARYING.items():
        text = re.sub(pattern, shown, text)
    return text


def _time(found: re.Match[str]) -> str:
    """A time of today has no digits; one that a transcript gave stays."""
    at = datetime.fromisoformat(found[0].replace("\n", " ")).replace(tzinfo=UTC)
    is_near = abs(at - datetime.now(UTC)) < timedelta(days=2)
    return re.sub(r"\d", "#", found[0].partition(".")[0]) if is_near else found[0]
