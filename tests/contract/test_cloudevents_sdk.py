"""What is sent, read by the CloudEvents SDK, which shares no code with us."""

import json
from typing import Any

import pytest
from cloudevents.core.bindings import http, kafka
from cloudevents.core.formats.json import JSONFormat
from tests.support.brokers.kafka_reader import read_all
from tests.support.brokers.readable_brokers import EventBridgeBroker, KafkaBroker, NatsBroker

from dsql_outbox.outbox import Message
from dsql_outbox.outbox.message import TRACE_HEADERS
from dsql_outbox.testing.sink_contract import new_message, published

pytestmark = pytest.mark.anyio

PAYLOAD = '{"eventHeader": {"eventName": "Loan Created"}, "note": "Zoë 😀"}'.encode()


@pytest.fixture
def message() -> Message:
    """A message as the relay makes them, with values that need care on the wire."""
    return new_message(
        key="Loan/Zo%C3%AB%201",
        payload=PAYLOAD,
        time="2026-11-24T10:30:00.123456Z",
        partitionkey="Loan/Zo%C3%AB%201",
        entities='Loan/Zo%C3%AB%201@1,Note/"50%"@2 Zoë',
        position="1795543769060711",
    )


def as_json(event: Any) -> dict[str, Any]:
    """An event's attributes, as JSON has them."""
    attributes = dict(event.get_attributes())
    attributes["time"] = attributes["time"].isoformat().replace("+00:00", "Z")
    return attributes


def expected(message: Message) -> dict[str, Any]:
    return {name: value for name, value in message.headers.items() if name not in TRACE_HEADERS}


async def test_a_message_of_kafka_is_one_event_by_the_kafka_binding(
    kafka_broker: KafkaBroker, message: Message
) -> None:
    async with kafka_broker.open() as sink:
        await published(sink, [message])

    (stored,) = read_all(kafka_broker.bootstrap)
    headers = dict(stored.headers() or [])
    event = kafka.from_kafka_event(
        kafka.KafkaMessage(headers=headers, key=stored.key(), value=stored.value() or b"")
    )

    assert as_json(event) == expected(message)
    assert event.get_data() == json.loads(PAYLOAD)


async def test_a_message_of_nats_is_one_event_by_the_same_rules_as_http(
    nats_broker: NatsBroker, message: Message
) -> None:
    # The SDK has no binding for NATS; that of HTTP has the same names and the same encoding.
    async with nats_broker.open() as sink, nats_broker.jetstream() as jetstream:
        await published(sink, [message])
        stored = await jetstream.get_msg("EVENTS", seq=1)

    event = http.from_binary_event(http.HTTPMessage(headers=stored.headers, body=stored.data))

    assert as_json(event) == expected(message)
    assert event.get_data() == json.loads(PAYLOAD)


CONTENTS = [
    ("application/avro", b"\0\0\0\0\x07\xff", b"\0\0\0\0\x07\xff"),
    ("text/plain; charset=utf-8", "Zoë 😀\n".encode(), "Zoë 😀\n"),
    ("application/vnd.shop+json", b'{"total": 1.5}', {"total": 1.5}),
]
of_each_content = pytest.mark.parametrize(("content_type", "payload", "data"), CONTENTS)


@of_each_content
async def test_the_kafka_binding_finds_any_content(
    kafka_broker: KafkaBroker, content_type: str, payload: bytes, data: object
) -> None:
    async with kafka_broker.open() as sink:
        await published(sink, [new_message(payload=payload, datacontenttype=content_type)])

    (stored,) = read_all(kafka_broker.bootstrap)
    headers = dict(stored.headers() or [])
    event = kafka.from_kafka_event(
        kafka.KafkaMessage(headers=headers, key=stored.key(), value=stored.value() or b"")
    )
    assert event.get_datacontenttype() == content_type
    assert event.get_data() == data


@of_each_content
async def test_the_rules_of_http_find_any_content_in_nats(
    nats_broker: NatsBroker, content_type: str, payload: bytes, data: object
) -> None:
    async with nats_broker.open() as sink, nats_broker.jetstream() as jetstream:
        await published(sink, [new_message(payload=payload, datacontenttype=content_type)])
        stored = await jetstream.get_msg("EVENTS", seq=1)

    event = http.from_binary_event(http.HTTPMessage(headers=stored.headers, body=stored.data))
    assert event.get_datacontenttype() == content_type
    assert event.get_data() == data


@of_each_content
async def test_the_json_format_finds_any_content_in_the_detail_of_eventbridge(
    eventbridge_broker: EventBridgeBroker, content_type: str, payload: bytes, data: object
) -> None:
    async with eventbridge_broker.open() as sink:
        await published(sink, [new_message(payload=payload, datacontenttype=content_type)])

    (found,) = await eventbridge_broker.received()
    detail = json.dumps(json.loads(found["Body"])["detail"])
    event = JSONFormat().read(None, detail)
    assert event.get_datacontenttype() == content_type
    assert event.get_data() == data
