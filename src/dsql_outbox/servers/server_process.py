"""Servers that belong to this process: started on demand, ended with it."""

import atexit
import os
import random
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
from types import TracebackType
from typing import Any, Final, Self

from dsql_outbox.outbox import OutboxError

from .private_files import open_log

_START: Final = 30.0  # seconds a server may take to be ready
_STOP: Final = 20.0  # seconds it may take to stop before it is killed
_POLL: Final = 0.005  # seconds between looks
_TAIL: Final = 5  # lines of the log that an error shows

# Below the ranges from which Linux (32768 up) and macOS (49152 up) take ports for outgoing
# connections: a server that was down for a moment gets its port back, and a client that
# calls in the meantime cannot connect to itself.
_PORTS: Final = range(15_000, 30_000)


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311 - not a secret
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class ServerProcess:
    """A server and its children, in a session of their own.

    Ctrl-C in a terminal goes to the whole foreground group; a server outside of
    it lives until we have finished with it.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path | int, **options: Any) -> None:
        """`log` is a file, or a descriptor to append to and to read, which is ours from now on."""
        self._name = name
        if isinstance(log, Path):
            log = open_log(str(log), None, {os.geteuid()})
        self._log = os.fdopen(log, "rb")
        self._log_start = self._log.seek(0, os.SEEK_END)
        try:
            self._process = subprocess.Popen[bytes](
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # never written to: it ends when the last child is gone
                stderr=log,
                start_new_session=True,
                **options,
            )
        except BaseException:
            self._log.close()
            raise

    @property
    def pid(self) -> int:
        """The id of the server's first process."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether the first process still runs."""
        return self._process.poll() is None

    def wait_until_ready(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready` is true; raises `OutboxError` when it ends or takes over 30 s."""
        deadline = monotonic() + _START
        while not ready():
            if not self.is_running():
                code = self._process.returncode
                raise OutboxError(f"{self._name} ended with code {code} at start: {self._tail()}")
            if monotonic() > deadline:
                raise OutboxError(f"{self._name} not ready after {_START:.0f} s: {self._tail()}")
            sleep(_POLL)

    def stop(self, ask: signal.Signals) -> None:
        """Ask it to end with the signal `ask`; kill it when that takes over 20 s."""
        self._process.send_signal(ask)
        try:
            self._process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._wait_until_gone()

    def kill(self) -> None:
        """SIGKILL it, and wait until its children have noticed."""
        self._process.kill()
        self._wait_until_gone()

    def _wait_until_gone(self) -> None:
        self._log.close()
        self._process.wait(_STOP)
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - we asked for a pipe
        with stdout, selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            deadline = monotonic() + _STOP
            while selector.select(deadline - monotonic()):
                if not os.read(stdout.fileno(), 4096):
                    return
        raise OutboxError(f"children of {self._name} outlive it by more than {_STOP:.0f} s")

    def _tail(self) -> str:
        self._log.seek(self._log_start)
        lines = self._log.read().decode(errors="replace").splitlines()
        return " | ".join(lines[-_TAIL:]) or "its log is empty"


class EmbeddedServer(ABC):
    """What our embedded servers share: a context manager that starts and ends the server.

    The data lives in `folder` and is kept there; without one it lives in a
    temporary folder and goes at the end. No server outlives this process,
    unless this process is killed.
    """

    def __init__(self, name: str, folder: Path | None, stop_signal: signal.Signals) -> None:
        self._name = name
        self._folder = folder
        self._stop_signal = stop_signal
        self._scratch: Path | None = None
        self._process: ServerProcess | None = None

    @abstractmethod
    def _launch(self, folder: Path, scratch: Path) -> ServerProcess | None:
        """Start the server and wait until it is ready; None: it ran already and is not ours."""

    @property
    def pid(self) -> int:
        """The id of the server's process; raises `OutboxError` when we run none."""
        return self._own_process().pid

    def start(self) -> None:
        """Start the server, or start it again on the same data and port; quiet if it runs.

        Raises `OutboxError` when it does not become ready.
        """
        if self._process is not None and self._process.is_running():
            return
        self.stop()
        atexit.register(self.close)
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="dsql-outbox-"))
        folder = self._scratch / "data" if self._folder is None else self._folder
        self._process = self._launch(folder, self._scratch)

    def stop(self) -> None:
        """End the server in order; the data stays. A server that was not started by us stays."""
        if self._process is not None:
            self._process.stop(self._stop_signal)
            self._process = None

    def kill(self) -> None:
        """SIGKILL the server, as a crash would, and wait until it is gone; the data stays.

        Raises `OutboxError` when we run none.
        """
        self._own_process().kill()
        self._process = None

    def close(self) -> None:
        """Stop the server and remove the temporary folder; leaving the context does this."""
        self.stop()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
        atexit.unregister(self.close)

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
