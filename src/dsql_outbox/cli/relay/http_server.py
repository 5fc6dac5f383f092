"""A small HTTP server for health checks and scrapes, on the event loop of the relay.

It answers GET and HEAD on a few fixed paths and closes each connection. So that
no client can harm the relay, it limits an exchange to 5 seconds, a request to
8192 bytes, and the number of connections to 32.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Final, NamedTuple

from dsql_outbox.outbox import SettingsError

logger = logging.getLogger("dsql_outbox")

_SECONDS: Final = 5.0  # for a whole exchange
_CONNECTIONS: Final = 32  # open; one more closes the oldest
_REQUEST_BYTES: Final = 8192


class Answer(NamedTuple):
    """An HTTP response."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


Route = Callable[[], Answer]
Routes = Mapping[str, Route]

_INDEX: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<h1>{title}</h1>
<ul>
{links}
</ul>
"""


def index(title: str, paths: Iterable[str]) -> Answer:
    """A page with a link to each of the paths."""
    links = "\n".join(f'<li><a href="{path}">{path}</a>' for path in paths)
    body = _INDEX.format(title=title, links=links).encode()
    return Answer(HTTPStatus.OK, body, "text/html; charset=utf-8")


@asynccontextmanager
async def serving(host: str, port: int, routes: Routes) -> AsyncGenerator[str]:
    """Serve `routes` inside the block; yields the base URL.

    With port 0 the system picks a port, and the URL holds it. Raises `SettingsError` if it
    cannot listen on the address.
    """
    try:
        server = await asyncio.start_server(
            _Server(routes).serve, host, port, limit=_REQUEST_BYTES, backlog=_CONNECTIONS
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(f"--listen {host}:{port}: {reason.lower()}") from error
    try:
        bound = server.sockets[0].getsockname()[1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{bound}"
    finally:
        server.close()


class _Server:
    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._open: OrderedDict[asyncio.StreamWriter, None] = OrderedDict()  # oldest first

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first byte to its end."""
        if len(self._open) >= _CONNECTIONS:
            # The oldest connection is the slow one: a normal client takes milliseconds.
            self._open.popitem(last=False)[0].transport.abort()
        self._open[writer] = None
        # With a limit of 0, `drain` returns only when all bytes are sent. So the `abort`
        # below cuts off nothing but an answer that took too long.
        writer.transport.set_write_buffer_limits(0)
        try:
            with suppress(OSError, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(_SECONDS):
                    writer.write(await self._answer(reader))
                    await writer.drain()
                    writer.write_eof()
        finally:
            self._open.pop(writer, None)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, protocol = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            return _encoded(_plain(HTTPStatus.BAD_REQUEST))
        if not protocol.startswith("HTTP/1."):
            return _encoded(_plain(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED))
        if method not in {"GET", "HEAD"}:
            return _encoded(_plain(HTTPStatus.METHOD_NOT_ALLOWED))
        return _encoded(self._routed(target.partition("?")[0]), head_only=method == "HEAD")

    def _routed(self, path: str) -> Answer:
        route = self._routes.get(path)
        if route is None:
            return _plain(HTTPStatus.NOT_FOUND)
        try:
            return route()
        except Exception:
            logger.exception("%s could not be answered", path)
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR)


def _plain(status: HTTPStatus) -> Answer:
    return Answer(status, f"{status.phrase}\n".encode(), "text/plain; charset=utf-8")


def _encoded(answer: Answer, *, head_only: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else answer.body)
