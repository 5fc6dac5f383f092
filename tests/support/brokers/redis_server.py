"""A Redis of Debian's package, and what a consumer finds in its streams."""

import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import pytest
from redis import Redis
from tests.support.waiting import listens

from dsql_outbox.publisher.sinks import attributes
from dsql_outbox.servers.server_process import EmbeddedServer, ServerProcess, free_port
from dsql_outbox.testing import TcpProxy
from dsql_outbox.testing.sink_contract import ReadableBroker, Stored

PROGRAM: Final = "redis-server"


class RedisServer(EmbeddedServer):
    """Redis on 127.0.0.1; what it holds is gone when it ends. Skips the test without Redis."""

    def __init__(self) -> None:
        if shutil.which(PROGRAM) is None:
            pytest.skip(f"{PROGRAM} is missing: apt-get install {PROGRAM}")
        super().__init__("Redis", None, signal.SIGTERM)
        self.port = free_port()
        self.client: Any = Redis(port=self.port)

    def stored(self) -> list[Stored]:
        """What is in all streams."""
        topics = sorted(topic.decode() for topic in self.client.scan_iter())
        return [_stored(topic, entry) for topic in topics for _, entry in self.client.xrange(topic)]

    def __exit__(self, *raised: object) -> None:
        self.client.close()
        super().__exit__(*raised)

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess:  # noqa: ARG002 - in memory
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(scratch)]
        process = self._process = ServerProcess(
            self._name, [PROGRAM, *place, "--save", ""], scratch / "redis.log"
        )
        process.wait_until_ready(partial(listens, self.port))
        return process


class RedisBroker(ReadableBroker):
    """The streams of a server, which the sink reaches through a proxy."""

    def __init__(self, server: RedisServer, proxy: TcpProxy) -> None:
        self.server = server
        self.proxy = proxy
        self._url = f"redis://127.0.0.1:{proxy.port}?timeout=1"

    @property
    def url(self) -> str:
        return self._url

    async def stored(self) -> list[Stored]:
        return self.server.stored()


def _stored(topic: str, entry: dict[bytes, bytes]) -> Stored:
    headers = {name.decode(): value.decode() for name, value in entry.items() if name != b"payload"}
    return Stored(topic, attributes(headers, "ce-"), entry[b"payload"])
