"""A server of a test shares standard error with the command that the test runs in its process."""

import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler

import pytest
from tests.support.stand_ins import StandIn
from tests.support.waiting import wait_until

from dsql_outbox.testing import OtlpReceiver

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        while True:
            self.wfile.write(bytes(1 << 20))


class Broken(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        raise ZeroDivisionError


def hang_up(port: int, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.sendall(request)
        client.recv(1)


def ask(server: StandIn) -> None:
    hang_up(server.server_port, b"GET / HTTP/1.0\r\n\r\n")


def requests_run() -> bool:
    return any("process_request" in thread.name for thread in threading.enumerate())


def test_a_client_that_hangs_up_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    threads = threading.active_count()
    with StandIn(Answer).serving() as server:
        ask(server)
    assert threading.active_count() == threads
    assert capfd.readouterr() == ("", "")


def test_an_idle_client_does_not_keep_the_server() -> None:
    threads = threading.active_count()
    with (
        StandIn(Answer).serving() as server,
        socket.create_connection(("127.0.0.1", server.server_port)),
    ):
        wait_until(lambda: threading.active_count() == threads + 2)
    assert threading.active_count() == threads


def test_a_fault_of_the_stand_in_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with StandIn(Broken).serving() as server:
        ask(server)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_sender_that_leaves_in_the_middle_of_its_spans_prints_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with OtlpReceiver() as receiver:
        _, _, port = receiver.endpoint.rpartition(":")
        with socket.create_connection(("127.0.0.1", int(port))) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.sendall(b"POST /v1/traces HTTP/1.1\r\ncontent-length: 100\r\n\r\n")
            wait_until(requests_run)
        wait_until(lambda: not requests_run())
    assert capfd.readouterr() == ("", "")
