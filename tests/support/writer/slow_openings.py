"""A proxy that holds up new connections, for a time or until the test releases them."""

import asyncio
import math

from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.proxy.tcp_proxy import Streams


class SlowOpenings(PostgresProxy):
    """Each new connection gets no byte for `delay` seconds, or before `let_go`."""

    def __init__(self, url: str, delay: float = math.inf) -> None:
        super().__init__(url)
        self.begun = 0
        """How many connections were begun."""
        self.delay = delay
        self._free = asyncio.Event()

    def let_go(self) -> None:
        """Carry on with all connections, and hold up no later one."""
        self.delay = 0.0
        self._loop.call_soon_threadsafe(self._free.set)

    def hold_up(self) -> None:
        """Hold up the connections that are begun from now on."""
        self.delay = math.inf
        self._free = asyncio.Event()

    async def _serve(self, client: Streams) -> None:
        self.begun += 1
        if self.delay == math.inf:
            await self._free.wait()
        else:
            await asyncio.sleep(self.delay)
        await super()._serve(client)
