"""Headers and topic that an event gives its message: what is taken, and what is refused."""

from typing import Any

import pytest

from dsql_outbox.outbox import Entity, Event, InvalidEvent, JsonEvent
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.outbox.message import RESERVED_HEADERS, message_headers

JSON = Event.new("CarSold", [Entity("Car", "C-1")]).to_json()


def refused(headers: Any = None, topic: Any = None) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as raised:
        parse_event(JsonEvent(JSON, topic=topic, headers={} if headers is None else headers))
    return raised.value


@pytest.mark.parametrize("data", [JSON, JSON.decode()])
def test_json_with_headers_is_the_json(data: bytes | str) -> None:
    with_own = parse_event(JsonEvent(data, topic="a.b", headers={"tenant": "Zoë & 車"}))
    assert (with_own.topic, with_own.headers) == ("a.b", {"tenant": "Zoë & 車"})
    bare = parse_event(data)
    assert (bare.topic, bare.headers) == (None, {})
    assert (with_own.data, with_own.fingerprint) == (bare.data, bare.fingerprint)
    assert with_own.stored_bytes > bare.stored_bytes


def test_what_becomes_of_the_mapping_later_does_not_matter() -> None:
    headers = {"tenant": "acme"}
    found = parse_event(JsonEvent(JSON, headers=headers))
    headers["id"] = "changed"
    assert found.headers == {"tenant": "acme"}


@pytest.mark.parametrize("name", sorted(RESERVED_HEADERS))
def test_a_header_that_the_outbox_sets_is_refused(name: str) -> None:
    assert refused({name: "x"}).path == f"headers.{name}"


def test_every_header_that_is_made_before_the_write_is_reserved() -> None:
    assert message_headers("1", "E", None, "/s").keys() <= RESERVED_HEADERS


@pytest.mark.parametrize(
    "name", ["", "Tenant", "tenant-id", "a_b", "a b", "é", "x" * 21, "a\r\nb", "a\n", 1, None]
)
def test_a_name_that_is_not_for_every_broker_is_refused(name: Any) -> None:
    error = refused({name: "secret"})
    assert error.path == "headers"
    assert "1 to 20 of the characters a-z 0-9" in error.rule
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("", "must not be empty"),
        ("x" * 1025, "1025 characters, over the limit of 1024"),
        ("a\r\nNats-Msg-Id: b", "U+000D"),
        ("a\0", "U+0000"),
        ("\x85", "U+0085"),
        ("\ud800", "U+D800"),
        ("\uffff", "U+FFFF"),
        (7, "must be a str, not int"),
        (None, "must be a str, not NoneType"),
        (b"x", "must be a str, not bytes"),
    ],
)
def test_a_value_that_no_broker_would_keep_is_refused_by_its_name(value: Any, rule: str) -> None:
    error = refused({"tenant": value})
    assert error.path == "headers.tenant"
    assert rule in error.rule


@pytest.mark.parametrize("headers", [["tenant"], "tenant", 7])
def test_headers_are_a_mapping(headers: Any) -> None:
    assert refused(headers).path == "headers"


def test_twenty_headers_are_taken() -> None:
    headers = {f"h{n}": "x" * 1024 for n in range(20)}
    assert parse_event(JsonEvent(JSON, headers=headers)).headers == headers
    assert "21 headers are over the limit of 20" in str(refused(headers | {"h20": "x"}))


@pytest.mark.parametrize("topic", ["", "a\0", "\ud800", "x" * 256, 7, b"a"])
def test_a_topic_that_cannot_be_stored_is_refused(topic: Any) -> None:
    assert refused(topic=topic).path == "topic"


@pytest.mark.parametrize("data", [7, None, Event.new("B", []), JsonEvent(JSON)])
def test_a_json_event_takes_nothing_but_json(data: Any) -> None:
    with pytest.raises(TypeError, match="JsonEvent takes a mapping, or JSON as str or bytes"):
        JsonEvent(data)
