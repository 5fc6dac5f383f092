"""Cut a batch of events into parts that fit one transaction. No I/O."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

import msgspec

from dsql_outbox.outbox.errors import EventTooLarge, InvalidEvent
from dsql_outbox.outbox.event.event_parser import ParsedEvent
from dsql_outbox.outbox.settings import (
    MAX_MESSAGE_BYTES,
    MAX_TRANSACTION_BYTES,
    MAX_TRANSACTION_ROWS,
)

from .parameters import PreparedEvent, prepare

if TYPE_CHECKING:
    from uuid import UUID

_SURELY_SENT: Final = MAX_MESSAGE_BYTES // 16
"""An event whose stored copies take no more bytes than this is never too large to send.

Escaping and further copies make the message less than 16 times as large
(tests/unit/writer/test_chunks.py).
"""

_FIXED_BYTES: Final = 512
"""An upper bound in bytes for ids, dates, numbers and braces, per event and per touch."""

_COPIES: Final = 4
"""An entity's type and id are sent this often."""

_LARGEST: Final = 12
"""The bytes that one byte of a type or an id takes at most in all its copies."""

_UNCHANGED: Final = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch
"""Characters that have one byte in every copy."""


class TargetCounts(NamedTuple):
    """How many targets get messages, and how many of these hold the bytes of the event.

    A message of a read model only names its event.
    """

    number: int
    copies: int


ONE_TARGET: Final = TargetCounts(1, 1)


class Size(msgspec.Struct, frozen=True, gc=False):
    """The size of an event or of a transaction.

    `rows` are written rows, `stored` are bytes in the tables, `encoded` are bytes of
    the protocol message.
    """

    rows: int = 0
    stored: int = 0
    encoded: int = 0

    def plus(self, other: "Size") -> "Size":
        """Return the sum of two sizes."""
        return Size(
            self.rows + other.rows, self.stored + other.stored, self.encoded + other.encoded
        )

    @property
    def fits(self) -> bool:
        """Whether one transaction may have this size."""
        return (
            self.rows <= MAX_TRANSACTION_ROWS
            and self.stored <= MAX_TRANSACTION_BYTES
            and self.encoded <= MAX_MESSAGE_BYTES
        )


class Sendable(Protocol):
    """An object that holds one prepared event."""

    @property
    def prepared(self) -> PreparedEvent:
        """The event with the values of its rows."""
        ...


S = TypeVar("S", bound=Sendable)


def chunks(batch: Iterable[S], targets: Callable[[], TargetCounts]) -> Iterator[list[S]]:
    """Cut a batch into parts that each fit one transaction, in rows and in bytes.

    `targets` says which targets get a message of each event. It is asked for each event,
    since the answer to the part before may have changed it.
    An event that exceeds the limits alone becomes its own part. Of two events with the
    same id, the second begins another part: it is a duplicate if the first was stored.
    Sizes are those of `bound_of`, so a part of large events takes about half of what it may.
    """
    chunk: list[S] = []
    ids: set[UUID] = set()
    total = Size()
    for pending in batch:
        event_id = pending.prepared.event.id
        size = bound_of(pending.prepared, targets())
        more = total.plus(size)
        if chunk and not (more.fits and event_id not in ids):
            yield chunk
            chunk, more = [], size
            ids.clear()
        chunk.append(pending)
        ids.add(event_id)
        total = more
    if chunk:
        yield chunk


def refuse_unsendable(
    event: ParsedEvent, topic: str, source: str, targets: TargetCounts = ONE_TARGET
) -> None:
    """Raise an error if an event cannot be written to all targets in one transaction.

    `EventTooLarge`: its protocol message would exceed 8 MiB, or its copies 10 MiB. An event of
    1 MiB can exceed them: its header is copied once per entity, and each quote in the header is
    escaped. DSQL would drop the connection without an error. `InvalidEvent`: its entities and
    messages are more rows than a transaction may write.
    """
    number = targets.number
    if number > 1 and (most := _most_entities(number)) < len(event.touches):
        raise InvalidEvent(
            "entities",
            f"{len(event.touches)} entities are over the limit of {most} with {number} targets",
        )
    if event.stored_bytes * max(1, number - 1) > _SURELY_SENT:
        size = size_of(prepare(event, event.id.hex, topic, source, {}), targets)
        if size.encoded > MAX_MESSAGE_BYTES:
            raise EventTooLarge(size.encoded, MAX_MESSAGE_BYTES, what="event as it is sent")
        if number > 1 and size.stored > MAX_TRANSACTION_BYTES:
            what = f"event with its messages for {number} targets"
            raise EventTooLarge(size.stored, MAX_TRANSACTION_BYTES, what=what)


def _most_entities(targets: int) -> int:
    # A row of the event, one of a message per target, and two per entity.
    return (MAX_TRANSACTION_ROWS - 1 - targets) // 2


def size_of(prepared: PreparedEvent, targets: TargetCounts = ONE_TARGET) -> Size:
    """Return an upper bound for the size of an event, with a message for each target.

    Rows are counted as if no other event of the transaction touched the same entity.
    """
    event, touches = prepared.event, prepared.event.touches
    fixed = _FIXED_BYTES * (1 + len(touches))
    own = prepared.own_headers or ""
    texts = [event.name, event.type, prepared.topic, event.data, prepared.headers, own]
    texts += [text for touch in touches for text in (touch.attributes, touch.header)]
    keys = [text for touch in touches for text in (touch.entity_type, touch.entity_id)]
    # The first message is counted in `stored_bytes`. Without a target it is counted as well.
    further, copies = max(0, targets.number - 1), max(0, targets.copies - 1)
    message = _FIXED_BYTES + _bytes(prepared.headers)
    return Size(
        rows=2 + further + 2 * len(touches),
        stored=fixed
        + event.stored_bytes
        + _bytes(prepared.headers)
        + further * message
        + copies * _bytes(event.data),
        encoded=fixed + _in_arrays("".join(texts)) + _in_copies("".join(keys)),
    )


def bound_of(prepared: PreparedEvent, targets: TargetCounts = ONE_TARGET) -> Size:
    """Return an upper bound for `size_of` that is found faster, as it looks into no text.

    `stored_bytes` has the text of the event twice, and each text of its touches. In an array, a
    text takes at most twice its bytes, and at most four bytes per character.
    """
    event, touches, further = prepared.event, prepared.event.touches, max(0, targets.number - 1)
    keys = sum([len(touch.entity_type) + len(touch.entity_id) for touch in touches])
    fixed, headers = _FIXED_BYTES * (1 + len(touches)), 4 * len(prepared.headers)
    short = len(event.name) + len(event.type) + len(prepared.topic)
    return Size(
        rows=2 + further + 2 * len(touches),
        stored=fixed
        + event.stored_bytes
        + headers
        + further * (_FIXED_BYTES + headers)
        + max(0, targets.copies - 1) * (event.stored_bytes // 2),
        encoded=fixed
        + 2 * (event.stored_bytes - len(event.data))
        + headers
        + 4 * (short + _LARGEST * keys),
    )


def _in_copies(keys: str) -> int:
    """Return an upper bound for the bytes of all copies of entities' types and ids.

    They are sent for the row of the entity, for its touch, percent-encoded, and in JSON. The
    largest is a control character: 1, 1, 3 and 7 bytes. Of those of nearly all keys it is 4.
    """
    return _COPIES * len(keys) if _UNCHANGED(keys) else _LARGEST * _bytes(keys)


def _in_arrays(text: str) -> int:
    """Return the bytes of a text inside an array literal, where quotes are escaped."""
    backslashes = text.count("\\") if "\\" in text else 0  # looking for one is faster
    return _bytes(text) + text.count('"') + backslashes


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
