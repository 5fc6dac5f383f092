"""Messages of Apache Kafka, as the sink ``kafka://`` writes them."""

from typing import Any, Final, Protocol

from dsql_outbox.outbox import TRACE_HEADERS, UnreadableMessage

from .received import Received, received, required

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
        """Return the payload as bytes."""
        ...


def from_kafka(message: KafkaMessage) -> Received:
    """Read a message of confluent-kafka.

    Raises `UnreadableMessage` if a publisher did not send it. A message with an
    `error()` is none: check that first.
    """
    wire = _wire(message.headers() or [])
    own = {name.removeprefix(_PREFIX): wire[name] for name in wire if name.startswith(_PREFIX)}
    own |= {name: wire[name] for name in TRACE_HEADERS if name in wire}
    if "content-type" in wire:
        own["datacontenttype"] = wire["content-type"]
    return received(
        own,
        dedupe_id=required(wire, "dedupe-id"),
        topic=message.topic() or "",
        data=message.value() or b"",
    )


def _wire(headers: Any) -> dict[str, str]:
    try:
        return {name: value.decode() for name, value in headers if value is not None}
    except UnicodeDecodeError:
        raise UnreadableMessage("headers", "a value is no UTF-8") from None
