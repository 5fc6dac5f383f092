"""The template of the topics, and the topic of an event. No I/O."""

import string
from typing import Final

from dsql_outbox.outbox.errors import InvalidEvent, SettingsError
from dsql_outbox.outbox.event.event_parser import ParsedEvent
from dsql_outbox.outbox.message import topic_fault

_PATHS: Final = {
    "event_type": "eventHeader.eventType",
    "event_name": "eventHeader.eventName",
    "entity_type": "entities[0].entityHeader.entityType",
}
"""The fields that a template may have, each with its path in an event."""

_REMEDY: Final = (
    "is it the name of the event (Event.new(type, entities, name=..))? "
    "An event may also have a topic of its own"
)


def require_template(template: str) -> None:
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
    if fault := topic_fault(sample):
        raise SettingsError(f"{setting} {fault}")


def topic_of(event: ParsedEvent, template: str) -> str:
    """Return the topic of an event: its own, or that of the template.

    Raises `InvalidEvent`, with the path of the field that is to blame, for a text that is
    not a topic.
    """
    topic = event.topic or template.format_map(_values(event))
    fault = topic_fault(topic)
    if fault is None:
        return topic
    if event.topic is not None:
        raise InvalidEvent("topic", fault)
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
