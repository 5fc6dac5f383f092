"""Waiting for a state, since tests do not sleep."""

import socket
import time
from collections.abc import Callable


def wait_until(state: Callable[[], bool], timeout: float = 30.0) -> None:
    """Poll until a state is reached; raises `TimeoutError`."""
    deadline = time.monotonic() + timeout
    while not state():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not reached within {timeout} s")
        time.sleep(0.005)


def listens(port: int) -> bool:
    """Whether a server of this machine takes connections on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
