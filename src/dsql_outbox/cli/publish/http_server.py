"""A small HTTP server for probes and scrapes, on the event loop of the relay.

It answers GET and HEAD on a few fixed paths and closes each connection. A
client has a few seconds for all, few may be there at once, and a request has to
be small; so none can harm the relay, whatever it does or leaves undone.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Final, NamedTuple

from dsql_outbox.outbox import SettingsError

logger = logging.getLogger("dsql_outbox")

_SECONDS: Final = 5.0  # for a whole exchange
_CONNECTIONS: Final = 32  # at once; for one more the oldest is closed
_REQUEST_BYTES: Final = 8192


class Answer(NamedTuple):
    """What a path answers."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


Routes = Mapping[str, Callable[[], Answer]]


@asynccontextmanager
async def serving(host: str, port: int, routes: Routes) -> AsyncGenerator[str]:
    """Answer inside the block; gives the base URL, with the port that was found if it was 0.

    Raises `SettingsError` if the address cannot be listened on.
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
            # Whoever is here longest is the one that dawdles: a good client takes milliseconds.
            self._open.popitem(last=False)[0].transport.abort()
        self._open[writer] = None
        # So that `drain` returns when all is sent, and what is not can be thrown away.
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
