"""The command line as a process of its own, as users have it."""

import fcntl
import os
import signal
import sys
import termios
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any, Literal, NamedTuple, Self

from click.testing import CliRunner
from tests.support.warm_process import fork

from dsql_outbox.cli.main import main

_TIMEOUT = 60.0  # seconds; a safety net


class Finished(NamedTuple):
    """How a command ended, and what it printed that was not read before."""

    code: int
    out: bytes
    err: str


class Command:
    """``dsql-outbox`` with these words; killed at the end of the block if it still runs.

    With `program`, another one: ``-m MODULE`` or ``-c CODE``.
    """

    def __init__(
        self,
        *words: object,
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "dsql_outbox"),
    ) -> None:
        its_in, self._stdin = _pipe("wb")
        self._stdout, its_out = _pipe("rb")
        self._stderr, its_err = _pipe("rb")
        theirs = (its_in, its_out, its_err)
        self._process = fork([*program, *map(str, words)], os.environ | dict(env or {}), theirs)
        for descriptor in theirs:
            os.close(descriptor)

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    def feed(self, data: bytes) -> None:
        """Give it something on standard input, which stays open."""
        self._stdin.write(data)

    def line(self) -> bytes:
        """Wait for the next line of standard output."""
        return self._stdout.readline()

    def error_line(self) -> str:
        """Wait for the next line of standard error."""
        return self._stderr.readline().decode()

    def unread(self) -> int:
        """Bytes of standard output that wait to be read here."""
        count = bytearray(4)
        fcntl.ioctl(self._stdout, termios.FIONREAD, count)
        return int.from_bytes(count, sys.byteorder)

    def close_output(self) -> None:
        """Go away as the reader of its standard output."""
        self._stdout.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self) -> Finished:
        """Wait for its end, with standard input left open."""
        with ThreadPoolExecutor(2) as readers:
            reading = [readers.submit(_rest, pipe) for pipe in (self._stdout, self._stderr)]
            try:
                code = self._process.wait(_TIMEOUT)
            finally:
                self._process.kill()  # so that the pipes end
            out, err = (each.result() for each in reading)
        return Finished(code, out, err.decode())

    def finish(self, stdin: bytes = b"") -> Finished:
        """Give it this, close standard input and wait for the end."""
        with ThreadPoolExecutor(1) as writers:
            writers.submit(self._feed_and_close, stdin)
            return self.wait()

    def _feed_and_close(self, data: bytes) -> None:
        with suppress(BrokenPipeError):  # it ends without reading all
            self.feed(data)
        with suppress(BrokenPipeError):
            self._stdin.close()

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
        for pipe in (self._stdin, self._stdout, self._stderr):
            pipe.close()


def run(
    *words: object,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    program: Sequence[str] = ("-m", "dsql_outbox"),
) -> Finished:
    """Run a command to its end."""
    with Command(*words, env=env, program=program) as command:
        return command.finish(stdin)


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


def _pipe(mode: Literal["rb", "wb"]) -> tuple[Any, Any]:
    """Both ends of a pipe, the one for reading first: ours as a file, theirs as a descriptor."""
    reading, writing = os.pipe()
    if mode == "rb":
        return os.fdopen(reading, "rb"), writing
    return reading, os.fdopen(writing, "wb", buffering=0)


def _rest(pipe: IO[bytes]) -> bytes:
    return b"" if pipe.closed else pipe.read()
