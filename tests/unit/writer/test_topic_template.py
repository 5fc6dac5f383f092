"""The topic of an event: its own, or one made of its names."""

import re

import pytest

from dsql_outbox.outbox import Entity, Event, InvalidEvent
from dsql_outbox.outbox.event.event_parser import ParsedEvent, parse_event
from dsql_outbox.writer.topic_template import topic_of


def event(
    name: str = "Car Sold", kind: str = "CarSold", car: str = "Car", topic: str | None = None
) -> ParsedEvent:
    return parse_event(
        Event.new(kind, [Entity(car, "C-1"), Entity("X", "1")], name=name, topic=topic)
    )


def refused(found: ParsedEvent, template: str) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as raised:
        topic_of(found, template)
    return raised.value


def test_a_topic_is_made_of_the_event() -> None:
    template = "{entity_type}.{event_type}.{event_name}"
    assert topic_of(event("Sold"), template) == "Car.CarSold.Sold"


def test_an_event_may_have_a_topic_of_its_own() -> None:
    found = event(name="$ ", kind="$ ", topic="loans.v2_x-1")
    assert topic_of(found, "events.{event_type}") == "loans.v2_x-1"


def test_a_name_in_place_of_the_type_names_the_field_the_character_and_the_remedy() -> None:
    error = refused(event(name="CarMoved", kind="Car Moved"), "events.{event_type}")
    assert error.path == "eventHeader.eventType"
    assert "the character ' ' (U+0020)" in error.rule
    assert "Event.new(type, entities, name=..)" in error.rule


@pytest.mark.parametrize(
    ("found", "template", "path"),
    [
        (event("Car Sold"), "{event_type}.{event_name}", "eventHeader.eventName"),
        (event(car="Ca/r"), "{event_type}.{entity_type}", "entities[0].entityHeader.entityType"),
        (event(kind=".Sold"), "events.{entity_type}.{event_type}", "eventHeader.eventType"),
        (event(kind="x" * 250), "{entity_type}{event_type}", "eventHeader.eventType"),
        (event("y" * 130, "x" * 125), "{event_type}{event_name}", "eventHeader.eventName"),
    ],
)
def test_the_field_that_is_to_blame_is_named(found: ParsedEvent, template: str, path: str) -> None:
    assert refused(found, template).path == path


@pytest.mark.parametrize(
    ("topic", "rule"),
    [
        ("a b", r"the character ' ' \(U\+0020\)"),
        ("a\r\nPUB x", r"the character '\\r' \(U\+000D\)"),
        ("Zoë", r"the character '\\xeb' \(U\+00EB\)"),
        ("a.>", r"the character '>'"),
        ("..", "an empty part"),
        (".a", "an empty part"),
        ("a.", "an empty part"),
        ("a..b", "an empty part"),
        ("a\n", r"U\+000A"),
        ("x" * 250, "250 characters, over the limit of 249"),
        ("_INBOX.x.1", "begins with '_INBOX', which NATS uses itself"),
        ("_INBOX_ann", "begins with '_INBOX'"),
        ("_R_.a.b", "begins with '_R_'"),
        ("_GR_.a.b", "begins with '_GR_'"),
    ],
)
def test_an_own_topic_that_some_broker_refuses_is_refused_first(topic: str, rule: str) -> None:
    error = refused(event(topic=topic), "events.{event_type}")
    assert error.path == "topic"
    assert re.search(rule, error.rule)


@pytest.mark.parametrize("topic", ["_", "_loans.x", "loans._INBOX.x", "_inbox.x", "_R.x"])
def test_a_topic_with_a_low_line_is_a_topic_like_any_other(topic: str) -> None:
    assert topic_of(event(topic=topic), "events.{event_type}") == topic
