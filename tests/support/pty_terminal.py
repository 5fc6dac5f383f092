"""A command on a terminal, and what the terminal shows of it."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self

import pyte
from tests.support.warm_process import Forked, fork

ROWS: Final = 60
_TIMEOUT = 60.0  # seconds; a safety net
_CTRL_C = b"\x03"


def squeezed(text: str) -> str:
    """A text without blanks."""
    return text.replace(" ", "")


class Terminal:
    """A program with these words on a terminal of `columns` columns, Ctrl-C included.

    Without `program` it is the module, ``dsql-outbox``.
    """

    def __init__(
        self,
        columns: int,
        *words: object,
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = (),
        module: str = "dsql_outbox",
    ) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        found = os.environ | {"TERM": "xterm", "COLUMNS": str(columns)} | dict(env or {})
        self._process: Forked | subprocess.Popen[bytes]
        if not program:
            self._process = fork(["-m", module, *map(str, words)], found, [theirs] * 3)
        else:
            self._process = subprocess.Popen(
                [*program, *map(str, words)],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=found,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads
            )
        os.close(theirs)
        self._screen = pyte.Screen(columns, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self.output = b""

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without the blank ones at the end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    @property
    def text(self) -> str:
        """All lines as one, without blanks: a line that wraps may have one at its end."""
        return squeezed("".join(self.lines))

    def until(self, seen: Callable[[list[str]], bool]) -> None:
        """Read until the screen is as wanted; fails when the command ends before."""
        while not seen(self.lines):
            assert self._read(), self.lines

    def press_ctrl_c(self) -> None:
        """Type Ctrl-C: the terminal shows ^C and sends SIGINT."""
        os.write(self._ours, _CTRL_C)

    def finish(self) -> int:
        """Read to the end and return the exit code."""
        while self._read():
            pass
        return self._process.wait(_TIMEOUT)

    def _read(self) -> bytes:
        """Show the next output; empty at the end. Raises `TimeoutError` after a long silence."""
        if not self._is_readable(_TIMEOUT):
            raise TimeoutError(f"no output for {_TIMEOUT:g} s:\n" + "\n".join(self.lines))
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # EIO: the other end is closed
            return b""
        self.output += data
        self._show(data)
        return data

    def _is_readable(self, seconds: float) -> bool:
        return bool(select.select([self._ours], [], [], seconds)[0])

    def _show(self, data: bytes) -> None:
        self._stream.feed(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(_TIMEOUT)
        os.close(self._ours)
