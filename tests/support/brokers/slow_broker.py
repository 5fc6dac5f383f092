"""A broker whose messages can be stopped on their way, for as long as a test likes."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.support.proxy.tcp_proxy import Link, Streams, TcpProxy

from dsql_outbox.testing import NatsServer

_LONGEST = 30.0  # seconds; a safety net


class SlowBroker(TcpProxy):
    """A proxy in front of NATS; `held` stops what publishers send, before the server has it."""

    def __init__(self, server: NatsServer) -> None:
        super().__init__("127.0.0.1", urlsplit(server.url).port or 0)
        self._login = server.url.partition("@")[0]
        self._arrived = threading.Event()
        self._open = threading.Event()
        self._open.set()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"{self._login}@127.0.0.1:{self.port}"

    @contextmanager
    def held(self) -> Generator[None]:
        """Hold every message that comes, until the end of the block or `release`."""
        self._arrived.clear()
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def arrived(self) -> None:
        """Wait until a message is held."""
        assert self._arrived.wait(_LONGEST)

    def release(self) -> None:
        """Let all go on."""
        self._open.set()

    async def hold(self, data: bytes) -> None:
        if b"HPUB " in data and not self._open.is_set():
            self._arrived.set()
            await asyncio.to_thread(self._open.wait, _LONGEST)

    def _link(self, client: Streams, server: Streams) -> Link:
        return _SlowLink(self, client, server)


class _SlowLink(Link):
    def __init__(self, proxy: SlowBroker, client: Streams, server: Streams) -> None:
        super().__init__(proxy, client, server)
        self._slow = proxy

    async def from_client(self, data: bytes) -> None:
        await self._slow.hold(data)
        await super().from_client(data)
