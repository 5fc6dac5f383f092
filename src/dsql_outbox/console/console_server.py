"""Serves the console over HTTP."""

from collections.abc import Callable, Collection
from typing import Final
from urllib.parse import urlsplit

import anyio

from dsql_outbox.http_server.hosts import in_url, is_loopback
from dsql_outbox.http_server.server import serving
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import SettingsError

from .application import console_app

CONSOLE_PORT: Final = 8640
"""The port of the console, unless another is chosen."""

_WILDCARDS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared
"""Addresses that stand for all of a machine, each with the one that its browsers reach."""


async def serve_console(  # noqa: PLR0913 - one argument per setting
    database: Database,
    *,
    host: str = "127.0.0.1",
    port: int = CONSOLE_PORT,
    token: str | None = None,
    open_to_this_machine: bool = False,
    jaeger: str | None = None,
    hosts: Collection[str] = (),
    interval: float = 2.0,
    ready: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve `console_app` until this task is cancelled; then end open streams, within a second.

    With port 0 the system picks a port. `ready` is called with the URL once it listens. No
    signal handler is installed. `host` counts as one of the `hosts` if it is no wildcard.

    Raises `SettingsError` as `console_app` does, for an address that it cannot listen on, and
    with `open_to_this_machine` for an address that other machines reach.
    """
    if open_to_this_machine and not is_loopback(host):
        raise SettingsError(
            f"a console without a token would be open to other machines on {host}: "
            "leave out the word that opens it, or listen on 127.0.0.1"
        )
    named = hosts if host in _WILDCARDS else (*hosts, in_url(host))
    app = console_app(
        database,
        token=token,
        open_to_this_machine=open_to_this_machine,
        jaeger=jaeger,
        hosts=named,
        interval=interval,
    )
    async with app.router.lifespan_context(app), serving(host, port, app) as url:
        try:
            # A browser on this machine cannot ask for a wildcard.
            reached = _WILDCARDS.get(host) or in_url(host)
            ready(f"http://{reached}:{urlsplit(url).port}/")
            await anyio.sleep_forever()
        finally:
            app.state.console.sampler.end_streams()
