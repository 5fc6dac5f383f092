"""An application on a real uvicorn, in the event loop of the test."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn


class Served:
    """A running server. `client` sends to it, `stop` ends it as SIGTERM does."""

    def __init__(self, app: Any) -> None:
        listening = socket.create_server(("127.0.0.1", 0))  # a free port that nobody else takes
        port = listening.getsockname()[1]
        config = uvicorn.Config(app, lifespan="on", log_level="critical")
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]))
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)

    async def started(self) -> None:
        """Wait until it serves; raises `RuntimeError` if it ends instead."""
        while not self._server.started:
            if self._task.done():
                raise RuntimeError("the application did not start")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Wait until running requests and the lifespan have ended."""
        self._server.should_exit = True
        await self._task


@asynccontextmanager
async def served(app: Any) -> AsyncGenerator[Served]:
    """Serve an application during the block."""
    server = Served(app)
    async with server.client:
        try:
            await server.started()
            yield server
        finally:
            await server.stop()
