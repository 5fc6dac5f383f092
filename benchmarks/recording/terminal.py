"""A command in a pseudo terminal, and its screens with their times."""

import fcntl
import os
import pty
import select
import struct
import termios
from collections.abc import Callable, Sequence
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Self

import pyte

_ROWS = 60
_LONGEST = 120.0  # seconds to wait for anything
_LOOK = 0.05  # seconds


class Run(NamedTuple):
    """Neighbouring characters of one style."""

    column: int
    text: str
    color: str
    bold: bool


class Frame(NamedTuple):
    """The screen from `at` on, in seconds since the start; one tuple of runs per row."""

    at: float
    rows: tuple[tuple[Run, ...], ...]


class Terminal:
    """A terminal of `width` columns that runs one command below a prompt."""

    def __init__(self, prompt: str, command: Sequence[str], width: int) -> None:
        self._screen = pyte.Screen(width, _ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._start = monotonic()
        self.frames: list[Frame] = []
        self._take(f"{prompt}\r\n".encode())
        self._pid, self._ours = pty.fork()
        if self._pid == 0:
            os.execve(command[0], list(command), os.environ | {"TERM": "xterm-256color"})
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, width, 0, 0))

    def text(self) -> str:
        return "\n".join(self._screen.display)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait(self, seconds: float) -> None:
        end = monotonic() + seconds
        while monotonic() < end:
            self._read()

    def until(self, text: str) -> None:
        self.until_true(lambda: text in self.text())

    def until_true(self, state: Callable[[], bool]) -> None:
        deadline = monotonic() + _LONGEST
        while not state():
            if not self._read() or monotonic() > deadline:
                raise RuntimeError(f"not reached:\n{self.text()}")

    def until_end(self) -> None:
        deadline = monotonic() + _LONGEST
        while self._read():
            if monotonic() > deadline:
                raise RuntimeError(f"does not end:\n{self.text()}")
        if os.waitpid(self._pid, 0)[1] != 0:
            raise RuntimeError(f"failed:\n{self.text()}")

    def _read(self) -> bool:
        """Take the output so far; false once the command has ended."""
        if not select.select([self._ours], [], [], _LOOK)[0]:
            return True
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # EIO: its end of the terminal is closed
            return False
        self._take(data)
        return bool(data)

    def _take(self, data: bytes) -> None:
        self._stream.feed(data)
        rows = tuple(tuple(self._runs(row)) for row in range(_ROWS))
        if not self.frames or self.frames[-1].rows != rows:
            self.frames.append(Frame(monotonic() - self._start, rows))

    def _runs(self, row: int) -> list[Run]:
        runs: list[Run] = []
        for column in range(self._screen.columns):
            char = self._screen.buffer[row][column]
            if runs and (runs[-1].color, runs[-1].bold) == (char.fg, char.bold):
                runs[-1] = runs[-1]._replace(text=runs[-1].text + char.data)
            else:
                runs.append(Run(column, char.data, char.fg, char.bold))
        stripped = [run._replace(text=run.text.rstrip()) for run in runs]
        return [run for run in stripped if run.text]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._ours)  # a program that still runs gets SIGHUP
