"""A proxy that delays bytes; it ends with its input.

``python -m benchmarks.goals.far_proxy PORT MS`` delays them MS milliseconds each way, and
prints the port on which it listens.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from tests.support.proxy.tcp_proxy import Link, Streams, TcpProxy


class _FarLink(Link):
    """A connection whose bytes arrive later."""

    def __init__(self, proxy: TcpProxy, client: Streams, server: Streams) -> None:
        super().__init__(proxy, client, server)
        self._there: deque[bytes] = deque()
        self._back: deque[bytes] = deque()

    async def from_client(self, data: bytes) -> None:
        self._later(self._there, data, self.to_server)

    def from_server(self, data: bytes) -> bytes:
        self._later(self._back, data, self.to_client)
        return b""

    def _later(self, waiting: deque[bytes], data: bytes, send: Callable[[bytes], None]) -> None:
        """Send after the delay; timers of one moment may run in any order, the bytes may not."""
        waiting.append(data)

        def due() -> None:
            with suppress(RuntimeError):  # the connection was closed meanwhile
                send(waiting.popleft())

        asyncio.get_running_loop().call_later(_delay, due)


class _FarProxy(TcpProxy):
    def _link(self, client: Streams, server: Streams) -> Link:
        return _FarLink(self, client, server)


if __name__ == "__main__":
    _delay = float(sys.argv[2]) / 1000
    with _FarProxy("127.0.0.1", int(sys.argv[1])) as proxy:
        print(proxy.port, flush=True)
        sys.stdin.read()
