"""The ports of `dev`: the same each time, unless another program uses them."""

import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from dsql_outbox.servers import free_port, preferred_port

HOST: Final = "127.0.0.1"
POSTGRES: Final = 15432
NATS: Final = 14222
HTTP: Final = 19464
_CLAIM: Final = 19463


@contextmanager
def claimed_ports() -> Generator[Callable[[int], int]]:
    """Yield a function that returns the port to use in place of a given one.

    The first `dev` on this machine gets the given ports, if they are free. Any other gets
    free ports.
    """
    with socket.socket() as claim:
        try:
            claim.bind((HOST, _CLAIM))
        except OSError:
            yield lambda _: free_port()
        else:
            yield preferred_port
