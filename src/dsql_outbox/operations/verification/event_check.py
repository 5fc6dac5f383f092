"""Compare a stored event with its headers and its entities. No I/O."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.outbox.errors import EventTooLarge, InvalidEvent
from dsql_outbox.outbox.event.event_parser import ParsedEvent, ParsedTouch, parse_event
from dsql_outbox.outbox.receipt import Touched

from .finding import Finding, entity_finding, event_finding, header_finding, touch_key

_decode_touches: Final = msgspec.json.Decoder(tuple[Touched, ...]).decode


class EventRow(NamedTuple):
    """A row of ``verify_events``."""

    id: UUID
    is_due: bool
    data: str | None
    size: int
    fingerprint: bytes
    name: str
    type: str
    subject_type: str
    subject_id: str
    subject_version: int
    shard: int
    touches: str
    archive: int | None
    is_unlisted: bool


class TouchRow(NamedTuple):
    """A row of ``verify_touches``; None where a header or an entity is missing."""

    event_id: UUID | None
    header: str | None
    header_size: int | None
    shard: int | None
    version: int | None
    state: str | None


def touches_of(row: EventRow) -> tuple[Touched, ...]:
    """The entities that an event has touched by its row; none if the row is not readable."""
    try:
        return _decode_touches(row.touches)
    except msgspec.MsgspecError:
        return ()


def event_findings(
    row: EventRow, touches: Sequence[Touched], stored: Sequence[TouchRow]
) -> Iterator[Finding]:
    """What is wrong with an event; `stored` are the headers and entities of its `touches`."""
    parsed: ParsedEvent | None = None
    if row.is_unlisted:
        text = "content of it was erased, and no erasure of that time is recorded"
        yield event_finding("unlisted-erasure", row.id, text)
    if row.data is None:
        if row.archive is None:
            yield event_finding("missing-bytes", row.id, "the event has no bytes")
    else:
        try:
            parsed = parse_event(row.data)
        except (InvalidEvent, EventTooLarge):  # its text may quote the event
            yield event_finding("unreadable", row.id, "the bytes are no event")
        else:
            if parsed.fingerprint != row.fingerprint:
                parsed = None
                text = "the fingerprint of the bytes is another one"
                yield event_finding("changed-bytes", row.id, text)
    fits = parsed is not None and _fit(touches, parsed.touches)
    if other := [*_other_columns(row, touches, parsed, fits=fits)]:
        text = f"other than the bytes and the touches say: {', '.join(other)}"
        yield event_finding("other-content", row.id, text)
    parts = parsed.touches if parsed is not None and fits else ()
    for number, (touch, found) in enumerate(zip(touches, stored, strict=True)):
        yield from _touch_findings(row, touch, found, parts[number] if parts else None)
    if stored and stored[0].shard not in (row.shard, None):
        text = f"the event is in shard {row.shard}, its subject in shard {stored[0].shard}"
        yield event_finding("other-content", row.id, text)


def _other_columns(
    row: EventRow, touches: Sequence[Touched], parsed: ParsedEvent | None, *, fits: bool
) -> Iterator[str]:
    subject = Touched(row.subject_type, row.subject_id, row.subject_version)
    if not touches:
        yield "touches"
    elif touches[0] != subject:
        yield "subject"
    if parsed is None or row.data is None:
        return
    if parsed.id != row.id:
        yield "id"
    if (parsed.name, parsed.type) != (row.name, row.type):
        yield "event_name or event_type"
    if len(row.data.encode()) != row.size:
        yield "event_size"
    if touches and not fits:
        yield "touches"


def _fit(touches: Sequence[Touched], parts: Iterable[ParsedTouch]) -> bool:
    return [(each.entity_type, each.entity_id) for each in touches] == [
        (part.entity_type, part.entity_id) for part in parts
    ]


def _touch_findings(
    row: EventRow, touch: Touched, stored: TouchRow, part: ParsedTouch | None
) -> Iterator[Finding]:
    """What is wrong with one touch. A version above the entity's is found with its header."""
    if stored.event_id is None:
        yield event_finding("missing-header", row.id, f"{touch_key(touch)} has no header")
    elif stored.event_id != row.id:
        text = f"{touch_key(touch)} is the version of event {stored.event_id} by its header"
        yield event_finding("doubled-version", row.id, text)
    elif part is not None:
        if stored.header is None:
            yield header_finding("missing-bytes", touch, f"the header of event {row.id} is empty")
        elif stored.header != part.header or stored.header_size != len(part.header.encode()):
            text = f"the header is not that of event {row.id}"
            yield header_finding("other-content", touch, text)
    if part is not None and stored.state not in (part.attributes, None):
        text = f"the state is not that of its last event {row.id}"
        yield entity_finding("other-state", touch_pair(touch), text)


def touch_pair(touch: Touched) -> tuple[str, str]:
    """The type and the id of the entity."""
    return touch.entity_type, touch.entity_id
