"""Connections that are refused, cut and silenced."""

import asyncio
import gc
import socket
import threading
from contextlib import nullcontext

import psycopg
import pytest
from psycopg.errors import OperationalError
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.proxy.tcp_proxy import TcpProxy
from tests.support.proxy_clients import INSERT, SyncClient, own_socket

from dsql_outbox.outbox import SettingsError
from dsql_outbox.servers import server_process
from dsql_outbox.servers.server_process import free_port


def test_connections_can_be_refused_a_number_of_times(proxy: PostgresProxy) -> None:
    proxy.refuse_connections(2)
    for _ in range(2):
        with pytest.raises(OperationalError):
            psycopg.connect(proxy.url)
    psycopg.connect(proxy.url).close()


def test_connections_can_be_refused_until_healed(proxy: PostgresProxy) -> None:
    proxy.refuse_connections()
    for _ in range(3):
        with pytest.raises(OperationalError):
            psycopg.connect(proxy.url)
    proxy.heal()
    psycopg.connect(proxy.url).close()


def test_nobody_listens_during_a_pause_and_open_connections_stay(
    proxy: PostgresProxy, client: SyncClient
) -> None:
    proxy.pause_listening()
    with pytest.raises(OperationalError, match="Connection refused"):
        psycopg.connect(proxy.url)
    client.execute(INSERT, [1])
    proxy.resume_listening()
    psycopg.connect(proxy.url).close()


def test_nobody_takes_the_port_during_a_pause(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.pause_listening()
    other = free_port()
    monkeypatch.setattr(server_process, "_PORTS", [proxy.port] * 1_000 + [other])
    assert free_port() == other
    proxy.resume_listening()
    psycopg.connect(proxy.url).close()


def test_a_client_is_turned_away_while_the_server_is_down() -> None:
    with (
        PostgresProxy(f"postgresql://postgres@127.0.0.1:{free_port()}/x") as proxy,
        pytest.raises(OperationalError, match="closed the connection"),
    ):
        psycopg.connect(proxy.url)


def test_all_connections_can_be_cut_at_once(proxy: PostgresProxy) -> None:
    with psycopg.connect(proxy.url) as one, psycopg.connect(proxy.url) as two:
        proxy.cut_all(reset=True)
        proxy.wait_until_closed(2)
        for client in (one, two):
            with own_socket(client) as stream, pytest.raises(ConnectionResetError):
                stream.recv(100)


def test_leaving_the_proxy_leaves_no_connection_that_was_just_accepted(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """The server is one that takes all connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        for _ in range(20):
            with TcpProxy("127.0.0.1", server.getsockname()[1]) as proxy:
                clients = [socket.socket() for _ in range(20)]
                for client in clients:
                    client.setblocking(False)
                    client.connect_ex(("127.0.0.1", proxy.port))
            for client in clients:
                client.close()
            tasks = asyncio.all_tasks(proxy._loop)
            assert not tasks
    gc.collect()
    assert [str(each.message) for each in recwarn] == []


def test_leaving_the_proxy_ends_its_connections_and_its_thread(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with PostgresProxy(url) as proxy:
        client = psycopg.connect(proxy.url)
        name = f"proxy on port {proxy.port}"
        assert name in [thread.name for thread in threading.enumerate()]
    with pytest.raises(OperationalError):
        client.execute("SELECT 1")
    client.close()
    assert proxy.closed == 1
    assert caplog.records == []  # asyncio logs what nobody handled
    assert name not in [thread.name for thread in threading.enumerate()]


def test_the_url_is_the_servers_but_for_the_way_there() -> None:
    proxy = PostgresProxy("postgresql://me:p%40ss@db:6000/x%20y?sslmode=require&target=1")
    assert proxy.url == f"postgresql://me:p%40ss@127.0.0.1:{proxy.port}/x%20y?target=1"
    spaced = PostgresProxy("postgresql://db/x?options=-c%20a%3Db")
    assert spaced.url.endswith("?options=-c%20a%3Db")  # libpq takes a + for a plus
    for wrong in ("mysql://h/x", "postgresql:///x?host=/tmp"):
        with pytest.raises(SettingsError, match="over TCP"):
            PostgresProxy(wrong)


@pytest.mark.parametrize("swallowed", [True, False])
def test_a_servers_words_can_be_swallowed(swallowed: bool) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        TcpProxy(*server.getsockname()) as proxy,
        proxy.swallow_server() if swallowed else nullcontext(),
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client,
    ):
        client.sendall(b"hello?")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(100) == b"hello?"
            accepted.sendall(b"yes")
        assert client.recv(100) == (b"" if swallowed else b"yes")  # the end follows
    assert not proxy.swallows


def test_open_connections_can_fall_silent_while_new_ones_work() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        TcpProxy(*server.getsockname()) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as before,
        server.accept()[0] as old,
    ):
        old.sendall(b"welcome")
        assert before.recv(100) == b"welcome"
        proxy.silence_all()
        old.sendall(b"are you there?")
        old.close()
        assert before.recv(100) == b""  # the end follows
        with (
            socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as after,
            server.accept()[0] as new,
        ):
            new.sendall(b"welcome")
            assert after.recv(100) == b"welcome"


@pytest.mark.parametrize("turns", range(6))
def test_a_connection_may_be_cut_while_it_closes(turns: int) -> None:
    """Its socket is gone some turns of the loop before the proxy forgets it."""

    async def cut_again() -> None:
        await proxy._cut_all(reset=True)
        for _ in range(turns):
            await asyncio.sleep(0)
        await proxy._cut_all(reset=True)

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        TcpProxy(*server.getsockname()) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client,
        server.accept()[0] as accepted,
    ):
        accepted.sendall(b"welcome")
        assert client.recv(100) == b"welcome"
        proxy._call(cut_again())
        with pytest.raises(ConnectionResetError):
            client.recv(100)
