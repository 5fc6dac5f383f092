"""ministack's proxy for Aurora DSQL, which refuses the SQL that DSQL refuses."""

import signal
import socket
from pathlib import Path
from typing import Final

from tests.support.checkout import ROOT

from dsql_outbox.servers.server_process import EmbeddedServer, ServerProcess, free_port

ENVIRONMENT: Final = ROOT / ".venv" / "conformance"
"""Made by `make conformance`: the dependency group of that name."""

_SCRIPT: Final = Path(__file__).with_name("ministack_proxy.py")
_CONNECT: Final = 1.0  # seconds


class Ministack(EmbeddedServer):
    """The proxy on 127.0.0.1 in front of PostgreSQL at `backend`, as a context manager."""

    def __init__(self, backend: int) -> None:
        super().__init__("ministack", None, signal.SIGTERM)
        self._backend = backend
        self.port: Final = free_port()

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess:  # noqa: ARG002 - no data
        # -P: beside the script lies this file, which is not the package ministack.
        command = [str(ENVIRONMENT / "bin" / "python"), "-P", str(_SCRIPT)]
        ports = [str(self.port), str(self._backend)]
        process = self._process = ServerProcess(
            self._name, [*command, *ports], scratch / "ministack.log"
        )
        process.wait_until_ready(self._listens)
        return process

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), _CONNECT).close()
        except OSError:
            return False
        return True
