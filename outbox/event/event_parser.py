"""Read and check an event. Every rule that an event must keep is checked before any write."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, NoReturn, TypeVar
from uuid import UUID

import msgspec

from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.errors import EventTooLarge, InvalidEvent
from dsql_outbox.outbox.settings import (
    MAX_ENTITY_ID,
    MAX_ENTITY_TYPE,
    MAX_EVENT_BYTES,
    MAX_NAME,
    MAX_TRANSACTION_BYTES,
    MAX_TRANSACTION_ROWS,
    is_unicode,
)

from .causation import cause
from .event import EntityHeader, Event, EventHeader, JsonEvent, WireDate
from .json_encoding import encode_json
from .json_faults import SURROGATE, JsonFault, find_depth, find_fault
from .own_headers import parse_headers

MAX_ENTITIES: Final = (MAX_TRANSACTION_ROWS - 2) // 2
"""The number of entities whose event fits one transaction.

An event writes two rows (the event and its outbox row), and two rows per entity.
"""

T = TypeVar("T")

_RawObject = dict[str, msgspec.Raw]
_ReadTouch = Callable[[_RawObject, str], "ParsedTouch"]

_HEADER_FRAME: Final = len('{"eventHeader":,"entityHeader":}')
_raw_object: Final = msgspec.json.Decoder(_RawObject)
_raw_objects: Final = msgspec.json.Decoder(list[_RawObject])
_event_header: Final = msgspec.json.Decoder(EventHeader)
_entity_header: Final = msgspec.json.Decoder(EntityHeader)
_encode: Final = msgspec.json.Encoder().encode

_NO_DATE: Final = (
    "is neither an ISO 8601 date nor epoch milliseconds, "
    "such as 2026-11-25T18:00:00Z or 1795629600000"
)
_NEW_EVENT: Final = "Event.new(type, [Entity(type, id, attributes)])"
_NO_EVENT: Final = (
    'is required: an event is {"eventHeader": {..}, "entities": [..]}, '
    f"as {_NEW_EVENT} makes it"
)
_MALFORMED: Final = "JSON is malformed: "
_MISSING_FIELD: Final = re.compile(r"Object missing required field `(?P<field>[^`]+)`")
_AT: Final = re.compile(r"(?P<rule>.*?) - at `\$\.?(?P<path>[^`]*)`$", re.DOTALL)


class ParsedTouch(msgspec.Struct, frozen=True, gc=False):
    """One entity of a valid event. `attributes` and `header` are JSON text."""

    entity_type: str
    entity_id: str
    attributes: str
    header: str


class ParsedEvent(msgspec.Struct, frozen=True, gc=False):
    """A valid event, ready to be written.

    `data` is the JSON text as received. `fingerprint` is the SHA-256 of the event without
    ``savedDate``, because a sender updates that date when it sends again. White space between
    the members of the event and of its header does not change the fingerprint, nor does a
    member whose name comes again later. `created_date` is in UTC. `stored_bytes` is an upper
    bound for the bytes of all copies of the text in the database. `topic` and `headers` are
    those that the event gives its message, and no part of the fingerprint.
    """

    id: UUID
    name: str
    type: str
    created_date: datetime | None
    data: str
    fingerprint: bytes
    touches: tuple[ParsedTouch, ...]
    stored_bytes: int
    topic: str | None = None
    headers: dict[str, str] = {}


EventSource = Event | JsonEvent | Mapping[str, Any] | str | bytes | ParsedEvent
"""The types of an event that `write` accepts. JSON text is stored and sent unchanged."""


def parse_event(source: EventSource) -> ParsedEvent:
    """Read and check an event.

    Raises `EventTooLarge` if the event exceeds 1 MiB or all its copies exceed 10 MiB,
    and `InvalidEvent`, with the path of the invalid part, for any other fault.
    A `ParsedEvent` was checked before and is returned.
    """
    if isinstance(source, ParsedEvent):
        return source
    topic, headers = _own_parts(source)
    encoded, data = _bytes_and_text(source.data if isinstance(source, JsonEvent) else source)
    if len(encoded) > MAX_EVENT_BYTES:
        raise EventTooLarge(len(encoded), MAX_EVENT_BYTES)
    document = _decode(_raw_object, encoded, "")
    header_raw = _field(document, "eventHeader", "", _NO_EVENT)
    header = _decode(_event_header, header_raw, "eventHeader")
    created = parse_date(header.created_date, "eventHeader.createdDate")
    if header.saved_date is not None:
        parse_date(header.saved_date, "eventHeader.savedDate")
    where, raw, read = _entities(document)
    entities = _decode(_raw_objects, raw, where)
    _check_count(entities, where)
    stored = _stored_bytes(len(encoded), len(raw), len(header_raw), len(entities))
    touches = _touches(entities, read, header_raw, where)
    _refuse_repeats(touches, where)
    name = _name(header.event_name, "eventHeader.eventName")
    return ParsedEvent(
        id=header.uuid,
        name=name,
        type=_type(header, name),
        created_date=created,
        data=data,
        fingerprint=_fingerprint(document, header_raw),
        touches=touches,
        stored_bytes=stored + (2 * len(_encode(headers)) if headers else 0),
        topic=topic,
        headers=headers,
    )


def parse_date(value: WireDate, path: str) -> datetime | None:
    """Convert ISO 8601 text or milliseconds since the Unix epoch to a date in UTC.

    Text without a time zone is read as UTC. Raises `InvalidEvent` with `path`.
    """
    try:
        return None if value is None else _date(value)
    except (ValueError, OverflowError, OSError):
        raise InvalidEvent(path, _NO_DATE) from None


@lru_cache(maxsize=64)  # most dates of an event are the same text
def _date(value: str | float) -> datetime:
    if isinstance(value, str) and not value.lstrip("-").isdigit():
        date = datetime.fromisoformat(value)
        # Convert to UTC here: PostgreSQL refuses offsets that Python accepts, such as +20:00.
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    return datetime.fromtimestamp(float(value) / 1000, UTC)


def require_event(event: object, name: str = "event") -> None:
    """Raise `TypeError` unless `event` is of a type that holds an event."""
    if not isinstance(event, (Event, JsonEvent, str, bytes, Mapping, ParsedEvent)):
        raise wrong_type(
            f"{name} takes an Event, a JsonEvent, a mapping, or JSON as str or bytes",
            event,
            _NEW_EVENT,
        )


def _own_parts(source: EventSource) -> tuple[str | None, dict[str, str]]:
    """Return the topic and the headers that the event gives its message."""
    if not isinstance(source, (Event, JsonEvent)):
        return None, {**cause()}
    return _own_topic(source.topic), {**cause(), **parse_headers(source.headers)}


def _own_topic(topic: object) -> str | None:
    """Check that a topic is a text that can be stored; the writer's settings decide the rest."""
    if topic is None:
        return None
    if not isinstance(topic, str):
        raise InvalidEvent("topic", f"must be a str, not {type(topic).__name__}")
    if not is_unicode(topic):
        raise InvalidEvent("topic", SURROGATE)
    return _name(topic, "topic")


def _bytes_and_text(source: Event | Mapping[str, Any] | str | bytes) -> tuple[bytes, str]:
    """Return the JSON of the event as bytes and as text."""
    try:
        if isinstance(source, str):  # first: the check for a Mapping takes longer
            return source.encode(), source
        data = _json_of(source)
        return data, data.decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent("", f"is not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError as error:
        fault = find_fault(str(source)) or JsonFault("", f"is not UTF-8 at character {error.start}")
        raise InvalidEvent(*fault) from None


def _json_of(source: Event | Mapping[str, Any] | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    require_event(source)
    return source.to_json() if isinstance(source, Event) else encode_json(dict(source))


def _entities(document: _RawObject) -> tuple[str, msgspec.Raw, _ReadTouch]:
    """Detect the JSON form; return the path of the entities, their JSON, and their reader."""
    if "entities" in document or "eventBody" not in document:
        return "entities", _field(document, "entities", "", _NO_EVENT), _touch
    body = _decode(_raw_object, document["eventBody"], "eventBody")
    return "eventBody.entities", _field(body, "entities", "eventBody"), _touch_of_older_form


def _check_count(entities: list[_RawObject], where: str) -> None:
    if not entities:
        raise InvalidEvent(where, "must hold at least one entity")
    if len(entities) > MAX_ENTITIES:
        raise InvalidEvent(where, f"{len(entities)} entities are over the limit of {MAX_ENTITIES}")


def _stored_bytes(event: int, entities: int, header: int, count: int) -> int:
    """Return an upper bound for the bytes of all copies, before any copy is made.

    The event is stored in business_events and in the outbox. Each entity is stored in
    entities (its attributes) and in event_headers (its header and the event's). So a
    large event header is stored once per entity.
    """
    stored = 2 * event + entities + count * (header + _HEADER_FRAME)
    if stored > MAX_TRANSACTION_BYTES:
        raise EventTooLarge(stored, MAX_TRANSACTION_BYTES, what="event with all its stored copies")
    return stored


def _touches(
    entities: list[_RawObject], read: _ReadTouch, event_header: msgspec.Raw, where: str
) -> tuple[ParsedTouch, ...]:
    """Read the entities. Only an error makes the path of its entity."""
    header = bytes(event_header).decode()
    touches: list[ParsedTouch] = []
    try:
        for entity in entities:
            touches.append(read(entity, header))  # noqa: PERF401 - an error needs the number
    except InvalidEvent as error:
        entity_path = f"{where}[{len(touches)}]"
        path = f"{entity_path}.{error.path}" if error.path else entity_path
        raise InvalidEvent(path, error.rule) from None
    return tuple(touches)


def _touch(entity: _RawObject, event_header: str) -> ParsedTouch:
    raw = _field(entity, "entityHeader", "")
    header = _decode(_entity_header, raw, "entityHeader")
    del entity["entityHeader"]
    return _check_touch(header, "entityHeader.", _encode(entity), event_header, bytes(raw))


def _touch_of_older_form(entity: _RawObject, event_header: str) -> ParsedTouch:
    attributes = entity.pop("updatedAttributes", msgspec.Raw(b"{}"))
    _decode(_raw_object, attributes, "updatedAttributes")
    raw = _encode(entity)
    header = _decode(_entity_header, raw, "")
    return _check_touch(header, "", bytes(attributes), event_header, raw)


def _check_touch(
    header: EntityHeader, prefix: str, attributes: bytes, event_header: str, entity_header: bytes
) -> ParsedTouch:
    """Check a header and make its touch. `prefix` begins the paths of the header's fields."""
    if header.created_at is not None:
        parse_date(header.created_at, f"{prefix}createdAt")
    if header.updated_at is not None:
        parse_date(header.updated_at, f"{prefix}updatedAt")
    _check_key(header.entity_type, MAX_ENTITY_TYPE, prefix, "entityType")
    _check_key(header.entity_id, MAX_ENTITY_ID, prefix, "entityId")
    both = f'{{"eventHeader":{event_header},"entityHeader":{entity_header.decode()}}}'
    return ParsedTouch(header.entity_type, header.entity_id, attributes.decode(), both)


def _refuse_repeats(touches: tuple[ParsedTouch, ...], where: str) -> None:
    if len(touches) == 1:
        return
    first: dict[tuple[str, str], int] = {}
    for n, touch in enumerate(touches):
        before = first.setdefault((touch.entity_type, touch.entity_id), n)
        if before != n:
            raise InvalidEvent(f"{where}[{n}]", f"is the same entity as {where}[{before}]")


def _check_key(value: str, limit: int, prefix: str, name: str) -> None:
    """Check a part of an entity's key. With a trailing blank it would look like another key."""
    if not value or len(value) > limit or "\0" in value:
        _refuse_name(value, limit, prefix + name)
    if value[-1] == " ":
        raise InvalidEvent(prefix + name, "must not end with blanks")


def _name(value: str, path: str) -> str:
    if not value or len(value) > MAX_NAME or "\0" in value:
        _refuse_name(value, MAX_NAME, path)
    return value


def _refuse_name(value: str, limit: int, path: str) -> NoReturn:
    if not value:
        raise InvalidEvent(path, "must not be empty")
    if len(value) > limit:
        raise InvalidEvent(path, f"has {len(value)} characters, over the limit of {limit}")
    raise InvalidEvent(path, "must not hold a NUL character")


def _type(header: EventHeader, name: str) -> str:
    """Return the event's type. Older senders omit it; then it is the name without blanks."""
    if header.event_type is not None:
        return _name(header.event_type, "eventHeader.eventType")
    if derived := name.replace(" ", ""):
        return derived
    raise InvalidEvent("eventHeader.eventName", "must not be blank")


def _fingerprint(document: _RawObject, header_raw: msgspec.Raw) -> bytes:
    header = _decode(_raw_object, header_raw, "eventHeader")
    header.pop("savedDate", None)
    return sha256(_encode(document | {"eventHeader": header})).digest()


def _field(source: _RawObject, name: str, path: str, rule: str = "is required") -> msgspec.Raw:
    try:
        return source[name]
    except KeyError:
        raise InvalidEvent(f"{path}.{name}" if path else name, rule) from None


def _decode(decoder: "msgspec.json.Decoder[T]", raw: bytes | msgspec.Raw, path: str) -> T:
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        if not isinstance(error, msgspec.ValidationError) and (
            fault := find_fault(bytes(raw).decode())
        ):
            raise InvalidEvent(*fault) from None
        _refuse(error, path)
    except RecursionError:
        raise InvalidEvent(*find_depth(bytes(raw).decode())) from None


def _refuse(error: msgspec.DecodeError, path: str) -> NoReturn:
    """Translate an error of msgspec into `InvalidEvent` with a path and a rule."""
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        fault = _uncapitalized(text.removeprefix(_MALFORMED))
        raise InvalidEvent(path, f"is not valid JSON: {fault}") from None
    found = _AT.match(text)
    rule, inner = (found["rule"], found["path"]) if found else (text, "")
    if missing := _MISSING_FIELD.match(rule):
        rule, inner = "is required", ".".join(filter(None, (inner, missing["field"])))
    if inner and not inner.startswith("["):
        inner = f".{inner}" if path else inner
    raise InvalidEvent(f"{path}{inner}", _uncapitalized(rule)) from None


def _uncapitalized(text: str) -> str:
    return text[:1].lower() + text[1:]
