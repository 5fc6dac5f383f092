"""Waiting for a state, since tests do not sleep."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(state: Callable[[], bool], timeout: float = 30.0) -> None:
    """Poll until a state is reached; raises `TimeoutError`."""
    deadline = time.monotonic() + timeout
    while not state():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not reached within {timeout} s")
        time.sleep(0.005)


async def wait_for(awaited: Awaitable[T], timeout: float | None) -> T:
    """Wait as `asyncio.wait_for` does since Python 3.12.

    Earlier ones lose a cancellation that comes together with the result. nats-py waits by it, so
    that a consumer would go on.
    """
    async with asyncio.timeout(timeout):
        return await awaited


def listens(port: int) -> bool:
    """Whether a server of this machine takes connections on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
