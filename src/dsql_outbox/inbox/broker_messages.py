"""Messages for the inbox, from what the clients of NATS, Kafka, RabbitMQ, Redis and SQS give."""

from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from dsql_outbox.outbox.errors import UnreadableMessage
from dsql_outbox.outbox.message import TRACE_HEADERS
from dsql_outbox.publisher.sinks.cloudevents import attributes

from .received import Received, received_message, require_header


class NatsMessage(Protocol):
    """The part of ``nats.aio.msg.Msg`` that is read."""

    @property
    def subject(self) -> str:
        """The subject of NATS, which is the topic."""
        ...

    @property
    def headers(self) -> Mapping[str, str] | None:
        """The headers as they came."""
        ...

    @property
    def data(self) -> bytes:
        """The payload."""
        ...


def from_nats(message: NatsMessage) -> Received:
    """Read a message of nats-py. Raises `UnreadableMessage` if a publisher did not send it."""
    wire = {name.lower(): text for name, text in (message.headers or {}).items()}
    try:
        found = attributes(wire, "ce-")
    except UnicodeDecodeError:
        raise UnreadableMessage("headers", "a value is no percent-encoded UTF-8") from None
    dedupe_id = wire.get("nats-msg-id") or found.get("id", "")
    return received_message(found, dedupe_id=dedupe_id, topic=message.subject, data=message.data)


_PREFIX: Final = "ce_"


class KafkaMessage(Protocol):
    """The part of ``confluent_kafka.Message`` that is read."""

    def topic(self) -> str | None:
        """Return the topic."""
        ...

    def headers(self) -> Any:
        """Return pairs of a name and bytes."""
        ...

    def value(self) -> Any:
        """Return the payload as bytes, or None for a deletion."""
        ...


def from_kafka(message: KafkaMessage) -> Received:
    """Read a message of confluent-kafka.

    Raises `UnreadableMessage` if a publisher did not send it. A message with an
    `error()` is none: check that first.
    """
    wire = _kafka_headers(message.headers() or [])
    own = {name.removeprefix(_PREFIX): wire[name] for name in wire if name.startswith(_PREFIX)}
    own |= {name: wire[name] for name in TRACE_HEADERS if name in wire}
    if "content-type" in wire:
        own["datacontenttype"] = wire["content-type"]
    return received_message(
        own,
        dedupe_id=require_header(wire, "dedupe-id"),
        topic=message.topic() or "",
        data=message.value(),
    )


def _kafka_headers(headers: Any) -> dict[str, str]:
    try:
        return {name: value.decode() for name, value in headers if value is not None}
    except UnicodeDecodeError:
        raise UnreadableMessage("headers", "a value is no UTF-8") from None


class RabbitMqMessage(Protocol):
    """The part of ``aio_pika.IncomingMessage`` that is read."""

    @property
    def routing_key(self) -> str | None:
        """The routing key, which is the topic."""
        ...

    @property
    def headers(self) -> Mapping[str, Any]:
        """The headers, of which those of a publisher are texts."""
        ...

    @property
    def content_type(self) -> str | None:
        """The content type."""
        ...

    @property
    def message_id(self) -> str | None:
        """The id of the message, which is the dedupe id."""
        ...

    @property
    def body(self) -> bytes:
        """The payload."""
        ...


def from_rabbitmq(message: RabbitMqMessage) -> Received:
    """Read a message of aio-pika. Raises `UnreadableMessage` if a publisher did not send it."""
    wire = {name: text for name, text in message.headers.items() if isinstance(text, str)}
    own = {name.removeprefix("ce-"): wire[name] for name in wire if name.startswith("ce-")}
    own |= {name: wire[name] for name in TRACE_HEADERS if name in wire}
    if message.content_type is not None:
        own["datacontenttype"] = message.content_type
    return received_message(
        own,
        dedupe_id=message.message_id or own.get("id", ""),
        topic=message.routing_key or "",
        data=message.body,
    )


def from_redis(
    stream: str | bytes, fields: Mapping[bytes, bytes], *, field: str = "payload"
) -> Received:
    """Read an entry of a stream, as redis-py returns it: its key, and the fields as bytes.

    `field` has the payload, as the URL of the publisher says.

    redis-py returns bytes unless it has ``decode_responses``. Raises `UnreadableMessage` if a
    publisher did not send the entry.
    """
    place = field.encode()
    try:
        wire = {name.decode(): value.decode() for name, value in fields.items() if name != place}
        found = attributes(wire, "ce-")
    except UnicodeDecodeError:
        raise UnreadableMessage("headers", "a name or a value is no UTF-8") from None
    return received_message(
        found,
        dedupe_id=require_header(wire, "dedupe-id"),
        topic=stream if isinstance(stream, str) else stream.decode(errors="replace"),
        data=fields.get(place, b""),
    )


_event: Final = msgspec.json.Decoder(dict[str, str])


def from_sqs(record: Mapping[str, Any]) -> Received:
    """Read a record of an event of AWS Lambda, or a message of boto3's `receive_message`.

    `receive_message` returns attributes only with ``MessageAttributeNames=["All"]``.
    Raises `UnreadableMessage` if a publisher did not send it.
    """
    wire = dict(_sqs_attributes(record))
    try:
        own = _event.decode(require_header(wire, "cloudevent"))
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise UnreadableMessage("cloudevent", "it is no JSON object of texts") from None
    own |= {name: wire[name] for name in TRACE_HEADERS if name in wire}
    body: str = record.get("body") or record.get("Body") or ""
    data = _sqs_payload(body, wire.get("content-transfer-encoding"))
    return received_message(
        own, dedupe_id=require_header(wire, "dedupe-id"), topic=wire.get("topic", ""), data=data
    )


def _sqs_payload(body: str, encoding: str | None) -> bytes:
    """Return the bytes of a body, which SQS and SNS keep as text."""
    if encoding is None:
        try:
            return body.encode()
        except UnicodeEncodeError:
            raise UnreadableMessage("body", "it has half of a surrogate pair") from None
    if encoding != "base64":
        raise UnreadableMessage("content-transfer-encoding", "it is not base64")
    try:
        return b64decode(body, validate=True)
    except ValueError:
        raise UnreadableMessage("body", "it is no base64") from None


def _sqs_attributes(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the attributes. Lambda writes their names in lower case, boto3 in upper case."""
    found: Mapping[str, Any] = (
        record.get("messageAttributes") or record.get("MessageAttributes") or {}
    )
    texts = [
        (name, each.get("stringValue", each.get("StringValue"))) for name, each in found.items()
    ]
    return [(name, text) for name, text in texts if text is not None]
