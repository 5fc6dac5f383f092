"""One client's PostgreSQL session: matches the client's statements with the server's answers."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from . import wire_protocol as wire
from .tcp_proxy import Link, Streams, TcpProxy
from .wire_protocol import Splitter, WireMessage

Answer: TypeAlias = Callable[[WireMessage], bytes]
"""Turns a message of the server into the bytes that the client gets instead of it."""

_BATCHED: Final = {
    wire.PARSE,
    wire.BIND,
    wire.DESCRIBE_OR_ROW,
    wire.EXECUTE_OR_ERROR,
    wire.CLOSE_OR_COMPLETE,
}
_ENDS: Final = {wire.QUERY, wire.SYNC, wire.FLUSH}
_IDLE: Final = b"I"  # ReadyForQuery: not in a transaction


def pass_on(message: WireMessage) -> bytes:
    """Give the client the server's message unchanged."""
    return message.raw


def swallow(message: WireMessage) -> bytes:  # noqa: ARG001 - an Answer
    """Give the client nothing."""
    return b""


@dataclass(frozen=True, slots=True)
class Batch:
    """The messages that a client sent up to a Sync, a Flush or a simple Query.

    `statements` holds, per statement that it runs, the index of its Bind or Query
    in `messages` and its SQL. A Query may run several.
    """

    messages: Sequence[WireMessage]
    statements: Sequence[tuple[int, str]] = ()

    @property
    def asks_ready(self) -> bool:
        """Whether the server will answer with ReadyForQuery, which it does not after a Flush."""
        return self.messages[-1].kind != wire.FLUSH


@dataclass(slots=True)
class ProxiedExchange:
    """A batch that was sent to the server, and how to answer the client.

    `startup` marks the exchange that opens the session.
    """

    answer: Answer
    startup: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server has answered. If the server dies, the session's tasks are cancelled."""


class Script(Protocol):
    """The part of a proxy that a session calls."""

    def note_statements(self, statements: Iterable[str]) -> None:
        """Record statements that the client sent to be run."""
        ...

    def note_round_trip(self) -> None:
        """Count an answer that the client gets in full."""
        ...

    def reactions(self, batch: Batch, transaction: Sequence[str]) -> "Iterable[Reaction]":
        """Choose the reaction to a batch.

        `transaction` is the SQL that ran in the current transaction, including
        this batch.
        """
        ...


class ClientSession(Link):
    """A link that understands PostgreSQL's protocol and asks a script how to react to batches."""

    def __init__(self, proxy: TcpProxy, client: Streams, server: Streams, script: Script) -> None:
        super().__init__(proxy, client, server)
        self._script = script
        self._from_client = Splitter(untyped=True)
        self._from_server = Splitter(untyped=False)
        self._messages: list[WireMessage] = []  # of the batch that is arriving
        self._prepared: dict[str, str] = {}  # name to SQL
        self._transaction: list[str] = []
        self._exchanges: deque[ProxiedExchange] = deque()
        self._flushed: ProxiedExchange | None = None  # sent up to a Flush; its Sync will follow

    def note_connected(self) -> None:
        """Count nothing yet: this may be a connection that only sends a cancel request."""

    async def from_client(self, data: bytes) -> None:
        """Collect messages into batches and react to them. Raises `Cut`."""
        for message in self._from_client.feed(data):
            await self._take(message)

    def from_server(self, data: bytes) -> bytes:
        """The bytes for the client: each message as its exchange answers it."""
        return b"".join([self._answer(message) for message in self._from_server.feed(data)])

    def send(self, batch: Batch, answer: Answer | None = None) -> ProxiedExchange:
        """Send a batch to the server.

        `answer` decides the part that the client gets; by default, everything.
        """
        exchange = self._flushed or self._new_exchange()
        if answer is not None:
            exchange.answer = answer
        self._flushed = None if batch.asks_ready else exchange
        self.to_server(b"".join([message.raw for message in batch.messages]))
        return exchange

    async def _take(self, message: WireMessage) -> None:
        if not message.kind:
            self._take_request(message)
            return
        self._messages.append(message)
        if message.kind not in _BATCHED:
            messages, self._messages = self._messages, []
            await self._take_batch(messages)

    def _take_request(self, message: WireMessage) -> None:
        code = wire.request_code(message)
        if code in {wire.SSL_REQUEST, wire.GSSENC_REQUEST}:
            self.answer(b"N")
            return
        if code != wire.CANCEL_REQUEST:
            self.count_opened()
            self._new_exchange().startup = True
        self.to_server(message.raw)

    async def _take_batch(self, messages: list[WireMessage]) -> None:
        if messages[-1].kind not in _ENDS:  # a password, data of a COPY, or Terminate
            self.to_server(b"".join([message.raw for message in messages]))
            return
        batch = Batch(messages, list(self._statements(messages)))
        statements = [sql for _, sql in batch.statements]
        self._script.note_statements(statements)
        self._transaction += statements
        for react in self._script.reactions(batch, self._transaction):
            await react(self, batch)

    def _statements(self, messages: Iterable[WireMessage]) -> Iterator[tuple[int, str]]:
        for place, message in enumerate(messages):
            match message.kind:
                case wire.PARSE:
                    name, sql = wire.parsed_statement(message)
                    self._prepared[name] = sql
                case wire.BIND:
                    yield place, self._prepared.get(wire.bound_statement(message), "")
                case wire.QUERY:
                    for each in wire.statements(wire.query_text(message)):
                        yield place, each
                case _:
                    pass

    def _new_exchange(self) -> ProxiedExchange:
        exchange = ProxiedExchange(pass_on)
        self._exchanges.append(exchange)
        return exchange

    def _answer(self, message: WireMessage) -> bytes:
        if not self._exchanges:  # not an answer: a notice, or the error of a shutdown
            return message.raw
        exchange = self._exchanges[0]
        answer = exchange.answer(message)
        if message.kind == wire.READY:
            self._end_exchange(message, counts=bool(answer) and not exchange.startup)
        return answer

    def _end_exchange(self, ready: WireMessage, *, counts: bool) -> None:
        exchange = self._exchanges.popleft()
        exchange.over.set()
        if ready.body == _IDLE and not self._exchanges:
            self._transaction.clear()
        if counts:
            self._script.note_round_trip()


Reaction: TypeAlias = Callable[[ClientSession, Batch], Awaitable[None]]
"""Handles one batch of a session, or acts before another reaction handles it."""
