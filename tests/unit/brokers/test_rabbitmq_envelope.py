"""What goes to RabbitMQ with a payload, as its consumers read it."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_rabbitmq_event
from pamqp import frame
from pamqp.header import ContentHeader

from dsql_outbox.brokers.rabbitmq import RabbitMqProperties
from dsql_outbox.brokers.rabbitmq.envelope import Unfit, envelope
from dsql_outbox.inbox import Received, from_rabbitmq
from dsql_outbox.outbox import Message
from dsql_outbox.outbox.message import TRACE_HEADERS
from dsql_outbox.publisher import MapFailed, WireForm
from dsql_outbox.publisher.message_map import wire_message
from dsql_outbox.testing.sink_contract import new_message

FRAME_MAX = 131_072


def arrived(message: Message) -> Any:
    """The message as a client gets it, after its way over the wire."""
    header = ContentHeader(body_size=1, properties=envelope(message, FRAME_MAX))
    _, _, read = frame.unmarshal(frame.marshal(header, 1))
    assert isinstance(read, ContentHeader)
    properties = read.properties
    return SimpleNamespace(
        routing_key=message.topic,
        headers=properties.headers,
        content_type=properties.content_type,
        message_id=properties.message_id,
        delivery_mode=properties.delivery_mode,
        body=message.payload,
    )


@pytest.mark.parametrize("content_type", ["application/json", "application/avro"])
def test_the_inbox_reads_what_was_sent(content_type: str) -> None:
    sent = new_message(
        "Loan/café, 50%25", b"\0\xff{", datacontenttype=content_type,
        position="20", previousposition="10", replay="2",
    )  # fmt: skip

    assert from_rabbitmq(arrived(sent)) == Received(
        id=sent.event_id,
        dedupe_id=sent.dedupe_id,
        source=sent.headers["source"],
        topic=sent.topic,
        subject_type="Loan",
        subject_id="café, 50%",
        position=20,
        previous_position=10,
        replay=2,
        trace={name: sent.headers[name] for name in TRACE_HEADERS if name in sent.headers},
        headers={name: text for name, text in sent.headers.items() if name not in TRACE_HEADERS},
        data=sent.payload,
    )


def test_headers_and_properties_of_a_map_are_those_of_the_message() -> None:
    given = RabbitMqProperties(
        type="order.placed",
        correlation_id="c-7",
        app_id="shop",
        timestamp=datetime(2026, 11, 24, 10, 30, tzinfo=UTC),
        expiration=timedelta(minutes=1),
        priority=9,
    )
    form = WireForm(b"{}", headers={"x-tenant-id": "acme"}, properties=given)
    made = wire_message(lambda _: form, new_message())
    assert isinstance(made, Message)

    properties = envelope(made, FRAME_MAX)

    assert (properties.headers or {})["x-tenant-id"] == "acme"
    assert properties.message_type == "order.placed"
    assert (properties.correlation_id, properties.app_id) == ("c-7", "shop")
    assert properties.timestamp == given.timestamp
    assert (properties.expiration, properties.priority) == ("60000", 9)
    assert properties.message_id == made.dedupe_id
    arrived(made)  # pamqp can encode them


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type", "é" * 128),
        ("app_id", ""),
        ("correlation_id", 5),
        ("timestamp", datetime(2026, 11, 24)),  # noqa: DTZ001 - that is the fault
        ("timestamp", datetime(1969, 1, 1, tzinfo=UTC)),
        ("timestamp", 5),
        ("expiration", timedelta(days=50)),
        ("expiration", timedelta(seconds=-1)),
        ("expiration", "60000"),
        ("priority", 256),
        ("priority", "9"),
    ],
)
def test_a_property_that_rabbitmq_would_refuse_fails_the_message(name: str, value: Any) -> None:
    form = WireForm(b"", properties=RabbitMqProperties(**{name: value}))

    with pytest.raises(MapFailed, match=f"RabbitMqProperties that are not valid: {name} must be"):
        wire_message(lambda _: form, new_message())


def test_the_sdk_of_cloudevents_reads_what_was_sent() -> None:
    note = 'Loan/Zo%C3%AB@1,Note/"50%"@2 Zoë'
    sent = new_message("Loan/Zoë", b'{"n": 1}', entities=note, time="2026-11-24T10:30:00Z")
    found = arrived(sent)

    event = from_rabbitmq_event(
        RabbitMQMessage(headers=found.headers, content_type=found.content_type, body=found.body)
    )

    read = dict(event.get_attributes())
    read["time"] = f"{read['time']:%Y-%m-%dT%H:%M:%SZ}"
    assert read == {
        name: value for name, value in sent.headers.items() if name not in TRACE_HEADERS
    }
    assert event.get_data() == {"n": 1}


def test_a_message_is_persistent() -> None:
    assert arrived(new_message()).delivery_mode == 2


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        (new_message(topic="x" * 256), "a routing key of at most 255 bytes"),
        (new_message(topic="é" * 128), "a routing key of at most 255 bytes"),
        (new_message(datacontenttype="a/" + "b" * 254), "a content type of at most 255 bytes"),
        (new_message(entities="é" * (FRAME_MAX // 2)), f"over RabbitMQ's frame_max of {FRAME_MAX}"),
    ],
)
def test_a_message_over_a_limit_of_amqp_is_unfit(message: Message, limit: str) -> None:
    with pytest.raises(Unfit, match=limit):
        envelope(message, FRAME_MAX)


def test_headers_that_fill_a_frame_fit() -> None:
    empty = len(envelope(new_message(entities=""), FRAME_MAX).marshal())
    message = new_message(entities="x" * (FRAME_MAX - empty - 20))

    assert len(envelope(message, FRAME_MAX).marshal()) == FRAME_MAX - 20
    with pytest.raises(Unfit, match="headers of"):
        envelope(new_message(entities="x" * (FRAME_MAX - empty - 19)), FRAME_MAX)
