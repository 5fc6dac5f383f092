"""A broker that closes or answers nonsense while it is opened is out of reach, and no more."""

import logging
import socket
import socketserver
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import ClassVar

import psycopg
import pytest
from tests.support.brokers.readable_brokers import NatsBroker
from tests.support.brokers.redis_server import RedisBroker
from tests.support.proxy.tcp_proxy import TcpProxy
from tests.support.publisher.running_relays import count, event, quick_settings, until
from tests.support.stand_ins import StandIn

from dsql_outbox.outbox import Database, SinkUnavailable
from dsql_outbox.publisher import Publisher, open_sink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

RESET = struct.pack("ii", 1, 0)

INFO = b'INFO {"server_id":"x","version":"2.11.0","max_payload":1048576,"headers":true}\r\n'
PONG = INFO + b"PONG\r\n"
LOGIN = INFO.replace(b"{", b'{"auth_required":true,')

NONSENSE = {
    "nats closes after CONNECT": ("nats", INFO, None),
    "nats closes behind its PONG": ("nats", PONG, None),
    "nats asks for the login in vain": ("nats", LOGIN, None),
    "nats with half a JSON": ("nats", INFO[:30] + b"\r\n", b""),
    "nats with no UTF-8": ("nats", INFO.replace(b"x", b"\xff"), b""),
    "nats with another protocol": ("nats", b"220 mail.example ESMTP\r\n", b"500 what?\r\n"),
    "redis with no number": ("redis", b"", b":1\r-ERR\r\n"),
    "redis with no length": ("redis", b"", b"$x\r\n"),
    "redis with nested arrays": ("redis", b"", b"*1\r\n" * 3_000),
    "redis with a line without end": ("redis", b"", b"+" + b"x" * 70_000),
    "redis with a redirection of no place": ("redis", b"", b"-MOVED x\r\n" * 3),
    "redis closes": ("redis", b"", None),
    "rabbitmq closes": ("rabbitmq", b"", None),
    "rabbitmq with zeros": ("rabbitmq", b"", b"\0" * 500),
    "rabbitmq with another protocol": ("rabbitmq", b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "kafka with another protocol": ("kafka", b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}


class Nonsense(socketserver.BaseRequestHandler):
    """Sends a greeting, and one answer whatever it gets; without an answer it closes."""

    greeting: ClassVar[bytes]
    answer: ClassVar[bytes | None]

    def handle(self) -> None:
        if self.greeting:
            self.request.sendall(self.greeting)
        while self.request.recv(1 << 16):
            if self.answer is None:
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                self.request.close()
                return
            self.request.sendall(self.answer)


@contextmanager
def talking_nonsense(name: str) -> Generator[int]:
    """The port of a server for one of `NONSENSE`."""
    _, greeting, answer = NONSENSE[name]
    handler = type("Handler", (Nonsense,), {"greeting": greeting, "answer": answer})
    with StandIn(handler).serving() as server:
        yield server.server_port


@pytest.mark.parametrize("name", NONSENSE)
async def test_a_broker_that_answers_nonsense_is_out_of_reach(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    scheme = NONSENSE[name][0]
    more = "&stream=EVENTS" if scheme == "nats" else ""
    with talking_nonsense(name) as port, pytest.raises(SinkUnavailable, match=f"127.0.0.1:{port}"):
        async with open_sink(f"{scheme}://127.0.0.1:{port}?timeout=0.5{more}"):
            pass
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


@pytest.fixture
def database(outbox_url: str) -> Database:
    return Database(outbox_url)


@pytest.fixture
def sql(outbox_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(outbox_url, autocommit=True) as connection:
        yield connection


@pytest.mark.filterwarnings(  # nats-py leaves the sockets of its failed attempts to Python
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("name", [
    "nats closes after CONNECT",
    "nats with no UTF-8",
    "redis with no length",
    "redis with nested arrays",
    "redis with a line without end",
])  # fmt: skip
async def test_a_publisher_waits_for_a_broker_that_answers_nonsense_and_delivers_then(
    name: str,
    database: Database,
    sql: psycopg.Connection,
    redis_broker: RedisBroker,
    nats_broker: NatsBroker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if it is opened again, after it was there."""
    broker = redis_broker if name.startswith("redis") else nats_broker
    proxy = broker.proxy
    assert isinstance(proxy, TcpProxy)
    there = vars(proxy)["_target"]
    with talking_nonsense(name) as port, Writer(database) as writer:
        writer.write(event("car", 1))
        monkeypatch.setattr(proxy, "_target", ("127.0.0.1", port))
        async with Publisher(database, broker.url, quick_settings()):
            for n in (2, 3):
                before = proxy.opened
                await until(lambda at=before: proxy.opened >= at + 2)  # type: ignore[misc]
                monkeypatch.setattr(proxy, "_target", there)
                proxy.cut_all()
                await until(lambda: count(sql, "outbox") == 0)
                monkeypatch.setattr(proxy, "_target", ("127.0.0.1", port))
                proxy.cut_all()
                writer.write(event("car", n))
            monkeypatch.setattr(proxy, "_target", there)
            proxy.cut_all()
            await until(lambda: count(sql, "outbox") == 0)
    assert {each.headers["sequence"] for each in await broker.stored()} == {"1", "2", "3"}
