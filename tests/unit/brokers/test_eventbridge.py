"""From messages to entries of EventBridge."""

import json
from base64 import b64encode

import pytest

from dsql_outbox.brokers.aws.batch_client import Entry
from dsql_outbox.brokers.eventbridge import MAX_BYTES, make_entry
from dsql_outbox.publisher.sinks import Rejected
from dsql_outbox.testing.sink_contract import new_message


def made(payload: bytes) -> Entry | Rejected:
    return make_entry(0, new_message(payload=payload), "orders")


def test_the_detail_is_a_cloudevent_with_the_event_as_it_was_given() -> None:
    message = new_message(payload=b' {"a" : 1.0}', tracestate="a=1")

    entry = make_entry(3, message, "orders")

    assert isinstance(entry, Entry)
    assert entry.index == 3
    detail = entry.request.pop("Detail")
    assert entry.request == {
        "Source": "/tests",
        "DetailType": "LoanCreated",
        "EventBusName": "orders",
    }
    own = {"topic": message.topic, "dedupeid": message.dedupe_id, "data": {"a": 1.0}}
    assert json.loads(detail) == message.headers | own
    assert detail.endswith(',"data": {"a" : 1.0}}')


def test_attributes_of_the_event_do_not_replace_topic_and_dedupe_id() -> None:
    message = new_message(topic="events.X", dedupeid="forged")

    entry = make_entry(0, message, "orders")

    assert isinstance(entry, Entry)
    assert json.loads(entry.request["Detail"])["dedupeid"] == message.dedupe_id


@pytest.mark.parametrize(
    "payload",
    [b"", b'{"a":1},"id":"forged","data":{}', b"{", b"[" * 100_000 + b"]" * 100_000],
    ids=["empty", "forged", "open", "deep"],
)
def test_a_payload_that_would_spoil_the_detail_is_rejected(payload: bytes) -> None:
    assert made(payload) == Rejected("EventBridge takes only JSON, of at most 1000 levels")


FORGED = b'"a"},"id":"forged","data":{}'


@pytest.mark.parametrize(
    ("content_type", "payload", "data"),
    [
        ("text/plain", FORGED, {"data": FORGED.decode()}),
        ("text/plain", b"\0\r\n\xf0\x9f\x98\x80", {"data": "\0\r\n😀"}),
        ("application/avro", FORGED, {"data_base64": b64encode(FORGED).decode()}),
        ("application/avro", b"\0\0\0\0\x07\xff", {"data_base64": "AAAAAAf/"}),
        ("application/vnd.shop+json", b"[1]", {"data": [1]}),
    ],
)
def test_the_content_type_decides_how_the_detail_holds_the_payload(
    content_type: str, payload: bytes, data: dict[str, object]
) -> None:
    message = new_message(payload=payload, datacontenttype=content_type)

    entry = make_entry(0, message, "orders")

    assert isinstance(entry, Entry)
    own = {"topic": message.topic, "dedupeid": message.dedupe_id}
    assert json.loads(entry.request["Detail"]) == message.headers | own | data


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_a_text_that_is_no_utf8_is_rejected(content_type: str) -> None:
    message = new_message(payload=b'"\xff"', datacontenttype=content_type)

    rule = "EventBridge takes only UTF-8 as JSON or text; bytes need another content type"
    assert make_entry(0, message, "orders") == Rejected(rule)


@pytest.mark.parametrize("length", [0, 129])
def test_a_type_that_eventbridge_would_refuse_is_rejected(length: int) -> None:
    message = new_message(type="x" * length)

    rule = f"EventBridge takes types of 1 to 128 characters, this has {length}"
    assert make_entry(0, message, "orders") == Rejected(rule)


def test_an_entry_may_have_less_than_a_mebibyte_and_no_byte_more() -> None:
    smallest = made(b'""')
    assert isinstance(smallest, Entry)
    rest = MAX_BYTES - smallest.size

    assert isinstance(made(b'"' + b"x" * rest + b'"'), Entry)
    assert made(b'"' + b"x" * (rest + 1) + b'"') == Rejected(
        f"message of {MAX_BYTES + 1} bytes is over the limit of EventBridge of {MAX_BYTES} bytes"
    )
