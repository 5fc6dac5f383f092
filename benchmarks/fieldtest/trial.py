"""One trial: a library, a harm and a seed, on a database of its own."""

import random
import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any, NamedTuple

import psycopg
from benchmarks.peers.contestants import ROOT

from .harms import Harm, Play
from .judge import Result, judge
from .libraries import Library
from .recorder import Recorder
from .schedule import Event

LIMIT = 180.0
"""Seconds that a trial may take."""

STALL = 30.0
"""Seconds without a message after which a trial ends. What the library still means to send then
is *waiting*."""

_QUIET = 1.0  # seconds without a message, when the library says that it has nothing left
_STEP = 0.01
_RESTART = 0.3  # seconds until a supervisor starts an ended process again


class Size(NamedTuple):
    """Of a trial."""

    events: int = 2_000
    keys: int = 50


class ProgramFailed(RuntimeError):
    """A program of a library ended with an error; the last line of what it said."""


def run_program(library: Library, *words: object) -> None:
    """Run its program to the end. Raises `ProgramFailed`."""
    command = [*library.command, *map(str, words)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ProgramFailed(f"{error.strerror}: {command[0]}") from None
    if done.returncode:
        said = [line.strip(" |+-") for line in done.stderr.splitlines()]  # of a group, perhaps
        raise ProgramFailed(next(filter(None, reversed(said)), f"exit code {done.returncode}"))


class Trial(ExitStack):
    """A trial that runs; it is the stage of its harm. A context manager."""

    def __init__(  # noqa: PLR0913, PLR0917 - what makes a trial
        self, library: Library, harm: Harm, seed: int, url: str, size: Size, stop: threading.Event
    ) -> None:
        super().__init__()
        self._stop = stop
        self._library = library
        self._harm = harm
        self._seed = seed
        self._url = url
        self._size = size
        self._relays: list[subprocess.Popen[bytes]] = []
        self._ended: dict[int, float] = {}
        self._restarts = 0
        self._writer: subprocess.Popen[bytes] | None = None

    def run(self, found: Sequence[Event], restart: Any, log: Path) -> Result:
        """Run it. `restart` kills the server and starts it; `log` gets what was done."""
        self.restart_server = restart
        began = monotonic()
        chosen = random.Random(f"{self._harm.name} {self._seed}")
        file = self.enter_context(log.open("w"))
        self._errors: IO[bytes] = self.enter_context(log.with_suffix(".err").open("wb"))
        play = self._harm.play(self, chosen, len(found))
        self._recorder = Recorder(play.outcome, play.after, file)
        self.stored = self._recorder.stored
        with self._recorder, ExitStack() as processes:
            processes.callback(self._end)
            self.start_relay()
            self._until_quiet(play)
            waiting, kept = self._counts()
        delivery = judge({event.number: event.key for event in found}, self.stored)
        return Result(
            self._library.name, self._harm.name, self._seed,
            max(0, len(delivery.missing) - max(0, waiting) - kept), len(delivery.reordered),
            len(delivery.repeated), kept, waiting, self._restarts,
            round(self._recorder.last - began, 1),
            {name: numbers[:10] for name, numbers in delivery._asdict().items()},
        )  # fmt: skip

    def note(self, text: str) -> None:
        """Write a line to the log."""
        self._recorder.note(text)

    def start_relay(self) -> None:
        """Start a process of the relay."""
        self._relays.append(self._started("relay", self._url, self._recorder.port))

    def start_writer(self) -> None:
        """Write the events, some of them in transactions that stay open."""
        self._writer = self._started("write", self._url, self._seed, *self._size, "held")

    def is_written(self) -> bool:
        """Whether the writer has ended. Raises `ProgramFailed` if it failed."""
        code = self._writer and self._writer.poll()
        if code:
            raise ProgramFailed(f"the writer ended with code {code}: see the log")
        return code == 0

    def _until_quiet(self, play: Play) -> None:
        """Wait until the library has nothing left to send, or sends nothing for too long."""
        began, over, quiet = monotonic(), 0.0, 0.0
        while monotonic() - began < LIMIT and quiet < STALL and not self._stop.is_set():
            sleep(_STEP)
            play.step()
            self._supervise()
            over = (over or monotonic()) if play.is_over else 0.0
            quiet = monotonic() - max(self._recorder.last, over)
            if over and quiet > _QUIET and self._counts()[0] == 0:
                break

    def _counts(self) -> tuple[int, int]:
        """How many rows it means to send, and how many it keeps; -1 and 0 without a server."""
        try:
            with psycopg.connect(self._url, connect_timeout=5) as connection:
                return _count(connection, self._library.waiting), _count(
                    connection, self._library.kept
                )
        except psycopg.OperationalError:
            return -1, 0

    def _supervise(self) -> None:
        """Start each process anew that has ended, as a supervisor does."""
        for index, process in enumerate(self._relays):
            if process.poll() is None:
                continue
            ended = self._ended.setdefault(process.pid, monotonic())
            if monotonic() - ended > _RESTART:
                self.note(f"process {process.pid} ended: {process.returncode}")
                self._restarts += 1
                self._relays[index] = self._started("relay", self._url, self._recorder.port)

    def _started(self, *words: object) -> "subprocess.Popen[bytes]":
        command = [*self._library.command, *map(str, words)]
        return subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors
        )

    def _end(self) -> None:
        for process in (*self._relays, *([self._writer] if self._writer else [])):
            process.kill()
            process.wait()


def _count(connection: "psycopg.Connection[Any]", statement: str) -> int:
    (found,) = connection.execute(statement.encode()).fetchone() or (0,)
    return int(found)
