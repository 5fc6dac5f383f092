"""Server processes that start on demand and end with this process."""

import atexit
import os
import random
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, Self

from dsql_outbox.outbox.errors import OutboxError

from .private_files import open_log
from .server_guard import ServerGuard, gated

_START: Final = 30.0  # seconds that a server may take to become ready
_STOP: Final = 20.0  # seconds that it may take to stop before it is killed
_POLL: Final = 0.005  # seconds between two checks of readiness
_TAIL: Final = 5  # lines of the log that an error shows

# Below the ports that Linux (from 32768) and macOS (from 49152) give to outgoing connections.
# So no connection takes the port while the server restarts, and a client that connects in
# the meantime cannot get the same port and connect to itself.
_PORTS: Final = range(15_000, 30_000)


def free_port(preferred: int = 0) -> int:
    """A TCP port of 127.0.0.1 on which nothing listens: `preferred`, or one from 15000 to 29999."""
    if preferred and _is_free(preferred, reuse=True):
        return preferred
    while not _is_free(port := random.choice(_PORTS), reuse=False):  # noqa: S311 - not a secret
        pass
    return port


def _is_free(port: int, *, reuse: bool) -> bool:
    """Whether nothing has bound a port; with `reuse`, whether nothing listens on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class ServerProcess:
    """A server and its children, in their own session.

    Ctrl-C in a terminal signals the whole foreground process group. A server in
    another session does not get that signal, so it runs until this process stops it. When
    this process is killed, a guard stops it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path | int,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        scratch: Path | None = None,
        **options: Any,
    ) -> None:
        """Start `command`; `options` are those of `subprocess.Popen`.

        `log` takes the server's standard error: a path, or a descriptor open for
        appending and reading, which this object closes. If this process is killed, the
        server gets `stop_signal`, and the folder `scratch` is removed.
        """
        self._name = name
        self._stop_signal = stop_signal
        if isinstance(log, Path):
            log = open_log(str(log), None, {os.geteuid()})
        self._log = os.fdopen(log, "rb")
        self._log_start = self._log.seek(0, os.SEEK_END)
        try:
            self._process = subprocess.Popen[bytes](
                gated(command),
                stdin=subprocess.PIPE,
                # Nothing is written to this pipe. It closes when the last child has ended.
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                **options,
            )
        except BaseException:
            self._log.close()
            raise
        self._guard = ServerGuard(self._process, stop_signal, scratch)

    @property
    def pid(self) -> int:
        """The id of the process that was started."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether the process that was started still runs."""
        if self._process.poll() is None:
            return True
        self._guard.dismiss()
        return False

    def wait_until_ready(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready` returns true.

        Raises `OutboxError` with the end of the log if the server ends, or is not
        ready after 30 s.
        """
        deadline = monotonic() + _START
        while not ready():
            if not self.is_running():
                if ready():  # it has ended since it was asked, as initdb does
                    return
                code = self._process.returncode
                raise OutboxError(f"{self._name} ended with code {code} at start: {self._tail()}")
            if monotonic() > deadline:
                raise OutboxError(f"{self._name} not ready after {_START:.0f} s: {self._tail()}")
            sleep(_POLL)

    def wait_until_done(self) -> None:
        """Wait until a program that ends by itself has succeeded.

        Raises `OutboxError` with the end of the log if it fails, or needs more than 30 s.
        """
        self.wait_until_ready(lambda: self._process.poll() == 0)
        self._wait_until_gone()

    def stop(self) -> None:
        """Send `stop_signal` and wait for all processes to end; after 20 s, kill the server.

        Raises `OutboxError` if children still run 20 s later.
        """
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._wait_until_gone()

    def kill(self) -> None:
        """Kill the server with SIGKILL, and wait until its children have ended.

        Raises `OutboxError` if children still run after 20 s.
        """
        self._process.kill()
        self._wait_until_gone()

    def _wait_until_gone(self) -> None:
        self._log.close()
        self._process.wait(_STOP)
        self._guard.dismiss()
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - we asked for a pipe
        with stdout, selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            deadline = monotonic() + _STOP
            while selector.select(deadline - monotonic()):
                if not os.read(stdout.fileno(), 4096):
                    return
        raise OutboxError(f"children of {self._name} still run {_STOP:.0f} s after it ended")

    def _tail(self) -> str:
        self._log.seek(self._log_start)
        lines = self._log.read().decode(errors="replace").splitlines()
        return " | ".join(lines[-_TAIL:]) or "its log is empty"


class EmbeddedServer(ABC):
    """Base of the embedded servers: a context manager that starts and stops a server.

    The data is stored in `folder` and kept; without one, in a temporary folder
    that is removed at the end. The server stops when this process ends, even if it is
    killed.
    """

    def __init__(self, name: str, folder: Path | None, stop_signal: signal.Signals) -> None:
        self._name = name
        self._folder = folder
        self._stop_signal = stop_signal
        self._scratch: Path | None = None
        self._process: ServerProcess | None = None

    def is_running(self) -> bool:
        """Whether a server that this object has started still runs."""
        return self._process is not None and self._process.is_running()

    @abstractmethod
    def _launch(self, folder: Path, scratch: Path) -> ServerProcess | None:
        """Start the server and wait until it is ready; None if it was running already."""

    @property
    def pid(self) -> int:
        """The id of the server process. Raises `OutboxError` if this object did not start it."""
        return self._own_process().pid

    def start(self) -> None:
        """Start the server, or restart it with the same data and port; do nothing if it runs.

        Raises `OutboxError` when it is not ready within 30 s.
        """
        if self.is_running():
            return
        self.stop()
        atexit.register(self.close)
        if self._scratch is None:
            # Known before it exists: `close` removes it also if a signal comes in between.
            self._scratch = Path(tempfile.gettempdir(), f"dsql-outbox-{secrets.token_hex(6)}")
            self._scratch.mkdir(mode=0o700)
        folder = self._scratch / "data" if self._folder is None else self._folder
        self._process = self._launch(folder, self._scratch)

    def stop(self) -> None:
        """Stop the server in order and keep the data; leave a server that was running before."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """Kill the server with SIGKILL, as in a crash, and wait until it has ended.

        The data stays. Raises `OutboxError` if this object has not started it.
        """
        self._own_process().kill()
        self._process = None

    def close(self) -> None:
        """Stop the server and remove the temporary folder, as leaving the context does."""
        self.stop()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
        atexit.unregister(self.close)

    def _spawn(self, command: Sequence[str], log: Path | int, **options: Any) -> ServerProcess:
        """Start the server's process, and remember it, so that `close` stops it in any case."""
        self._process = ServerProcess(
            self._name,
            command,
            log,
            stop_signal=self._stop_signal,
            scratch=self._scratch,
            **options,
        )
        return self._process

    def _own_process(self) -> ServerProcess:
        if self._process is None:
            raise OutboxError(f"{self._name} is not running, or was not started by this process")
        return self._process

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
