"""Messages as lines of JSON, appended to a file or a pipe (``jsonl:`` and ``stdout:``)."""

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
from anyio import CapacityLimiter, to_thread

from dsql_outbox.outbox.errors import SinkUnavailable
from dsql_outbox.outbox.message import Message

from .cloudevents import ONLY_UTF8, binary_headers, text_or_base64
from .port import Answer, Delivered, Rejected, Tombstone, key_runs


class _MessageLine(msgspec.Struct):
    topic: str
    key: str
    headers: dict[str, str]
    payload: str | msgspec.UnsetType | None = msgspec.UNSET
    """The text as a string, because nested JSON would not keep its exact form; null deletes."""
    payload_base64: str | msgspec.UnsetType = msgspec.UNSET
    """In place of `payload`, if the content type is not text."""


def json_line(message: Message) -> bytes:
    """One message as one JSON object and a line feed. Raises `UnicodeError` as `text_or_base64`."""
    line = _MessageLine(message.topic, message.broker_key, binary_headers(message, "ce-"))
    payload, is_base64 = text_or_base64(message)
    if message.is_deletion:
        line.payload = None
    elif is_base64:
        line.payload_base64 = payload
    else:
        line.payload = payload
    return msgspec.json.encode(line) + b"\n"


class LineSink:
    """Appends the messages of a call by one call of `append`, in a worker thread."""

    keeps_prefix = True
    takes = frozenset({Tombstone})

    def __init__(self, system: str, append: Callable[[bytes], None]) -> None:
        self.system = system
        self._append = append
        self._one_at_a_time: Final = CapacityLimiter(1)

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Append the messages. Raises `SinkUnavailable` when the write fails.

        A text that is no UTF-8 is rejected, and ends its run. Of a call that failed, a prefix of
        the messages may be stored.
        """
        lines: dict[int, bytes] = {}
        rejected: list[int] = []
        for run in key_runs(messages):
            for index in run:
                try:
                    lines[index] = json_line(messages[index])
                except UnicodeError:
                    rejected.append(index)
                    break
        data = b"".join(lines.values())
        await to_thread.run_sync(self._append, data, limiter=self._one_at_a_time)
        for index in lines:
            answer(index, Delivered())
        for index in rejected:  # behind the messages before it in its run
            answer(index, Rejected(f"a line of JSON {ONLY_UTF8}"))


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes, also after a partial write. Raises `OSError`."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def unavailable_as(name: str) -> Generator[None]:
    """Turn an `OSError` into a `SinkUnavailable` that names the file or pipe."""
    try:
        yield
    except OSError as error:
        raise SinkUnavailable(f"cannot write to {name}: {error.strerror}") from error
