"""From a valid event to the parameters of its statement. No I/O."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final
from zlib import crc32

import msgspec

from dsql_outbox.outbox import (
    MAX_NAME,
    InvalidEvent,
    ParsedEvent,
    ParsedTouch,
    array_literal,
    broken_header,
    message_headers,
    plain_array,
    subject_key,
)
from dsql_outbox.writer.settings import WriterSettings

Parameters = dict[str, str | None]
"""Values as text. The statement determines the type as which the server reads each."""

_encode: Final = msgspec.json.Encoder().encode

_HALF: Final = re.compile("[\\ud800-\\udfff]").search


class PreparedEvent(msgspec.Struct, frozen=True):
    """An event with everything that its rows need, except what the database assigns.

    `id` and `created` are the event's id and date as text; `created` is None if the
    database is to set the date. `write_id` is hex text that identifies the call.
    `headers` is the beginning of the message's headers as JSON. The statement appends the
    touched entities with their versions, the date if `created` is None, and the closing
    braces. `expected_version` is the version that the subject must have before the event.
    """

    event: ParsedEvent
    write_id: str
    topic: str
    headers: str
    id: str
    created: str | None
    expected_version: int | None = None


def topic_of(event: ParsedEvent, settings: WriterSettings) -> str:
    """Return the topic of an event. Raises `InvalidEvent` if it exceeds 255 characters."""
    topic = settings.topic.format(
        event_type=event.type, event_name=event.name, entity_type=event.touches[0].entity_type
    )
    if len(topic) > MAX_NAME:
        raise InvalidEvent(
            "eventHeader.eventType", f"makes a topic of {len(topic)} characters, over {MAX_NAME}"
        )
    return topic


def prepare(  # noqa: PLR0913 - one argument per field
    event: ParsedEvent,
    write_id: str,
    topic: str,
    source: str,
    carrier: dict[str, str],
    *,
    expected_version: int | None = None,
) -> PreparedEvent:
    """Prepare an event; its message headers are CloudEvents 1.0 attributes and `carrier`.

    `carrier` contains the headers of hooks, such as the trace context. Raises
    `InvalidEvent` if one of them is not a valid header.
    """
    if rule := broken_header(carrier) or _broken_value(carrier):
        raise InvalidEvent("headers", rule)
    event_id = str(event.id)
    created = event.created_date.isoformat() if event.created_date is not None else None
    headers = message_headers(event_id, event.type, event.created_date, source)
    text = _encode(headers | carrier if carrier else headers).decode()
    start = f'{text[:-1]},"entities":"'
    return PreparedEvent(event, write_id, topic, start, event_id, created, expected_version)


def _broken_value(carrier: Mapping[str, object]) -> str | None:
    """Return why the value of a header is not valid, or None.

    Hooks are code of users, so a value may be of another type or contain half a surrogate pair.
    """
    for name, value in carrier.items():
        if not isinstance(value, str) or _HALF(value):
            return f"header {name} must be a text of whole characters"
    return None


def shard_of(entity_type: str, entity_id: str, shards: int) -> int:
    """Return the shard of an entity's first event. Later events use the entity's stored shard."""
    return crc32(f"{entity_type}/{entity_id}".encode()) % shards


def one_parameters(prepared: PreparedEvent, shards: int) -> Parameters:
    """Return the parameters of ``event_write_one``, for one event with one entity."""
    event, touch = prepared.event, prepared.event.touches[0]
    expected = prepared.expected_version
    return {
        "id": prepared.id,
        "name": event.name,
        "type": event.type,
        "created_date": prepared.created,
        "data": event.data,
        "fingerprint": f"\\x{event.fingerprint.hex()}",
        "write_id": prepared.write_id,
        "topic": prepared.topic,
        "headers": prepared.headers,
        "entity_type": touch.entity_type,
        "entity_id": touch.entity_id,
        "shard": str(shard_of(touch.entity_type, touch.entity_id, shards)),
        "attributes": touch.attributes,
        "header": touch.header,
        "touch": _touch_prefix(touch),
        "key": subject_key(touch.entity_type, touch.entity_id),
        "expected": None if expected is None else str(expected),
    }


def batch_parameters(batch: Sequence[PreparedEvent], shards: int) -> Parameters:
    """Return the parameters of ``event_write_batch``, for any number of events and entities."""
    touches = [
        (prepared, touch, n == 0)
        for prepared in batch
        for n, touch in enumerate(prepared.event.touches)
    ]
    return {
        **_event_columns(batch),
        **_entity_columns(touches, shards),
        **_touch_columns(touches),
        "expected_events": str(len(batch)),
        "expected_touches": str(len(touches)),
    }


_Touch = tuple[PreparedEvent, ParsedTouch, bool]
_Key = tuple[str, str]


def _key(touch: ParsedTouch) -> _Key:
    return touch.entity_type, touch.entity_id


def _event_columns(batch: Sequence[PreparedEvent]) -> Parameters:
    events = [prepared.event for prepared in batch]
    return {
        "id": plain_array(p.id for p in batch),
        "name": array_literal(e.name for e in events),
        "type": array_literal(e.type for e in events),
        "created_date": array_literal(p.created for p in batch),
        "data": array_literal(e.data for e in events),
        "fingerprint": array_literal(f"\\x{e.fingerprint.hex()}" for e in events),
        "write_id": plain_array(p.write_id for p in batch),
        "topic": array_literal(p.topic for p in batch),
        "headers": array_literal(p.headers for p in batch),
    }


def _entity_columns(touches: Sequence[_Touch], shards: int) -> Parameters:
    """Return the columns with one row per entity, sorted by key.

    The attributes are those of the last event of the batch that touches the entity.
    """
    last = {_key(touch): (prepared, touch) for prepared, touch, _ in touches}
    keys = sorted(last)
    times = Counter(_key(touch) for _, touch, _ in touches)
    as_subject = Counter(_key(touch) for _, touch, subject in touches if subject)
    return {
        "entity_type": array_literal(t for t, _ in keys),
        "entity_id": array_literal(i for _, i in keys),
        "touches": plain_array(times[k] for k in keys),
        "subjects": plain_array(as_subject[k] for k in keys),
        "shard": plain_array(shard_of(t, i, shards) for t, i in keys),
        "attributes": array_literal(last[k][1].attributes for k in keys),
        "entity_event": plain_array(last[k][0].id for k in keys),
    }


def _touch_columns(touches: Sequence[_Touch]) -> Parameters:
    """Return the columns with one row per touch, numbered backward per entity from 0."""
    back, as_subject = _numbered_back(touches)
    first: set[_Key] = set()
    first_as_subject: list[bool] = []
    for _, touch, subject in touches:
        first_as_subject.append(subject and _key(touch) not in first)
        if subject:
            first.add(_key(touch))
    return {
        "ordinal": plain_array(range(len(touches))),
        "touch_event": plain_array(p.id for p, _, _ in touches),
        "touch_type": array_literal(t.entity_type for _, t, _ in touches),
        "touch_entity": array_literal(t.entity_id for _, t, _ in touches),
        "back": plain_array(back),
        "subject": plain_array(subject for _, _, subject in touches),
        "subject_back": plain_array(as_subject),
        "first_as_subject": plain_array(first_as_subject),
        "header": array_literal(t.header for _, t, _ in touches),
        "touch": array_literal(_touch_prefix(t) for _, t, _ in touches),
        "key": array_literal(subject_key(t.entity_type, t.entity_id) for _, t, _ in touches),
        "expected": array_literal(p.expected_version if s else None for p, _, s in touches),
    }


def _numbered_back(touches: Sequence[_Touch]) -> tuple[list[int], list[int]]:
    """Return for each touch the number of later touches of its entity: all, and as subject."""
    seen: Counter[_Key] = Counter()
    seen_as_subject: Counter[_Key] = Counter()
    back: list[int] = []
    as_subject: list[int] = []
    for _, touch, subject in reversed(touches):
        key = _key(touch)
        back.append(seen[key])
        as_subject.append(seen_as_subject[key])
        seen[key] += 1
        seen_as_subject[key] += subject
    return back[::-1], as_subject[::-1]


def _touch_prefix(touch: ParsedTouch) -> str:
    """Return ``{"entityType":..,"entityId":..,"version":``. The statement appends the version."""
    text = _encode({"entityType": touch.entity_type, "entityId": touch.entity_id}).decode()
    return f'{text[:-1]},"version":'
