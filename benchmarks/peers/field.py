"""The contestants on one server, each in its own database, measured in turn."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol

from benchmarks.relay.rows import new_database
from benchmarks.writer import pgbench

from dsql_outbox.testing import EmbeddedPostgres

from .contestants import PGBENCH, Contestant
from .peer_process import Measured, PeerFailedError, started


class Entry(NamedTuple):
    """A contestant and the line that it runs."""

    contestant: str
    line: str


class Running(Protocol):
    """A contestant that can be measured."""

    @property
    def lines(self) -> Sequence[str]:
        """The lines that it can run."""
        ...

    def measure(self, line: str, events: int) -> Measured:
        """Run a line with events."""
        ...


class Pgbench:
    """pgbench with the library's statement."""

    lines = ("single", "eight")

    def __init__(self, url: str, script: tuple[Path, list[str]]) -> None:
        self._url = url
        self._script = script

    def measure(self, line: str, events: int) -> Measured:
        """Write on one connection, or on eight."""
        clients = {"single": 1, "eight": 8}[line]
        until = f"-t{-(-events // clients)}"
        return Measured(pgbench.rate(self._url, *self._script, clients, until))


class Field(ExitStack):
    """Contestants, started when first asked for; a context manager.

    `missing` says of each that did not start why, and `failed` of each entry that could not be
    measured.
    """

    def __init__(self, server: EmbeddedPostgres, contestants: Sequence[Contestant]) -> None:
        super().__init__()
        self.missing: dict[str, str] = {}
        self.failed: dict[Entry, str] = {}
        self._server = server
        self._contestants = {each.name: each for each in contestants}
        self._running: dict[str, Running] = {}

    def start(self) -> None:
        """Start all that do not run; one that failed gets a new database."""
        for name in self._contestants:
            self.running(name)

    def running(self, name: str) -> Running | None:
        """The contestant of this name, or None if it is missing."""
        if name not in self._running and name not in self.missing:
            try:
                self._running[name] = self._started(self._contestants[name])
            except PeerFailedError as error:
                self.missing[name] = str(error)
        return self._running.get(name)

    def entries(self, line: str) -> list[Entry]:
        """Those that run and can run this line."""
        return [Entry(name, line) for name, each in self._running.items() if line in each.lines]

    def rounds(self, work: Mapping[Entry, int], rounds: int) -> Mapping[Entry, Sequence[Measured]]:
        """Measure entries, each with its number of events, in turn; once before it counts.

        One that fails is left out of the later rounds and of what is returned.
        """
        found: dict[Entry, list[Measured]] = defaultdict(list)
        for _ in range(1 + rounds):
            for entry in [each for each in work if each not in self.failed]:
                try:
                    found[entry].append(self._measure(entry, work[entry]))
                except PeerFailedError as error:
                    self.failed[entry] = str(error)
                    self._running.pop(entry.contestant, None)
        return {each: found[each][1:] for each in work if each not in self.failed}

    def _measure(self, entry: Entry, events: int) -> Measured:
        running = self.running(entry.contestant)
        if running is None:
            raise PeerFailedError(self.missing[entry.contestant])
        return running.measure(entry.line, events)

    def _started(self, contestant: Contestant) -> Running:
        number = list(self._contestants).index(contestant.name)
        url = new_database(self._server, f"contestant_{number}")
        if contestant.name == PGBENCH:
            return Pgbench(url, self.enter_context(pgbench.script()))
        return self.enter_context(started(contestant, url))
