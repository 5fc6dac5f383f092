"""Whatever comes in: an event or a refusal, nothing else, and nothing of it is changed."""

import json
from typing import Any

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.support.checkout import ROOT

from dsql_outbox.outbox import InvalidEvent
from dsql_outbox.outbox.event.event_parser import ParsedEvent, parse_event

SAMPLES = [p.read_bytes() for p in sorted((ROOT / "tests" / "data/events").iterdir())]
COMPACT = msgspec.json.encode(msgspec.json.decode(SAMPLES[0]))

NAMES = ["eventHeader", "entities", "entityHeader", "eventBody", "updatedAttributes", "uuid"]
NAMES += ["eventName", "eventType", "createdDate", "savedDate", "entityId", "entityType"]

texts = st.text(st.characters(), max_size=10)  # lone surrogates too
numbers = st.integers() | st.floats() | st.integers(-(2**80), 2**80)


def json_values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(NAMES) | texts
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=10,
    )


values = json_values(texts)


def parsed_or_refused(source: Any) -> ParsedEvent | None:
    try:
        return parse_event(source)
    except InvalidEvent:
        return None


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Any JSON document, and what Python takes for JSON, as NaN."""
    return json.dumps(
        draw(values), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 2]))
    )


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid event with some bytes replaced, dropped or put in."""
    data = draw(st.sampled_from(SAMPLES))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 1, 20])))
        data = data[:start] + draw(st.binary(max_size=3)) + data[end:]
    return data


@st.composite
def distorted(draw: st.DrawFn) -> dict[str, Any]:
    """A valid event with one value, at any depth, replaced by any other or removed."""
    document = msgspec.json.decode(draw(st.sampled_from(SAMPLES)))
    at: Any = document
    while True:
        key = draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[key], (dict, list)) or not at[key] or draw(st.booleans()):
            break
        at = at[key]
    if draw(st.booleans()):
        at[key] = draw(values)
    else:
        del at[key]
    return document


@given(documents())
def test_any_document_is_read_or_refused(text: str) -> None:
    parsed_or_refused(text)


@given(texts | st.binary())
def test_any_text_is_read_or_refused(source: str | bytes) -> None:
    parsed_or_refused(source)


@given(damaged())
def test_a_damaged_event_is_read_or_refused_and_stays_as_it_is(data: bytes) -> None:
    parsed = parsed_or_refused(data)
    assert parsed is None or parsed.data.encode() == data


@given(distorted())
def test_a_distorted_event_is_read_or_refused(document: dict[str, Any]) -> None:
    parsed_or_refused(document)
    parsed_or_refused(json.dumps(document))


@given(st.dictionaries(st.text(), json_values(st.text()), max_size=4))
def test_any_attributes_are_kept_as_they_are(attributes: dict[str, Any]) -> None:
    assume("entityHeader" not in attributes)
    entity = {"entityHeader": {"entityId": "1", "entityType": "Car"}} | attributes
    header = {"uuid": "0b6f3c1e-7a52-4d0e-9c41-5f2f8d3a1101", "eventName": "A"}
    text = json.dumps({"eventHeader": header, "entities": [entity]})
    parsed = parsed_or_refused(text)
    assume(parsed is not None)
    assert parsed is not None
    assert parsed.data == text
    # repr, as 0 == 0.0 == False
    assert repr(json.loads(parsed.touches[0].attributes)) == repr(
        json.loads(json.dumps(attributes))
    )


SAVED_DATE = msgspec.json.decode(COMPACT)["eventHeader"]["savedDate"].encode()
SAVED_START = COMPACT.index(b'"savedDate"') + len(b'"savedDate"')
SAVED_END = SAVED_START + len(SAVED_DATE) + len(b':""')


@given(st.integers(0, len(COMPACT) - 1), st.integers(32, 126))
def test_any_other_byte_is_another_fingerprint_save_in_saved_date(at: int, byte: int) -> None:
    changed = COMPACT[:at] + bytes([byte]) + COMPACT[at + 1 :]
    assume(changed != COMPACT)
    parsed = parsed_or_refused(changed)
    assume(parsed is not None)
    assert parsed is not None
    same = parsed.fingerprint == parse_event(COMPACT).fingerprint
    assert same == (SAVED_START <= at < SAVED_END)


@given(st.integers(0, 253402300799999))
def test_a_restamped_event_has_the_same_fingerprint(milliseconds: int) -> None:
    restamped = COMPACT[:SAVED_START] + b":%d" % milliseconds + COMPACT[SAVED_END:]
    assert parse_event(restamped).fingerprint == parse_event(COMPACT).fingerprint
    assert parse_event(restamped).data.encode() == restamped
