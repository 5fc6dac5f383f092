"""Messages of NATS JetStream, as the sink ``nats://`` writes them."""

from collections.abc import Mapping
from typing import Protocol

from dsql_outbox.outbox import UnreadableMessage
from dsql_outbox.publisher import attributes

from .received import Received, received


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
    return received(found, dedupe_id=dedupe_id, topic=message.subject, data=message.data)
