"""A token that Aurora DSQL calls expired: signed anew, and tried once more."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import pack, unpack
from typing import Any

import anyio
import psycopg
import pytest
from dsql_core.token_manager import TokenManager

from dsql_outbox.outbox import Database
from dsql_outbox.outbox.database.dsql_address import DsqlAddress

pytestmark = pytest.mark.anyio

URL = "dsql://app@abc123.dsql.eu-central-1.on.aws/postgres"
EXPIRED = "Signature expired"

Connect = Callable[[Database], Any]


class Cluster:
    """A server that asks for a password, and refuses all but those it `accepts`."""

    def __init__(self, listener: socket.socket) -> None:
        self.port = listener.getsockname()[1]
        self.accepts: set[str] = set()
        self.hint = EXPIRED
        self.passwords: list[str] = []
        self._listener = listener
        self._sessions: list[socket.socket] = []

    def serve(self) -> None:
        """Answer until the listener is closed."""
        while True:
            try:
                session, _ = self._listener.accept()
            except OSError:
                return
            self._sessions.append(session)
            self._answer(session)

    def close(self) -> None:
        """Hang up."""
        for session in self._sessions:
            session.close()

    def _answer(self, session: socket.socket) -> None:
        read = session.makefile("rb")
        read.read(unpack("!i", read.read(4))[0] - 4)  # the startup message
        session.sendall(message(b"R", pack("!i", 3)))  # a password, please
        assert read.read(1) == b"p"
        password = read.read(unpack("!i", read.read(4))[0] - 4).rstrip(b"\0").decode()
        self.passwords.append(password)
        if password in self.accepts:
            encoding = message(b"S", b"client_encoding\0UTF8\0")
            session.sendall(message(b"R", pack("!i", 0)) + encoding + message(b"Z", b"I"))
            return
        fields = ["SFATAL", "VFATAL", "C28000", "Maccess denied", f"H{self.hint}"]
        session.sendall(message(b"E", "\0".join([*fields, "", ""]).encode()))
        read.close()
        session.close()


def message(kind: bytes, body: bytes) -> bytes:
    return kind + pack("!i", len(body) + 4) + body


@contextmanager
def serving() -> Iterator[Cluster]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cluster = Cluster(listener)
        thread = threading.Thread(target=cluster.serve)
        thread.start()
        yield cluster
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    cluster.close()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Where every cluster's name leads, without TLS; tokens are "token 1", "token 2", .."""
    signed = DsqlAddress.parameters
    tokens = iter(range(1, 100))
    monkeypatch.setattr(TokenManager, "get_token", lambda _: f"token {next(tokens)}")
    with serving() as cluster:

        def here(address: DsqlAddress, part: str, *, role_path: bool = False) -> dict[str, Any]:
            plain = {"sslmode": "disable", "sslnegotiation": "postgres", "gssencmode": "disable"}
            local = {"hostaddr": "127.0.0.1", "port": cluster.port}
            return signed(address, part, role_path=role_path) | plain | local

        monkeypatch.setattr(DsqlAddress, "parameters", here)
        yield cluster


async def in_thread(database: Database) -> Any:
    return await anyio.to_thread.run_sync(database.connect)


async def in_task(database: Database) -> Any:
    return await database.connect_async()


WAYS = pytest.mark.parametrize("connect", [in_thread, in_task])


def hang_up(connection: Any) -> None:
    connection.pgconn.finish()


@WAYS
async def test_an_expired_token_is_signed_anew_once_and_kept(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.accepts = {"token 2"}
    database = Database(URL)
    hang_up(await connect(database))
    hang_up(await connect(database))
    assert cluster.passwords == ["token 1", "token 2", "token 2"]


@WAYS
async def test_a_second_expiry_is_raised(cluster: Cluster, connect: Connect) -> None:
    with pytest.raises(psycopg.OperationalError, match=EXPIRED):
        await connect(Database(URL))
    assert cluster.passwords == ["token 1", "token 2"]


@WAYS
async def test_another_refusal_is_raised_at_once(cluster: Cluster, connect: Connect) -> None:
    cluster.hint = "No such role"
    with pytest.raises(psycopg.OperationalError, match="access denied"):
        await connect(Database(URL))
    assert cluster.passwords == ["token 1"]
