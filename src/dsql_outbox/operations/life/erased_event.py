"""What is left of an event in which an entity is erased. No I/O."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.operations.stored_event import headers_in
from dsql_outbox.outbox.event.erasure import EntityErasure
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.outbox.message import RESERVED_HEADERS
from dsql_outbox.outbox.receipt import Touched

from .stored_touches import touches_of

_encode: Final = msgspec.json.Encoder().encode


class EventRow(NamedTuple):
    """A row of ``erase_events``."""

    id: UUID
    data: str
    fingerprint: str
    headers: str | None
    touches: str
    is_erased: bool


class ChangedEvent(NamedTuple):
    """An event in which something is erased, and what of it."""

    before: EventRow
    data: str
    fingerprint: str
    headers: str | None
    header_data: Sequence[tuple[Touched, str]]
    """The headers that are others now, each with the touch by which it is stored."""
    hides: Callable[[str], bool]
    """Whether a text holds something that was erased."""


def changed_event(erasure: EntityErasure, row: EventRow) -> ChangedEvent | None:
    """What is left of an event; None if nothing is to be erased in it."""
    touches = [each.touched for each in touches_of(row.id, row.touches)]
    is_subject = _is_of(erasure, touches[0])
    erased = erasure.of_event(row.data, is_subject=is_subject)
    hides = hides_nothing if erased is None else erased.is_named_in
    headers = None if row.headers is None else headers_without(row.headers, hides)
    if erased is None and headers == row.headers:
        return None
    data = row.data if erased is None else erased.data
    before, after = parse_event(row.data), parse_event(data)
    parts = zip(touches, before.touches, after.touches, strict=True)
    return ChangedEvent(
        row,
        data,
        after.fingerprint.hex(),
        headers,
        [(touch, new.header) for touch, old, new in parts if old.header != new.header],
        hides,
    )


def hides_nothing(text: str) -> bool:
    """Whether a text holds what was erased, of an event in which nothing was."""
    del text
    return False


def _is_of(erasure: EntityErasure, touch: Touched) -> bool:
    return (touch.entity_type, touch.entity_id) == erasure


def headers_without(headers: str, hides: Callable[[str], bool]) -> str:
    """Headers without those that hold something that was erased; the same text if none does.

    The outbox's own headers stay.
    """
    found = headers_in(headers)
    if found is None:  # of another program: it cannot be sent either
        return headers
    left = {
        name: value for name, value in found.items() if name in RESERVED_HEADERS or not hides(value)
    }
    return headers if left == found else _encode(left).decode()
