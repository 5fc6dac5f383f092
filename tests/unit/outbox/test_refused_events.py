"""What is refused as an event, where the refusal points, and that it tells no payload."""

import json
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from dsql_outbox.outbox import Entity, Event, EventTooLarge, InvalidEvent
from dsql_outbox.outbox.event import json_faults
from dsql_outbox.outbox.event.event import EventHeader
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.outbox.settings import MAX_EVENT_BYTES

ID = "0b6f3c1e-7a52-4d0e-9c41-5f2f8d3a1101"
MARKER = "5ecret-paylo4d"

Json = dict[str, Any]


def touch(entity_id: object = "CAR-1", **attributes: object) -> Json:
    header = {"entityId": entity_id, "entityType": "Car"}
    return {"entityHeader": header, "secret": MARKER, **attributes}


def event(*touches: object, **header: object) -> Json:
    """A valid event, unless its arguments say otherwise; None leaves a header field out."""
    fields = {"uuid": ID, "eventName": "Car Created", "eventType": "CarCreated", **header}
    kept = {k: v for k, v in fields.items() if v is not None}
    return {"eventHeader": kept, "entities": list(touches) or [touch()]}


def older(*entities: object) -> Json:
    header = {"uuid": ID, "eventName": "Car Created"}
    return {"eventHeader": header, "eventBody": {"entities": list(entities)}}


def without(source: Json, *path: str | int) -> Json:
    *parents, last = path
    at: Any = source
    for step in parents:
        at = at[step]
    del at[last]
    return source


def circle() -> Json:
    source = event()
    source["a"] = source
    return source


def of_size(size: int) -> bytes:
    """A valid event of exactly that many bytes."""
    bare = json.dumps(event(touch(pad=""))).encode()
    return bare.replace(b'"pad": ""', b'"pad": "%s"' % (b"x" * (size - len(bare))))


def nested(depth: int) -> str:
    return json.dumps(event(touch(a=0))).replace('"a": 0', f'"a": {"[" * depth}{"]" * depth}')


DATE = "is neither an ISO 8601 date nor epoch milliseconds, such as 2026-11-25T18:00:00Z or 1795"
HALF = "holds half of a surrogate pair"
E0 = "entities[0].entityHeader"

REFUSED: dict[str, tuple[Any, str, str]] = {
    "empty": ("", "", "is not valid JSON"),
    "no JSON": (f'{{"{MARKER}": oops}}', "", "is not valid JSON: invalid character (byte 19)"),
    "cut off": (json.dumps(event())[:-1], "", "is not valid JSON: input data was truncated"),
    "two documents": (json.dumps(event()) * 2, "", "is not valid JSON: trailing characters"),
    "NaN": (json.dumps(event(touch(), touch("b", n=float("nan")))), "entities[1].n", "is NaN, wh"),
    "minus infinity": (json.dumps(event(note=[-float("inf")])), "eventHeader.note[0]", "is -Inf"),
    "NaN in a key that may be data": (
        json.dumps(event(touch(n={MARKER: {"a": float("nan")}}))),
        "entities[0].n.*.a",
        "is NaN, which JSON does not have: send null, or a text",
    ),
    "lone surrogate": (json.dumps(event(touch(n="\ud800xxxxxxxx"))), "entities[0].n", HALF),
    "lone surrogate at the end": (json.dumps(event(touch(n="x\ud800"))), "entities[0].n", HALF),
    "second half alone": (
        json.dumps(event(touch(n=[{"m": "\udc00"}]))),
        "entities[0].n[0].m",
        HALF,
    ),
    "surrogate in a name": (json.dumps(event(touch(**{"n\ud800": 1}))), "entities[0].*", HALF),
    "surrogate after quotes": (
        json.dumps(event(touch(q='\\"{[,:', n="\ud800"))),
        "entities[0].n",
        HALF,
    ),
    "surrogate deep inside": (
        json.dumps(event(touch(a={"b": {"c": {"d": {"e": "\ud800"}}}}))),
        "entities[0].a.b.c.d..",
        HALF,
    ),
    "surrogate of a str in JSON": (
        json.dumps(event(touch(n="\ud800")), ensure_ascii=False),
        "entities[0].n",
        HALF,
    ),
    "surrogate in a str": (f"{MARKER}\ud800", "", "is not UTF-8 at character 14"),
    "not UTF-8": (MARKER.encode() + b"\xff", "", "is not UTF-8 at byte 14"),
    "UTF-16": (json.dumps(event()).encode("utf-16"), "", "is not UTF-8 at byte 0"),
    "byte order mark": (b"\xef\xbb\xbf" + json.dumps(event()).encode(), "", "(byte 0)"),
    "raw control character": (json.dumps(event()).replace(MARKER, "\x01"), "", "invalid character"),
    "too deep": (
        nested(20_000),
        "entities[0].a[0][0][0]..",
        "is nested too deeply, at least 666 levels: store the inner part as a text",
    ),
    "an array": ([MARKER].__repr__().replace("'", '"'), "", "expected `object`, got `array`"),
    "a text": (json.dumps(MARKER), "", "expected `object`, got `str`"),
    "no header": ({"order": 1}, "eventHeader", "Event.new(type, [Entity(type, id, attributes)])"),
    "header no object": (
        event() | {"eventHeader": [MARKER]},
        "eventHeader",
        "expected `object`, got `array`",
    ),
    "no uuid": (event(uuid=None), "eventHeader.uuid", "is required"),
    "bad uuid": (event(uuid=MARKER), "eventHeader.uuid", "invalid UUID"),
    "uuid a number": (event(uuid=7), "eventHeader.uuid", "expected `uuid`, got `int`"),
    "no name": (event(eventName=None), "eventHeader.eventName", "is required"),
    "name a number": (event(eventName=7), "eventHeader.eventName", "expected `str`, got `int`"),
    "name empty": (event(eventName=""), "eventHeader.eventName", "must not be empty"),
    "name blank": (event(eventName="  ", eventType=None), "eventHeader.eventName", "must not be"),
    "name too long": (
        event(eventName="é" * 256),
        "eventHeader.eventName",
        "has 256 characters, over the limit of 255",
    ),
    "name with NUL": (
        event(eventName=f"{MARKER}\0"),
        "eventHeader.eventName",
        "must not hold a NUL character",
    ),
    "type empty": (event(eventType=""), "eventHeader.eventType", "must not be empty"),
    "type too long": (event(eventType="x" * 256), "eventHeader.eventType", "over the limit of 255"),
    "type with NUL": (event(eventType="\0"), "eventHeader.eventType", "must not hold a NUL"),
    "created no date": (event(createdDate=MARKER), "eventHeader.createdDate", DATE),
    "created a bool": (event(createdDate=True), "eventHeader.createdDate", "got `bool`"),
    "created an object": (event(createdDate={MARKER: 1}), "eventHeader.createdDate", "got `objec"),
    "created too far": (event(createdDate=10**18), "eventHeader.createdDate", DATE),
    "created infinite": (event(createdDate="9" * 5000), "eventHeader.createdDate", DATE),
    "created out of range": (
        json.dumps(event(createdDate=0)).replace('Date": 0', 'Date": 1e999'),
        "eventHeader.createdDate",
        "number out of range",
    ),
    "created before year 1": (
        event(createdDate="0001-01-01T00:00:00+01:00"),
        "eventHeader.createdDate",
        DATE,
    ),
    "created no digits": (event(createdDate="²"), "eventHeader.createdDate", DATE),
    "saved no date": (event(savedDate="yesterday"), "eventHeader.savedDate", DATE),
    "no entities": (without(event(), "entities"), "entities", '"entities": [..]'),
    "entities empty": (event() | {"entities": []}, "entities", "must hold at least one entity"),
    "entities no array": (event() | {"entities": {MARKER: 1}}, "entities", "expected `array`"),
    "entity no object": (event(touch(), 5), "entities[1]", "expected `object`, got `int`"),
    "too many entities": (
        event(*({} for _ in range(1500))),
        "entities",
        "1500 entities are over the limit of 1499",
    ),
    "same entity twice": (
        event(touch("a"), touch("b"), touch("a")),
        "entities[2]",
        "is the same entity as entities[0]",
    ),
    "no entity header": (without(event(), "entities", 0, "entityHeader"), E0, "is required"),
    "entity header no object": (
        event({"entityHeader": MARKER}),
        E0,
        "expected `object`, got `str`",
    ),
    "no entity id": (
        event({"entityHeader": {"entityType": MARKER}}),
        f"{E0}.entityId",
        "is required",
    ),
    "entity id a number": (event(touch(7)), f"{E0}.entityId", "expected `str`, got `int`"),
    "entity id empty": (event(touch("")), f"{E0}.entityId", "must not be empty"),
    "entity id with a blank": (event(touch("a ")), f"{E0}.entityId", "must not end with blanks"),
    "entity id with NUL": (event(touch("a\0")), f"{E0}.entityId", "must not hold a NUL"),
    "entity id too long": (
        event(touch(), touch("x" * 129)),
        "entities[1].entityHeader.entityId",
        "has 129 characters, over the limit of 128",
    ),
    "entity type too long": (
        event({"entityHeader": {"entityId": "1", "entityType": "x" * 65}}),
        f"{E0}.entityType",
        "has 65 characters, over the limit of 64",
    ),
    "entity created no date": (
        event({"entityHeader": {"entityId": "1", "entityType": "A", "createdAt": MARKER}}),
        f"{E0}.createdAt",
        DATE,
    ),
    "entity updated no date": (
        event({"entityHeader": {"entityId": "1", "entityType": "A", "updatedAt": ""}}),
        f"{E0}.updatedAt",
        DATE,
    ),
    "older: body no object": (
        without(older(), "eventBody") | {"eventBody": MARKER},
        "eventBody",
        "expected `object`, got `str`",
    ),
    "older: no entities": (
        without(older(), "eventBody", "entities"),
        "eventBody.entities",
        "is required",
    ),
    "older: entities empty": (older(), "eventBody.entities", "must hold at least one entity"),
    "older: no entity id": (
        older({"entityType": "Car", "updatedAttributes": {"secret": MARKER}}),
        "eventBody.entities[0].entityId",
        "is required",
    ),
    "older: attributes no object": (
        older({"entityType": "Car", "entityId": "1", "updatedAttributes": [MARKER]}),
        "eventBody.entities[0].updatedAttributes",
        "expected `object`, got `array`",
    ),
    "a value that JSON has not": (
        event(touch(), touch(a=object())),
        "entities[1]",
        "cannot be encoded as JSON",
    ),
    "a text that is not Unicode": (event(touch(a=f"{MARKER}\ud800")), "entities[0].a", HALF),
    "a text of an Event that is not Unicode": (
        Event.new("A", [Entity("A", "1", {"id": UUID(ID), "a": ("\ud800",)})]),
        "entities[0].a[0]",
        HALF,
    ),
    "a circle": (circle(), "", "it is nested too deeply, or contains itself"),
    "attribute entityHeader": (
        Event.new("A", [Entity("A", "1"), Entity("A", "2", {"entityHeader": MARKER})]),
        "entities[1].attributes.entityHeader",
        "is no name for an attribute",
    ),
    "event object without entities": (
        Event(EventHeader(UUID(ID), "A"), ()),
        "entities",
        "must hold at least one entity",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_points_at_the_culprit_and_tells_nothing_of_the_payload(name: str) -> None:
    source, path, rule = REFUSED[name]
    with pytest.raises(InvalidEvent) as caught:
        parse_event(source)
    assert caught.value.path == path
    assert rule in caught.value.rule
    assert str(caught.value).startswith(f"{path}: " if path else caught.value.rule)
    told = f"{caught.value!r} {caught.value.path} {caught.value.rule}"
    assert MARKER not in told + "".join(traceback.format_exception(caught.value))


# Sizes.


def test_an_event_of_one_mebibyte_is_taken_and_a_byte_more_is_not() -> None:
    assert parse_event(of_size(MAX_EVENT_BYTES)).stored_bytes > 2 * MAX_EVENT_BYTES
    with pytest.raises(EventTooLarge) as caught:
        parse_event(of_size(MAX_EVENT_BYTES + 1))
    assert (caught.value.size, caught.value.limit) == (1_048_577, 1_048_576)
    assert str(caught.value) == "event of 1048577 bytes is over the limit of 1048576 bytes"


def test_the_size_is_counted_in_bytes_not_characters() -> None:
    with pytest.raises(EventTooLarge):
        parse_event(json.dumps(event(touch(a="車" * 400_000)), ensure_ascii=False))


def test_a_big_header_counts_once_for_each_entity_that_keeps_a_copy() -> None:
    wire = event(*(touch(str(n)) for n in range(100)), note="x" * 110_000)
    assert len(json.dumps(wire)) < MAX_EVENT_BYTES
    with pytest.raises(EventTooLarge) as caught:
        parse_event(wire)
    assert caught.value.limit == 10 << 20
    assert caught.value.size > 11_000_000
    assert "event with all its stored copies of" in str(caught.value)


HOSTILE: dict[str, Callable[[int], str]] = {
    "objects": lambda size: '{"a":' * (size // 5),
    "ends in NaN": lambda size: '{"a":[' + "1," * (size // 2) + "NaN]}",
    "ends in a surrogate": lambda size: '{"a":[' + '"",' * (size // 3) + '"\\ud800"]}',
    "closed only": lambda size: "]" * size,
    "malformed at its end": lambda size: '{"a":[' + "1," * (size // 2) + "x",
    "a text without end": lambda size: '"\\' * (size // 2) + "NaN",
}


@pytest.mark.parametrize("size", [30_000, 300_000])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_refused_at_the_cost_of_a_few_valid_events(name: str, size: int) -> None:
    """Counted in tokens that the search for the fault reads, not in time."""
    text = HOSTILE[name](size)
    walked = sum(1 for _ in json_faults._walk(text))
    assert walked <= 200 + len(text) / 80
    with pytest.raises(InvalidEvent):
        parse_event(text)


def test_of_a_hostile_text_only_strings_that_may_have_a_fault_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To decode a string costs more than all else that the search does with it."""
    decoded: list[str] = []

    def loads(string: str, *, strict: bool) -> object:
        decoded.append(string)
        return json.loads(string, strict=strict)

    monkeypatch.setattr(json_faults, "json", SimpleNamespace(loads=loads))
    with pytest.raises(InvalidEvent, match=r"a\[50\]: holds half of a surrogate pair"):
        parse_event('{"a":[' + '"\\u0041",' * 50 + '"\\ud800"]}')
    assert decoded == ['"\\ud800"']


def test_a_text_without_end_is_one_token() -> None:
    """Each of its quotes was read up to the end of the text: 0.9 MB took minutes."""
    assert [part for part, _ in json_faults._walk('"\\' * 5_000 + "NaN")] == ['"\\' * 5_000 + "NaN"]
