"""The template of the topics, and the topic of an event. No I/O."""

import string
from typing import Final

from dsql_outbox.outbox.errors import InvalidEvent, SettingsError
from dsql_outbox.outbox.event.event_parser import ParsedEvent
from dsql_outbox.outbox.message import topic_fault
from dsql_outbox.outbox.settings import MAX_NAME

_PATHS: Final = {
    "event_type": "eventHeader.eventType",
    "event_name": "eventHeader.eventName",
    "entity_type": "entities[0].entityHeader.entityType",
}
"""The fields that a template may have, each with its path in an event."""

_ANY: Final = "WriterSettings(any_topic=True) takes any text"
_REMEDY: Final = (
    "is it the name of the event (Event.new(type, entities, name=..))? "
    f"An event may also have a topic of its own, and {_ANY}"
)


def require_template(template: str, *, any_topic: bool) -> None:
    """Raise `SettingsError` unless `template` makes a topic of every event with good names."""
    setting = f"WriterSettings.topic {template!r}"
    try:
        unknown = set(_fields(template)) - _PATHS.keys()
        sample = "" if unknown else template.format_map(dict.fromkeys(_PATHS, "x"))
    except (ValueError, LookupError) as error:
        raise SettingsError(f"{setting} is no template: {error}") from None
    if unknown:
        raise SettingsError(
            f"WriterSettings.topic has no field {', '.join(sorted(unknown)) or '{}'} "
            f"(known: {', '.join(sorted(_PATHS))})"
        )
    if not any_topic and (fault := topic_fault(sample)):
        raise SettingsError(f"{setting} {fault}; {_ANY}")


def topic_of(event: ParsedEvent, template: str, *, any_topic: bool) -> str:
    """Return the topic of an event: its own, or that of the template.

    Raises `InvalidEvent`, with the path of the field that is to blame, for a text that is
    not a topic. With `any_topic` only more than 255 characters are refused.
    """
    topic = event.topic or template.format_map(_values(event))
    fault = _too_long(topic) if any_topic else topic_fault(topic)
    if fault is None:
        return topic
    if event.topic is not None:
        raise InvalidEvent("topic", f"{fault}; {_ANY}")
    raise InvalidEvent(_blamed(event, template), f"makes a topic that {fault}; {_REMEDY}")


def _values(event: ParsedEvent) -> dict[str, str]:
    return {
        "event_type": event.type,
        "event_name": event.name,
        "entity_type": event.touches[0].entity_type,
    }


def _fields(template: str) -> list[str]:
    pieces = string.Formatter().parse(template)
    return [name for _, name, *_ in pieces if name is not None]


def _blamed(event: ParsedEvent, template: str) -> str:
    """Return the path of the first value that is no topic by itself, or of the longest value."""
    values = _values(event)
    fields = _fields(template)
    longest = max(fields, key=lambda field: len(values[field]))
    return _PATHS[next((field for field in fields if topic_fault(values[field])), longest)]


def _too_long(topic: str) -> str | None:
    return None if len(topic) <= MAX_NAME else f"has {len(topic)} characters, over {MAX_NAME}"
