"""Browsers of a console that answers in the event loop of the test."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from dsql_outbox.console import console_app
from dsql_outbox.outbox import Database


@asynccontextmanager
async def browsing(
    database: Database, *, client: str = "127.0.0.1", **settings: Any
) -> AsyncGenerator[httpx.AsyncClient]:
    """A client at an address, which asks for localhost; `settings` are those of the console.

    Without a token, the console is open to this machine.
    """
    app = console_app(database, open_to_this_machine="token" not in settings, **settings)
    transport = httpx.ASGITransport(app=app, client=(client, 50_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as browser:
        try:
            yield browser
        finally:
            await app.state.console.close()
