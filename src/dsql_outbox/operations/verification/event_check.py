"""Compare a stored event with its headers and its entities. No I/O."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from dsql_outbox.outbox.errors import EventTooLarge, InvalidEvent
from dsql_outbox.outbox.event.event_parser import ParsedEvent, ParsedTouch, parse_event
from dsql_outbox.outbox.receipt import Touched

from .finding import Finding, entity_finding, event_finding, header_finding, touch_key


class EventRow(NamedTuple):
    """A row of ``verify_events``; `data` is None if it is not due. The date is as in headers."""

    id: UUID
    is_due: bool
    data: str | None
    size: int
    fingerprint: bytes
    name: str
    type: str
    created: str | None
    subject_type: str
    subject_id: str
    subject_version: int
    shard: int
    touches: str
    is_unlisted: bool


class TouchRow(NamedTuple):
    """A row of ``verify_touches``; None where a header or an entity is missing."""

    event_id: UUID | None
    header: str | None
    header_size: int | None
    shard: int | None
    version: int | None
    state: str | None


def event_findings(
    row: EventRow, touches: Sequence[Touched], stored: Sequence[TouchRow]
) -> Iterator[Finding]:
    """What is wrong with an event; `stored` are the headers and entities of its `touches`."""
    if row.is_unlisted:
        text = "content of it was erased, and no erasure of that time is recorded"
        yield event_finding("unlisted-erasure", row.id, text)
    if other := [*_other_keys(row, touches)]:
        text = f"other than the touches say: {', '.join(other)}"
        yield event_finding("other-content", row.id, text)
    for touch, found in zip(touches, stored, strict=True):
        if found.event_id is None:
            yield event_finding("missing-header", row.id, f"{touch_key(touch)} has no header")
        elif found.event_id != row.id:
            text = f"{touch_key(touch)} is the version of event {found.event_id} by its header"
            yield event_finding("doubled-version", row.id, text)
    if stored and stored[0].shard not in (row.shard, None):
        text = f"the event is in shard {row.shard}, its subject in shard {stored[0].shard}"
        yield event_finding("other-content", row.id, text)
    if row.data is not None:
        yield from _byte_findings(row, row.data, touches, stored)


def _byte_findings(
    row: EventRow, data: str, touches: Sequence[Touched], stored: Sequence[TouchRow]
) -> Iterator[Finding]:
    """What is wrong with an event by its bytes."""
    try:
        parsed = parse_event(data)
    except (InvalidEvent, EventTooLarge):  # its text may quote the event
        yield event_finding("unreadable", row.id, "the bytes are no event")
        return
    if parsed.fingerprint != row.fingerprint:
        text = "the fingerprint of the bytes is another one"
        yield event_finding("changed-bytes", row.id, text)
        return
    fits = _fit(touches, parsed.touches)
    if other := [*_other_columns(row, data, parsed, fits=fits or not touches)]:
        text = f"other than the bytes say: {', '.join(other)}"
        yield event_finding("other-content", row.id, text)
    if not fits:
        return
    for touch, found, part in zip(touches, stored, parsed.touches, strict=True):
        yield from _touch_findings(row, touch, found, part)


def _other_keys(row: EventRow, touches: Sequence[Touched]) -> Iterator[str]:
    if not touches:
        yield "touches"
    elif touches[0] != Touched(row.subject_type, row.subject_id, row.subject_version):
        yield "subject"


def _other_columns(row: EventRow, data: str, parsed: ParsedEvent, *, fits: bool) -> Iterator[str]:
    if parsed.id != row.id:
        yield "id"
    if (parsed.name, parsed.type) != (row.name, row.type):
        yield "event_name or event_type"
    created = parsed.created_date
    # Without one, the event has the date of its write.
    if created is not None and created.isoformat(timespec="microseconds") != row.created:
        yield "created_date"
    if len(data.encode()) != row.size:
        yield "event_size"
    if not fits:
        yield "touches"


def _fit(touches: Sequence[Touched], parts: Iterable[ParsedTouch]) -> bool:
    return [(each.entity_type, each.entity_id) for each in touches] == [
        (part.entity_type, part.entity_id) for part in parts
    ]


def _touch_findings(
    row: EventRow, touch: Touched, stored: TouchRow, part: ParsedTouch
) -> Iterator[Finding]:
    """What is wrong with one touch. A version above the entity's is found with its header."""
    if stored.event_id == row.id and (
        (stored.header, stored.header_size) != (part.header, len(part.header.encode()))
    ):
        text = f"the header is not that of event {row.id}"
        yield header_finding("other-content", touch, text)
    if stored.state not in (part.attributes, None):
        text = f"the state is not that of its last event {row.id}"
        yield entity_finding("other-state", touch_pair(touch), text)


def touch_pair(touch: Touched) -> tuple[str, str]:
    """The type and the id of the entity."""
    return touch.entity_type, touch.entity_id
