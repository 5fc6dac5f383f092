"""An endpoint shaped like Aurora DSQL, for what the library connects; tests themselves pass by."""

import asyncio
import re
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from tests.support.proxy import wire_protocol as wire
from tests.support.proxy.tcp_proxy import Cut, Link, Streams, TcpProxy
from tests.support.proxy.wire_protocol import Splitter, WireMessage
from tests.support.sql.inventory import known

from .cluster_rules import MAX_BYTES
from .governed import KEY, STARTUP, GovernedPostgres
from .ministack import Ministack

_OURS: Final = b"application_name\0dsql-outbox"
"""The library says so in each session, unless the user names another application."""

_LIBRARYS: Final = re.compile(r"(?!-- For a test)(-- |.*\"\w+\"\.\w)", re.DOTALL)

_HEAD: Final = 4  # bytes of a length


class DsqlEndpoint(TcpProxy):
    """PostgreSQL behind ministack's proxy and behind the rules, as a context manager.

    ministack logs everybody in as postgres. So a session goes through it under a number, and
    gets its own user, database and options back in front of the server.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        super().__init__(str(parts.hostname), parts.port or 5432)
        self._governed = _Restoring(url)
        self._ministack = Ministack(self._governed.port)
        self._stack = ExitStack()
        self.statements: set[str] = set()
        """The SQL that the library sent."""
        self.keys: dict[bytes, Callable[[], WireMessage | None]] = {}
        """For each key that ministack gave, what gives the key of the server."""

    def unlisted(self) -> list[str]:
        """What the library sent and the inventory does not have; tests send SQL of their own.

        All of the library's begins by saying why it exists, or names its schema in quotes.
        """
        ours = [text for text in self.statements if _LIBRARYS.match(text)]
        return sorted(text for text in ours if known(text) is None)

    async def _serve(self, client: Streams) -> None:
        startup = await _startup(client)
        if startup is None:
            return
        if wire.request_code(startup) == wire.CANCEL_REQUEST:
            code, key = startup.body[:_HEAD], startup.body[_HEAD:]
            if (known := self.keys.get(key, lambda: None)()) is not None:
                startup = WireMessage(b"", code + known.body)
                self._governed.cancels += 1
        ours = wire.request_code(startup) == STARTUP and _OURS in startup.body
        first = self._governed.numbered(startup) if ours else startup

        def make(client: Streams, server: Streams) -> Link:
            watched = _Watched(self, client, server, self._governed.key(first))
            link = watched if ours else Link(self, client, server)
            link.to_server(first.raw)
            return link

        target = ("127.0.0.1", self._ministack.port) if ours else self._target
        await self._carry(client, target, make)

    def __enter__(self) -> Self:
        self._stack.enter_context(self._governed)
        self._stack.enter_context(self._ministack)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            super().__exit__(kind, error, trace)


class _Restoring(GovernedPostgres):
    """The rules, for sessions that come under a number."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._numbers = count()
        self._startups: dict[bytes, WireMessage] = {}
        self._keys: dict[bytes, WireMessage] = {}

    def numbered(self, startup: WireMessage) -> WireMessage:
        """What stands for this first message on the way."""
        number = b"%d" % next(self._numbers)
        self._startups[number] = startup
        version = startup.body[:_HEAD]
        return WireMessage(b"", version + b"user\0postgres\0database\0" + number + b"\0\0")

    def startup(self, message: WireMessage) -> WireMessage:
        """The session's own first message; ministack tries more than once, if need be."""
        return super().startup(self._startups[_number(message)])

    def opened_session(self, startup: WireMessage, key: WireMessage) -> None:
        """Keep the key by which the session is cancelled."""
        self._keys[_number(startup)] = key

    def key(self, first: WireMessage) -> Callable[[], WireMessage | None]:
        """What gives the key of the session with this first message, once it is open."""
        return lambda: self._keys.get(_number(first))


def _number(startup: WireMessage) -> bytes:
    return startup.body[:-2].rpartition(b"\0")[2]


class _Watched(Link):
    """A session of the library, whose statements are noted."""

    def __init__(
        self,
        endpoint: DsqlEndpoint,
        client: Streams,
        server: Streams,
        key: Callable[[], WireMessage | None],
    ) -> None:
        super().__init__(endpoint, client, server)
        self._noted = endpoint.statements
        self._noted_keys = endpoint.keys
        self._splitter = Splitter(untyped=False)
        self._greeting: Splitter | None = Splitter(untyped=False)
        self._key = key

    def from_server(self, data: bytes) -> bytes:
        """The bytes of ministack, unchanged. Its greeting has a key that the server lacks."""
        if self._greeting is not None:
            messages = self._greeting.feed(data)
            self._noted_keys.update({m.body: self._key for m in messages if m.kind == KEY})
            if any(m.kind == wire.READY for m in messages):
                self._greeting = None
        return data

    async def from_client(self, data: bytes) -> None:
        for message in self._splitter.feed(data):
            if len(message.raw) > MAX_BYTES:
                raise Cut
            if message.kind == wire.PARSE:
                self._noted.add(wire.parsed_statement(message)[1])
            elif message.kind == wire.QUERY:
                self._noted.update(wire.statements(wire.query_text(message)))
        self.to_server(data)


async def _startup(client: Streams) -> WireMessage | None:
    """The first message that asks for more than encryption; None if none comes."""
    reader, writer = client
    try:
        while True:
            head = await reader.readexactly(_HEAD)
            message = WireMessage(b"", await reader.readexactly(int.from_bytes(head) - _HEAD))
            if wire.request_code(message) not in {wire.SSL_REQUEST, wire.GSSENC_REQUEST}:
                return message
            writer.write(b"N")
    except (asyncio.IncompleteReadError, OSError):
        return None
