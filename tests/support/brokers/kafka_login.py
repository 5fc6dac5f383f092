"""A listener of Kafka that wants a login: SASL before librdkafka's mock cluster.

It speaks the protocol until the client is logged in, and forwards the rest. The requests are in
https://kafka.apache.org/protocol; the first message of a client is in RFC 7628, section 3.1.
"""

import socket
import socketserver
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

from tests.support.stand_ins import StandIn

from .kafka_mock import MockKafka

_HANDSHAKE = 5.0  # seconds
API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36
UNSUPPORTED_VERSION, AUTHENTICATION_FAILED = 35, 58


class TokenListener(StandIn):
    """Lets a client through to the mock cluster if `takes` accepts its token, or its password."""

    def __init__(
        self,
        mock: MockKafka,
        tls: ssl.SSLContext,
        takes: Callable[[str], bool] | None,
        mechanism: str = "OAUTHBEARER",
    ) -> None:
        super().__init__(_Login)
        self.takes = takes
        self.mechanism = mechanism
        self.tls = tls
        host, _, port = mock.bootstrap.rpartition(":")
        self.behind = (host, int(port))
        self.tokens: list[str] = []
        """Every token or password that came."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is refused, or refuses us, hangs up: that is no news."""


class _Login(socketserver.BaseRequestHandler):
    server: TokenListener

    def handle(self) -> None:
        self.request.settimeout(_HANDSHAKE)
        with (
            self.server.tls.wrap_socket(self.request, server_side=True) as client,
            socket.create_connection(self.server.behind) as mock,
            self.server.open_with(client, mock),
        ):
            client.settimeout(None)
            logged_in = self.server.takes is None
            while not logged_in:
                logged_in = self._answer(client, mock)
            upward = Thread(target=_forward, args=(client, mock, b"", b""))
            upward.start()
            # The cluster names its own address, and the client must stay here.
            ports = (
                struct.pack(">i", port) for port in (self.server.behind[1], self.server.server_port)
            )
            _forward(mock, client, *ports)
            upward.join()

    def _answer(self, client: ssl.SSLSocket, mock: socket.socket) -> bool:
        """Answer one request. Returns whether the client is logged in."""
        frame = _read(client)
        key, version, correlation = struct.unpack_from(">hhi", frame)
        body = frame[10 + max(0, struct.unpack_from(">h", frame, 8)[0]) :]
        if key == API_VERSIONS and version > 0:
            _write(client, correlation, struct.pack(">hi", UNSUPPORTED_VERSION, 0))
        elif key == API_VERSIONS:
            mock.sendall(struct.pack(">i", len(frame)) + frame)
            code, count = struct.unpack_from(">hi", known := _read(mock), 4)
            ours = b"".join(struct.pack(">hhh", k, 0, 1) for k in (17, 36))
            _write(client, correlation, struct.pack(">hi", code, count + 2) + known[10:] + ours)
        elif key == SASL_HANDSHAKE:
            name = self.server.mechanism.encode()
            _write(client, correlation, struct.pack(">hih", 0, 1, len(name)) + name)
        elif key == SASL_AUTHENTICATE:
            return self._judge(client, correlation, body[4:].decode())
        else:
            raise ConnectionError(f"request {key} before the login")
        return False

    def _judge(self, client: ssl.SSLSocket, correlation: int, said: str) -> bool:
        if self.server.mechanism == "PLAIN":  # RFC 4616: identity, user and password
            token = said.rpartition("\0")[2]
        else:
            token = said.partition("auth=Bearer ")[2].partition("\x01")[0]
        self.server.tokens.append(token)
        is_taken = self.server.takes is not None and self.server.takes(token)
        code = 0 if is_taken else AUTHENTICATION_FAILED
        text = b"" if is_taken else f"no such login: {said}".encode()
        more = struct.pack(">h", len(text)) + text + struct.pack(">iq", 0, 0)
        _write(client, correlation, struct.pack(">h", code) + more)
        return is_taken


def _read(source: socket.socket) -> bytes:
    (size,) = struct.unpack(">i", _exactly(source, 4))
    return _exactly(source, size)


def _exactly(source: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = source.recv(size - len(found))
        if not more:
            raise ConnectionError
        found += more
    return found


def _write(target: socket.socket, correlation: int, body: bytes) -> None:
    target.sendall(struct.pack(">ii", 4 + len(body), correlation) + body)


def _forward(source: socket.socket, target: socket.socket, old: bytes, new: bytes) -> None:
    with suppress(OSError):
        while True:
            frame = _read(source)
            if old:
                frame = frame.replace(old, new)
            target.sendall(struct.pack(">i", len(frame)) + frame)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
