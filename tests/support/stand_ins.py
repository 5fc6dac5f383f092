"""Servers that play another one in a test, in threads of its process."""

import socketserver
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from socket import SHUT_RDWR, socket
from threading import Thread
from typing import Any, Self


class StandIn(socketserver.ThreadingTCPServer):
    """A server on a free port of 127.0.0.1, whose threads end with it.

    A command that a test runs in this process shares its standard error. So a client that
    hangs up is no news here, as commands do when they have seen enough.
    """

    allow_reuse_address = True

    def __init__(self, handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.server_port: int = self.server_address[1]
        self._clients = set[socket]()

    @contextmanager
    def serving(self) -> Generator[Self]:
        """Answer requests inside the block."""
        thread = Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.hang_up()  # an idle client would keep its thread
            self.server_close()  # waits for the threads

    def hang_up(self) -> None:
        """End all connections."""
        for client in [*self._clients]:
            with suppress(OSError):
                client.shutdown(SHUT_RDWR)

    @contextmanager
    def open_with(self, *sockets: socket) -> Generator[None]:
        """Shut down these sockets of a handler at the end as well, such as one that TLS made."""
        self._clients.update(sockets)
        try:
            yield
        finally:
            self._clients.difference_update(sockets)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._clients.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._clients.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
