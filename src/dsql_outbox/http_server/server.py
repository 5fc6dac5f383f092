"""An HTTP/1 server for an ASGI application, on the event loop of its caller.

Each connection carries one request. So that no client can harm the process, it limits

- the time that a client may take to send its request, and to take each 64 KiB of the answer;
- the sizes of a request;
- the number of connections. One more closes the oldest of those that wait for a client, so
  clients that stay silent harm one another only.
"""

import asyncio
import errno
import logging
import os
import resource
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

import anyio

from dsql_outbox.outbox.errors import OutboxError, SettingsError
from dsql_outbox.outbox.redaction import without_text

from .hosts import in_url
from .request_head import Refused, RequestHead, request_head

logger = logging.getLogger("dsql_outbox")

SECONDS: Final = 5.0
"""The time for a client to send its request, and to take each `_PART_BYTES` of the answer."""

CONNECTIONS: Final = 128
"""Connections that may be open, if the process may have enough descriptors."""

_SHARE: Final = 4  # connections take at most one in so many descriptors of the process
_HEAD_BYTES: Final = 32 << 10  # browsers send the cookies of all ports of a host
_BODY_BYTES: Final = 16 << 10
_PART_BYTES: Final = 64 << 10  # of an answer, which a client has to take in its time
_GRACE: Final = 1.0  # seconds: for open answers at the end, and for a client to hang up
_PAUSE: Final = 0.2  # seconds before the next try to accept after an error
_MOMENT: Final = 0.001  # seconds that a connection takes to close
_LOGGED: Final = 60.0  # seconds between two log lines about that
_ABSENT: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # localhost, without IPv6

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of each answer, unless the application sets them."""

_DEFAULTS: Final = [
    (name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()
]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


@asynccontextmanager
async def serving(host: str, port: int, application: Application) -> AsyncGenerator[str]:
    """Serve an ASGI application inside the block; yields the base URL, without a slash at its end.

    With port 0 the system picks a port. At the end, open answers have a second to end. Raises
    `SettingsError` if it cannot listen on the address.
    """
    server = _Server(application)
    listeners = await _listeners(host, port)
    accepting = [asyncio.create_task(server.accept(listener)) for listener in listeners]
    try:
        bound = listeners[0].getsockname()[1]
        yield f"http://{in_url(host)}:{bound}"
    finally:
        with anyio.CancelScope(shield=True):
            for task in accepting:
                task.cancel()
            await asyncio.gather(*accepting, return_exceptions=True)
            for listener in listeners:
                listener.close()
            await server.end()


async def plain_answer(send: Send, status: HTTPStatus) -> None:
    """Answer with the phrase of a status."""
    body = f"{status.phrase}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _listeners(host: str, port: int) -> list[socket.socket]:
    """Listen on each address of a host, on the same port."""
    listeners: list[socket.socket] = []
    failure: OSError | UnicodeError | None = None
    try:
        for family, address in await _addresses(host, port):
            try:
                listeners.append(_listener(family, address, port))
            except OSError as error:
                failure = error
                if error.errno not in _ABSENT:
                    break
            port = listeners[0].getsockname()[1] if listeners else port
    except (OSError, UnicodeError) as error:
        failure = error
    if listeners and (failure is None or getattr(failure, "errno", None) in _ABSENT):
        return listeners
    for listener in listeners:
        listener.close()
    raise SettingsError(
        f"cannot listen on {in_url(host)}:{port}: {_reason(failure)}; "
        "choose another address or port"
    ) from failure


def _listener(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.create_server((address, port), family=family, backlog=CONNECTIONS)
    listener.setblocking(False)
    return listener


def _reason(failure: OSError | UnicodeError | None) -> str:
    if isinstance(failure, socket.gaierror | UnicodeError) or failure is None:
        return "the host is unknown"
    return os.strerror(failure.errno).lower() if failure.errno else str(failure)


async def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    # A dict drops repetitions and keeps the order.
    return list(dict.fromkeys((family, str(address[0])) for family, *_, address in found))


class _Server:
    """The open connections, each with its task."""

    def __init__(self, application: Application) -> None:
        self._application = application
        # Both from the oldest to the newest.
        self._waiting: dict[asyncio.Task[None], None] = {}  # for their clients
        self._answering: dict[asyncio.Task[None], None] = {}
        self._logged_at = -_LOGGED

    async def accept(self, listener: socket.socket) -> None:
        """Accept connections until cancelled."""
        # asyncio's own server would report an error as often as the backlog is long.
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except ConnectionError:  # it has hung up
                continue
            except OSError as error:
                # Most likely the process has no descriptor left, which the closing gives back.
                has_closed = self._close_one()
                self._report(error)
                await asyncio.sleep(_MOMENT if has_closed else _PAUSE)
                continue
            with suppress(OSError):  # the same
                await self._open(client)

    async def end(self) -> None:
        """Close what waits for a client; give answers a second to end."""
        for task in self._waiting:
            task.cancel()
        if self._answering:
            await asyncio.wait(self._answering, timeout=_GRACE)
        rest = [*self._waiting, *self._answering]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _open(self, client: socket.socket) -> None:
        limit = min(CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE)
        if len(self._waiting) + len(self._answering) >= limit:
            self._close_one()
        reader, writer = await asyncio.open_connection(sock=client, limit=_HEAD_BYTES)
        # With a limit of 0, `drain` returns only when all bytes are sent. So closing the
        # connection cuts off nothing but an answer that took too long.
        writer.transport.set_write_buffer_limits(0)
        task = asyncio.create_task(self._serve(reader, writer))
        self._waiting[task] = None
        task.add_done_callback(lambda done: self._forget(done, writer))

    def _close_one(self) -> bool:
        """Close the oldest connection that waits for its client; if none does, the oldest.

        Returns False if no connection is open.
        """
        oldest = next(iter(self._waiting or self._answering), None)
        if oldest is not None:
            self._waiting.pop(oldest, None)
            self._answering.pop(oldest, None)
            oldest.cancel()
        return oldest is not None

    def _forget(self, done: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        self._waiting.pop(done, None)
        self._answering.pop(done, None)
        writer.transport.abort()
        if not done.cancelled() and (error := done.exception()) is not None:
            shown = OutboxError(type(error).__name__)
            text = "an HTTP connection ended with an error: %s"
            logger.error(text, shown, exc_info=without_text(error, shown))

    def _report(self, error: OSError) -> None:
        if monotonic() - self._logged_at >= _LOGGED:
            self._logged_at = monotonic()
            logger.warning("no HTTP connection can be accepted: %s", error.strerror or error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first byte to its end."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(SECONDS):
                request = await _request(reader)
            self._waiting.pop(task, None)
            self._answering[task] = None
            await _Exchange(request, reader, writer).run(self._application)
            self._answering.pop(task, None)
            self._waiting[task] = None
            await _hung_up(reader, writer)


async def _request(reader: asyncio.StreamReader) -> tuple[RequestHead, bytes] | Refused:
    try:
        head = request_head(await reader.readuntil(b"\r\n\r\n"))
        if head.length > _BODY_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    except asyncio.LimitOverrunError:
        return Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    except Refused as refused:
        return refused
    return head, await reader.readexactly(head.length)


async def _hung_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End the connection, and wait until the client does.

    Otherwise bytes that nobody has read would reset it, and the client would lose the answer.
    """
    if not writer.transport.is_closing():
        writer.write_eof()
    async with asyncio.timeout(_GRACE):
        while await reader.read(_HEAD_BYTES):
            pass


class _Exchange:
    """A request and its answer, as an ASGI application sees them."""

    def __init__(
        self,
        request: tuple[RequestHead, bytes] | Refused,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._request = request
        self._reader = reader
        self._writer = writer
        self._body_given = False
        self._head: bytes | None = None  # of the answer, until it is sent
        self._started = False
        self._has_no_body = False
        self._ended = False
        self._lost = False

    async def run(self, application: Application) -> None:
        """Answer the request. Raises `OSError` if the answer is not complete."""
        if isinstance(self._request, Refused):
            return await plain_answer(self._send, self._request.status)
        head, _ = self._request
        try:
            await application(self._scope(head), self._receive, self._send)
        except Exception:
            if not self._lost:
                logger.exception("%s could not be answered", head.path)
        if not self._started:
            await plain_answer(self._send, HTTPStatus.INTERNAL_SERVER_ERROR)
        if not self._ended:
            # An answer without a length ends with the connection. A reset says that it is cut.
            end = self._writer.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self._lost or not self._ended:
            raise ConnectionAbortedError
        return None

    def _scope(self, head: RequestHead) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "method": head.method,
            "scheme": "http",
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "root_path": "",
            "headers": head.headers,
            "client": self._address("peername"),
            "server": self._address("sockname"),
        }

    def _address(self, name: str) -> tuple[str, int] | None:
        found = self._writer.get_extra_info(name)
        return (found[0], found[1]) if found else None

    async def _receive(self) -> Message:
        """The body; then, when the client has hung up, the message that says so."""
        assert not isinstance(self._request, Refused)  # noqa: S101 - it reaches no application
        if not self._body_given:
            self._body_given = True
            return {"type": "http.request", "body": self._request[1], "more_body": False}
        with suppress(OSError):
            while await self._reader.read(_HEAD_BYTES):
                pass
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = b"".join(_lines(message["status"], message.get("headers", ())))
            self._started = True
            self._has_no_body = message["status"] in _WITHOUT_BODY or self._is_head
            return
        head, self._head = self._head or b"", None
        await self._sent(head + (b"" if self._has_no_body else message.get("body", b"")))
        self._ended = not message.get("more_body", False)

    async def _sent(self, data: bytes) -> None:
        """Send bytes. A client that has gone is no error of the application."""
        if self._lost or not data:
            return
        rest = memoryview(data)
        try:
            while rest:
                async with asyncio.timeout(SECONDS):
                    self._writer.write(rest[:_PART_BYTES])
                    await self._writer.drain()
                rest = rest[_PART_BYTES:]
        except (OSError, TimeoutError):
            self._lost = True
            self._writer.transport.abort()

    @property
    def _is_head(self) -> bool:
        return not isinstance(self._request, Refused) and self._request[0].method == "HEAD"


_WITHOUT_BODY: Final = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
_OURS: Final = {b"connection", b"transfer-encoding", b"date"}


def _lines(status: int, headers: Any) -> Iterator[bytes]:
    """The head of an answer. Raises `ValueError` for a header that would end its line."""
    given = [(bytes(name).lower(), bytes(value)) for name, value in headers]
    named = {name for name, _ in given}
    yield f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
    for name, value in [*given, *(each for each in _DEFAULTS if each[0] not in named)]:
        if not {*b"\r\n\0"}.isdisjoint(name + value):
            raise ValueError(f"the header {name!r} contains a line break")
        if name not in _OURS:
            yield b"%b: %b\r\n" % (name, value)
    yield f"date: {formatdate(usegmt=True)}\r\nconnection: close\r\n\r\n".encode()
