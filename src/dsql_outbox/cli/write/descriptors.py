"""Reading and writing file descriptors without blocking the event loop for long.

The event loop waits for pipes, sockets and terminals, because Ctrl-C interrupts
it. A thread that blocks in `read` or `write` cannot be ended, and Python would
wait for it at exit.
"""

import os
import stat
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final

import anyio

_CHUNK: Final = 1 << 18  # bytes: some hundred events, which share a transaction
_NEVER_BLOCKS: Final = 4096  # bytes that a writable pipe takes at once: PIPE_BUF on Linux, pipe(7)


async def read_chunks(descriptor: int) -> AsyncGenerator[bytes]:
    """Read to the end and yield chunks of at most 262144 bytes. Raises `OSError`."""
    can_wait = _can_wait(descriptor)
    while True:
        if can_wait:
            await anyio.wait_readable(descriptor)
        with suppress(BlockingIOError):
            chunk = os.read(descriptor, _CHUNK)
            if not chunk:
                return
            yield chunk


async def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`. Raises `OSError`."""
    can_wait = _can_wait(descriptor)
    rest = memoryview(data)
    while rest:
        if can_wait:
            await anyio.wait_writable(descriptor)
        with suppress(BlockingIOError):
            rest = rest[os.write(descriptor, rest[:_NEVER_BLOCKS] if can_wait else rest) :]


def _can_wait(descriptor: int) -> bool:
    """Whether the event loop can wait for it; it cannot wait for files, which never block long."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
