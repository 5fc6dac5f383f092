"""The process of one contestant: started, given orders, ended with its input."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

from .contestants import ROOT, Contestant


class PeerFailedError(RuntimeError):
    """The process of a contestant could not start, or ended before it answered."""


class Measured(NamedTuple):
    """Events per second, and CPU of the client per event in microseconds (None: not known).

    `disordered` counts messages that the sink got after a newer one of their key.
    """

    rate: float
    cpu: float | None = None
    disordered: float | None = None


class PeerProcess:
    """A running process that takes orders; `lines` names the lines that it can run."""

    def __init__(self, process: "subprocess.Popen[str]", errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self.pid = process.pid
        self.lines: list[str] = self.answer()

    def measure(self, line: str, events: int) -> Measured:
        """Run a line with events. Raises `PeerFailedError` when the process ends instead."""
        self.order(line, events)
        return Measured(**self.answer())

    def order(self, line: str, *numbers: int) -> None:
        """Tell it to run a line. If it has ended, `answer` says why."""
        assert self._process.stdin is not None
        try:
            print(line, *numbers, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            with suppress(BrokenPipeError):
                self._process.stdin.close()  # else its end would try to write the line again

    def answer(self) -> Any:
        """The next thing that it tells. Raises `PeerFailedError` when the process ends instead."""
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode().strip() or f"exit code {self._process.returncode}"
        raise PeerFailedError(said.splitlines()[-1])


@contextmanager
def started(contestant: Contestant, url: str) -> Iterator[PeerProcess]:
    """Start the process of a contestant. Raises `PeerFailedError` with the reason if it ends."""
    command = [*contestant.command, url, *contestant.arguments]
    with TemporaryFile() as errors, _popen(command, errors) as process:
        try:
            yield PeerProcess(process, errors)
        except BaseException:
            process.terminate()  # it may be in the middle of an order
            raise


def _popen(command: list[str], errors: IO[bytes]) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=errors, cwd=ROOT, text=True
        )
    except OSError as error:
        raise PeerFailedError(f"{error.strerror}: {command[0]}") from None
