"""A terminal that records its screens, with their times."""

from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

from tests.support.pty_terminal import ROWS, Terminal


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


class RecordedTerminal(Terminal):
    """A terminal of `columns` columns that runs one program below a prompt."""

    def __init__(self, columns: int, prompt: str, program: Sequence[str]) -> None:
        super().__init__(columns, program=program, env={"TERM": "xterm-256color"})
        self._start = monotonic()
        self.frames: list[Frame] = []
        self._show(f"{prompt}\r\n".encode())

    def wait(self, seconds: float) -> None:
        """Record for some seconds."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            if self._is_readable(left):
                self._read()

    def _show(self, data: bytes) -> None:
        super()._show(data)
        rows = tuple(tuple(self._runs(row)) for row in range(ROWS))
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
