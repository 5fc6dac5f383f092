"""From a valid event to the parameters of its statement. No I/O."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Final
from zlib import crc32

import msgspec

from dsql_outbox.outbox.database.array_literals import (
    array_literal,
    json_array,
    plain_array,
    text_array,
)
from dsql_outbox.outbox.errors import InvalidEvent
from dsql_outbox.outbox.event.event_parser import ParsedEvent, ParsedTouch
from dsql_outbox.outbox.message import broken_header, listed_key, message_headers

Parameters = dict[str, str | None]
"""Values as text. The statement determines the type as which the server reads each."""

_encode: Final = msgspec.json.Encoder().encode

_HALF: Final = re.compile("[\\ud800-\\udfff]").search


class PreparedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event with all values of its rows, except those that the database assigns.

    `id` and `created` are the event's id and date as text; `created` is None if the
    database is to set the date. `write_id` is hex text that identifies the call.
    `headers` is the beginning of the message's headers as JSON. The statement appends the
    touched entities with their versions, the date if `created` is None, and the closing
    braces. `expected_version` is the version that the subject must have before the event.
    `own_headers` are those that the event gives its message, as JSON; None without any.
    """

    event: ParsedEvent
    write_id: str
    topic: str
    headers: str
    id: str
    created: str | None
    expected_version: int | None = None
    own_headers: str | None = None


def prepare(  # noqa: PLR0913 - one argument per field
    event: ParsedEvent,
    write_id: str,
    topic: str,
    source: str,
    carrier: dict[str, str],
    *,
    expected_version: int | None = None,
) -> PreparedEvent:
    """Prepare an event; its message headers are CloudEvents 1.0 attributes, `carrier` and its own.

    `carrier` contains the headers of hooks, such as the trace context. Raises
    `InvalidEvent` if one of them is not a valid header.
    """
    if carrier and (rule := broken_header(carrier) or _broken_value(carrier)):
        raise InvalidEvent("headers", rule)
    event_id = _encode(event.id)[1:-1].decode()
    headers = message_headers(event_id, event.type, event.created_date, source)
    created = headers.get("time")
    own = event.headers
    text = _encode(headers | carrier | own if carrier or own else headers).decode()
    start = f'{text[:-1]},"entities":"'
    stored = _encode(own).decode() if own else None
    return PreparedEvent(event, write_id, topic, start, event_id, created, expected_version, stored)


def _broken_value(carrier: Mapping[str, object]) -> str | None:
    """Return why the value of a header is not valid, or None.

    Hooks are code of users, so a value may be of another type or contain half a surrogate pair.
    """
    for name, value in carrier.items():
        if not isinstance(value, str) or (not value.isascii() and _HALF(value)):
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
        "own_headers": prepared.own_headers,
        "entity_type": touch.entity_type,
        "entity_id": touch.entity_id,
        "shard": str(shard_of(touch.entity_type, touch.entity_id, shards)),
        "attributes": touch.attributes,
        "header": touch.header,
        "touch": _touch_prefix(touch),
        "key": listed_key(touch.entity_type, touch.entity_id),
        "expected": None if expected is None else str(expected),
    }


def batch_parameters(batch: Sequence[PreparedEvent], shards: int) -> Parameters:
    """Return the parameters of ``event_write_batch``, for any number of events and entities."""
    touches = _Touches(batch)
    return {
        **_event_columns(batch),
        **_subject_columns(touches),
        **_further_columns(touches),
        **_entity_columns(touches, shards),
        "expected_events": str(len(batch)),
        "expected_touches": str(len(touches.all)),
    }


_Key = tuple[str, str]


class _Touches:
    """The touches of a batch in order. The index of a touch in `all` is its ordinal.

    `keys`, `event_ids`, `subject_of` and `back` have one entry per touch: its entity, the
    id of its event, the ordinal of its event's subject, and the number of later touches
    of its entity. `times` has the number of touches of each entity.
    """

    def __init__(self, batch: Sequence[PreparedEvent]) -> None:
        self.all = [touch for prepared in batch for touch in prepared.event.touches]
        self.keys = [(touch.entity_type, touch.entity_id) for touch in self.all]
        self.event_ids = [prepared.id for prepared in batch for _ in prepared.event.touches]
        self.subject_of = _subject_of([len(prepared.event.touches) for prepared in batch])
        self.subjects = [n for n, subject in enumerate(self.subject_of) if n == subject]
        numbers, self.times = _numbered(self.keys)
        self.back = _from_last(numbers, self.keys, self.times)


def _subject_of(counts: Sequence[int]) -> list[int]:
    """Return for each touch the ordinal of its event's first. `counts` are touches per event."""
    ordinals = accumulate(counts, initial=0)
    return [n for n, count in zip(ordinals, counts, strict=False) for _ in range(count)]


def _numbered(keys: Sequence[_Key]) -> tuple[list[int], dict[_Key, int]]:
    """Return for each key the number of equal keys before it, and the count of each key."""
    times = dict.fromkeys(keys, 0)
    numbers: list[int] = []
    for key in keys:
        numbers.append(times[key])
        times[key] += 1
    return numbers, times


def _from_last(
    numbers: Iterable[int], keys: Sequence[_Key], times: Mapping[_Key, int]
) -> list[int]:
    """Return for each key the number of equal keys after it."""
    return [times[key] - number - 1 for number, key in zip(numbers, keys, strict=True)]


def _event_columns(batch: Sequence[PreparedEvent]) -> Parameters:
    events = [prepared.event for prepared in batch]
    return {
        "id": plain_array([p.id for p in batch]),
        "name": text_array([e.name for e in events]),
        "type": text_array([e.type for e in events]),
        "created_date": plain_array([p.created or "NULL" for p in batch]),
        "data": json_array([e.data for e in events]),
        "fingerprint": plain_array([rf"\\x{e.fingerprint.hex()}" for e in events]),
        "write_id": plain_array([p.write_id for p in batch]),
        "topic": text_array([p.topic for p in batch]),
        "headers": json_array([p.headers for p in batch]),
        "own_headers": _own_headers(batch),
        "expected": plain_array([_or_null(p.expected_version) for p in batch]),
    }


def _own_headers(batch: Sequence[PreparedEvent]) -> str:
    """Return the column of own headers: empty without any, since `unnest` adds NULLs then."""
    column = [p.own_headers for p in batch]
    return array_literal(column) if any(column) else "{}"


def _or_null(value: int | None) -> int | str:
    return "NULL" if value is None else value


def _subject_columns(touches: _Touches) -> Parameters:
    """Return the columns of the events' first touches.

    Their positions are numbered backward per subject, as `_Touches.back` numbers versions.
    """
    keys = [touches.keys[n] for n in touches.subjects]
    numbers, times = _numbered(keys)
    return {
        **_touch_columns("subject", touches, touches.subjects),
        "position_back": plain_array(_from_last(numbers, keys, times)),
        "first_as_subject": plain_array(["f" if number else "t" for number in numbers]),
    }


def _further_columns(touches: _Touches) -> Parameters:
    """Return the columns of the touches that are not the first of their event."""
    ordinals = [n for n, subject in enumerate(touches.subject_of) if n != subject]
    return {
        **_touch_columns("further", touches, ordinals),
        "further_event": plain_array([touches.subject_of[n] for n in ordinals]),
    }


def _touch_columns(prefix: str, touches: _Touches, ordinals: Sequence[int]) -> Parameters:
    each = [touches.all[n] for n in ordinals]
    return {
        f"{prefix}_ordinal": plain_array(ordinals),
        f"{prefix}_type": text_array([touch.entity_type for touch in each]),
        f"{prefix}_id": text_array([touch.entity_id for touch in each]),
        f"{prefix}_back": plain_array([touches.back[n] for n in ordinals]),
        f"{prefix}_header": json_array([touch.header for touch in each]),
        f"{prefix}_touch": json_array([_touch_prefix(touch) for touch in each]),
        f"{prefix}_key": text_array([listed_key(t.entity_type, t.entity_id) for t in each]),
    }


def _entity_columns(touches: _Touches, shards: int) -> Parameters:
    """Return the columns with one row per entity, sorted by key.

    The attributes are those of the last event of the batch that touches the entity.
    """
    keys = sorted(touches.times)
    ordinals = dict(zip(touches.keys, range(len(touches.keys)), strict=True))
    last = [ordinals[key] for key in keys]
    subjects = Counter([touches.keys[n] for n in touches.subjects])
    return {
        "entity_type": text_array([entity_type for entity_type, _ in keys]),
        "entity_id": text_array([entity_id for _, entity_id in keys]),
        "touches": plain_array([touches.times[key] for key in keys]),
        "subjects": plain_array([subjects[key] for key in keys]),
        "shard": plain_array([shard_of(*key, shards) for key in keys]),
        "attributes": json_array([touches.all[n].attributes for n in last]),
        "entity_event": plain_array([touches.event_ids[n] for n in last]),
    }


def _touch_prefix(touch: ParsedTouch) -> str:
    """Return ``{"entityType":..,"entityId":..,"version":``. The statement appends the version."""
    return f'{_type_prefix(touch.entity_type)}{_encode(touch.entity_id).decode()},"version":'


@lru_cache(maxsize=256)
def _type_prefix(entity_type: str) -> str:
    return f'{{"entityType":{_encode(entity_type).decode()},"entityId":'
