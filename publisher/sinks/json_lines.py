"""Messages as lines of JSON, appended to a file or a pipe."""

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
from anyio import CapacityLimiter, to_thread

from dsql_outbox.outbox import Message, SinkUnavailable

from .cloudevents import binary_headers
from .port import Delivered, Outcome


class _MessageLine(msgspec.Struct):
    topic: str
    key: str
    headers: dict[str, str]
    payload: str
    """The event's text, as a string: JSON inside of JSON would lose its exact form."""


def json_line(message: Message) -> bytes:
    """One message as one object of JSON, with the line feed that ends it."""
    headers = binary_headers(message, "ce-")
    line = _MessageLine(message.topic, message.key, headers, message.payload.decode())
    return msgspec.json.encode(line) + b"\n"


class LineSink:
    """Appends each batch in one go, by `append`, in a worker thread.

    What fails leaves the first part of the batch at most, so nothing later of a
    key is there without the earlier: `ordered` holds.
    """

    ordered = True

    def __init__(self, system: str, append: Callable[[bytes], None]) -> None:
        self.system = system
        self._append = append
        self._one_at_a_time: Final = CapacityLimiter(1)

    async def publish(self, messages: Sequence[Message], /) -> list[Outcome]:
        """Append the messages; raises `SinkUnavailable` when that fails."""
        lines = b"".join(map(json_line, messages))
        await to_thread.run_sync(self._append, lines, limiter=self._one_at_a_time)
        return [Delivered()] * len(messages)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; raises `OSError`."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def unavailable_as(name: str) -> Generator[None]:
    """Turn an `OSError` into `SinkUnavailable` that names the file or pipe."""
    try:
        yield
    except OSError as error:
        raise SinkUnavailable(f"cannot write to {name}: {error.strerror}") from error
