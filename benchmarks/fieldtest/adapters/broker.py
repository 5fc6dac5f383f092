"""A client of the recording broker. Only the standard library.

It waits for the answer to each request, as a client that asks for confirms.
"""

import asyncio
import json
import os
import socket
import threading
from collections.abc import Sequence
from typing import IO, cast

STORED = "stored"
REFUSED = "refused"
NO_TOPIC = "no topic"


class NotStored(RuntimeError):
    """The broker did not store a message: it refused it, or has no such topic."""


class Broker:
    """The broker on a port of this machine; each thread has a connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._own = threading.local()

    def send_batch(self, topic: str, numbers: Sequence[int]) -> list[str]:
        """Send messages in one request; returns an outcome of each."""
        file = self._file()
        request = {"pid": os.getpid(), "topic": topic, "numbers": list(numbers)}
        file.write(json.dumps(request).encode() + b"\n")
        file.flush()
        if not (answer := file.readline()):
            raise ConnectionError("the broker is gone")
        found: list[str] = json.loads(answer)
        return found

    def send(self, payload: bytes | str) -> None:
        """Send the message of an event. Raises `NotStored`."""
        event = json.loads(payload)
        (outcome,) = self.send_batch(event["topic"], [event["number"]])
        if outcome != STORED:
            raise NotStored(outcome)

    async def asend_batch(self, topic: str, numbers: Sequence[int]) -> list[str]:
        """`send_batch` for an event loop."""
        return await asyncio.to_thread(self.send_batch, topic, numbers)

    async def asend(self, payload: bytes | str) -> None:
        """`send` for an event loop."""
        await asyncio.to_thread(self.send, payload)

    def _file(self) -> IO[bytes]:
        found: IO[bytes] | None = getattr(self._own, "file", None)
        if found is None:
            connection = socket.create_connection(("127.0.0.1", self._port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found = cast("IO[bytes]", connection.makefile("rwb"))
            self._own.file = found
        return found
