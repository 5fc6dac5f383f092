"""Serves the console over HTTP."""

import asyncio
import os
import socket
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Final

import anyio
import uvicorn
from starlette.applications import Starlette

from dsql_outbox.outbox import Database, SettingsError

from .application import console_app

CONSOLE_PORT: Final = 8640
"""The port of the console, unless another is chosen."""


async def serve_console(  # noqa: PLR0913 - one argument per setting
    database: Database,
    *,
    host: str = "127.0.0.1",
    port: int = CONSOLE_PORT,
    token: str | None = None,
    jaeger: str | None = None,
    hosts: Collection[str] = (),
    interval: float = 2.0,
    ready: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve `console_app` until this task is cancelled; then end open streams, within a second.

    With port 0 the system picks a port. `ready` is called with the URL once it listens. No
    signal handler is installed. `host` counts as one of the `hosts` if it is no wildcard.

    Raises `SettingsError` as `console_app` does, for an address that it cannot listen on, and
    without a token for an address that other machines reach.
    """
    _require_safe(host, token)
    named = hosts if host in {"", "0.0.0.0", "::"} else (*hosts, _in_url(host))  # noqa: S104 - compared
    app = console_app(database, token=token, jaeger=jaeger, hosts=named, interval=interval)
    with _listening(host, port) as listener:
        url = f"http://{_in_url(host)}:{listener.getsockname()[1]}/"
        server = _Server(app, lambda: ready(url))
        await _serve(server, listener, app.state.console.sampler.end_streams)


class _Server(uvicorn.Server):
    """Calls `ready` once it listens, and leaves signals to its caller."""

    def __init__(self, app: Starlette, ready: Callable[[], object]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,
                lifespan="on",
                log_config=None,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=1,
                ws="none",
            )
        )
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call `ready`."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Handle no signal."""
        yield


async def _serve(server: _Server, listener: socket.socket, end_streams: Callable[[], None]) -> None:
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(task)
    finally:
        server.should_exit = True
        end_streams()
        with anyio.CancelScope(shield=True):
            await task


@contextmanager
def _listening(host: str, port: int) -> Generator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise SettingsError(
            f"the console cannot listen on {_in_url(host)}:{port}: {reason}; choose another port"
        ) from error
    with listener:
        yield listener


def _require_safe(host: str, token: str | None) -> None:
    if token is None and not _is_loopback(host):
        raise SettingsError(
            f"the console would be open to other machines on {host}: set a token in "
            "DSQL_OUTBOX_CONSOLE_TOKEN, or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
