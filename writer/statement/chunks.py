"""How many events go into one transaction: pure."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from dsql_outbox.outbox import (
    MAX_TRANSACTION_BYTES,
    MAX_TRANSACTION_ROWS,
    EventTooLarge,
    ParsedEvent,
    subject_key,
)
from dsql_outbox.writer.attempt.pending import Pending

from .parameters import PreparedEvent, prepare

MAX_MESSAGE_BYTES: Final = 8 << 20
"""8 MiB: DSQL drops a connection, without a word, whose protocol message is over 10 MiB."""

_SURELY_SENT: Final = MAX_MESSAGE_BYTES // 16
"""Bytes of an event's stored copies up to which none is too large to send: see the tests."""

_FIXED_BYTES: Final = 512
"""The ids, dates, numbers and braces of an event, and of each of its touches, rounded up."""

_encode: Final = msgspec.json.Encoder().encode


class Size(NamedTuple):
    """What an event adds to a transaction: rows, bytes in the tables, bytes on the wire."""

    rows: int = 0
    stored: int = 0
    encoded: int = 0

    def plus(self, other: "Size") -> "Size":
        """The sum."""
        return Size(
            self.rows + other.rows, self.stored + other.stored, self.encoded + other.encoded
        )

    @property
    def fits(self) -> bool:
        """Whether one transaction takes that much."""
        return (
            self.rows <= MAX_TRANSACTION_ROWS
            and self.stored <= MAX_TRANSACTION_BYTES
            and self.encoded <= MAX_MESSAGE_BYTES
        )


def chunks(batch: Iterable[Pending]) -> Iterator[list[Pending]]:
    """Cut a batch so that each part fits one transaction, in rows and in bytes.

    An event that is too big by itself is a part of its own.
    """
    chunk: list[Pending] = []
    total = Size()
    for pending in batch:
        size = size_of(pending.prepared)
        if chunk and not total.plus(size).fits:
            yield chunk
            chunk, total = [], Size()
        chunk.append(pending)
        total = total.plus(size)
    if chunk:
        yield chunk


def refuse_unsendable(event: ParsedEvent, topic: str, source: str) -> None:
    """Raise `EventTooLarge` for an event that no protocol message takes.

    A large header full of quotes, copied for each of many entities, makes more
    than 8 MiB of 1 MiB. DSQL would drop the connection without a word.
    """
    if event.stored_bytes > _SURELY_SENT:
        size = size_of(prepare(event, event.id.hex, topic, source, {})).encoded
        if size > MAX_MESSAGE_BYTES:
            raise EventTooLarge(size, MAX_MESSAGE_BYTES, what="event as it is sent")


def size_of(prepared: PreparedEvent) -> Size:
    """At least what an event takes; rows are counted as if no event shared an entity."""
    event = prepared.event
    fixed = _FIXED_BYTES * (1 + len(event.touches))
    return Size(
        rows=2 + 2 * len(event.touches),
        stored=fixed + event.stored_bytes + len(prepared.headers.encode()),
        encoded=fixed + _in_arrays("".join(_texts(prepared))),
    )


def _texts(prepared: PreparedEvent) -> Iterator[str]:
    """All that the statement carries of an event, but what has a fixed length."""
    event = prepared.event
    yield from (event.name, event.type, prepared.topic, event.data, prepared.headers)
    for touch in event.touches:
        kind, name = touch.entity_type, touch.entity_id
        yield from (kind, name, touch.attributes)  # its row in entities
        yield from (kind, name, touch.header, subject_key(kind, name))  # its row in event_headers
        yield from (_encode(kind).decode(), _encode(name).decode())  # its part of the message


def _in_arrays(text: str) -> int:
    """Bytes of texts inside array literals."""
    return len(text.encode()) + text.count('"') + text.count("\\")
