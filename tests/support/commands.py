"""The command line as a process of its own, as users have it."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, NamedTuple, Self

from click.testing import CliRunner

from dsql_outbox.cli import main

_TIMEOUT = 30.0  # seconds; a safety net


class Finished(NamedTuple):
    """How a command ended, and what it printed that was not read before."""

    code: int
    out: bytes
    err: str


class Command:
    """``dsql-outbox`` with these words; killed at the end of the block if it still runs."""

    def __init__(self, *words: object, env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dsql_outbox", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | dict(env or {}),
        )

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    def feed(self, data: bytes) -> None:
        """Give it something on standard input, which stays open."""
        stdin = _pipe(self._process.stdin)
        stdin.write(data)
        stdin.flush()

    def line(self) -> bytes:
        """Wait for the next line of standard output."""
        return _pipe(self._process.stdout).readline()

    def error_line(self) -> str:
        """Wait for the next line of standard error."""
        return _pipe(self._process.stderr).readline().decode()

    def unread(self) -> int:
        """Bytes of standard output that wait to be read here."""
        count = bytearray(4)
        fcntl.ioctl(_pipe(self._process.stdout), termios.FIONREAD, count)
        return int.from_bytes(count, sys.byteorder)

    def close_output(self) -> None:
        """Go away as the reader of its standard output."""
        _pipe(self._process.stdout).close()
        self._process.stdout = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self) -> Finished:
        """Wait for its end, with standard input left open."""
        stdin, self._process.stdin = self._process.stdin, None
        out, err = self._process.communicate(timeout=_TIMEOUT)
        self._process.stdin = stdin
        return Finished(self._process.returncode, out or b"", err.decode())

    def finish(self) -> Finished:
        """Close standard input and wait for the end."""
        _pipe(self._process.stdin).close()
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(_TIMEOUT)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


def run(*words: object, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Finished:
    """Run a command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "dsql_outbox", *map(str, words)],
        input=stdin,
        capture_output=True,
        timeout=_TIMEOUT,
        check=False,
        env=os.environ | dict(env or {}),
    )
    return Finished(done.returncode, done.stdout, done.stderr.decode())


def invoke(*words: object, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Finished:
    """The same within this process: it takes no half second for Python and the imports.

    What ``write`` prints through the descriptors comes before what Python's streams got.
    """
    with ExitStack() as files:
        given, out, err = (files.enter_context(TemporaryFile()) for _ in range(3))
        given.write(stdin)
        given.seek(0)
        with _descriptor(0, given), _descriptor(1, out), _descriptor(2, err):
            done = CliRunner().invoke(main, [*map(str, words)], env=env, prog_name="dsql-outbox")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        printed, told = (_whole(file) for file in (out, err))
    return Finished(done.exit_code, printed + done.stdout_bytes, told.decode() + done.stderr)


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


@contextmanager
def _descriptor(number: int, file: IO[bytes]) -> Iterator[None]:
    """Let a descriptor of this process be `file` for a while."""
    kept = os.dup(number)
    os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


def lines(events: Iterable[bytes]) -> bytes:
    """Events as JSON Lines."""
    return b"".join(event + b"\n" for event in events)


def _pipe(found: IO[bytes] | None) -> IO[bytes]:
    assert found is not None
    return found
