"""A Sentinel, which knows where a server is and promotes a replica of it."""

import signal
from pathlib import Path
from typing import Any, Final

from redis import Redis
from tests.support.waiting import listens

from dsql_outbox.servers.server_process import EmbeddedServer, ServerProcess, free_port

from .redis_server import RedisServer, wheels_program

NAME: Final = "shop"


class RedisSentinel(EmbeddedServer):
    """One Sentinel that decides alone, half a second after the server was heard last."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__("Sentinel", None, signal.SIGTERM)
        self.port = free_port()
        self.client: Any = Redis(port=self.port)
        self._server = server

    @property
    def url(self) -> str:
        """The URL for sinks; its first Sentinel is away."""
        return f"redis://127.0.0.1:{free_port()},127.0.0.1:{self.port}?sentinel={NAME}"

    def __exit__(self, *raised: object) -> None:
        self.client.close()
        super().__exit__(*raised)

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess:
        folder.mkdir(exist_ok=True)
        file = folder / "sentinel.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"sentinel monitor {NAME} 127.0.0.1 {self._server.port} 1",
            f"sentinel down-after-milliseconds {NAME} 500",
            f"sentinel failover-timeout {NAME} 3000",
        ]
        file.write_text("\n".join(lines) + "\n")
        command = ["sh", "-c", 'exec "$@" >&2', "sh", wheels_program(), str(file), "--sentinel"]
        process = self._spawn(command, scratch / "sentinel.log")
        process.wait_until_ready(lambda: listens(self.port))
        return process
