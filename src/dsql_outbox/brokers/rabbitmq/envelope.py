"""What goes to RabbitMQ with a payload: its properties and headers, and their limits."""

from typing import Any, Final

from pamqp.commands import Basic

from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.cloudevents import rabbitmq_headers

from .properties import RabbitMqProperties
from .url import SHORT

_PERSISTENT: Final = 2
_AROUND: Final = 20  # bytes of a frame around the properties
_WIDEST: Final = 4  # bytes of a character in UTF-8


class Unfit(Exception):
    """The message breaks a limit of AMQP."""


def envelope(message: Message, frame_max: int) -> Basic.Properties:
    """The properties of a message, which must fit into a frame of at most `frame_max` bytes.

    Raises `Unfit` for a message that AMQP cannot hold: RabbitMQ would end the whole connection.
    """
    headers = rabbitmq_headers(message)
    given = message.properties
    more: dict[str, Any] = given.of_amqp() if isinstance(given, RabbitMqProperties) else {}
    found = Basic.Properties(
        content_type=message.content_type,
        delivery_mode=_PERSISTENT,
        headers={**headers},
        message_id=message.dedupe_id,
        **more,
    )
    for what, text in (
        ("routing key", message.topic),
        ("content type", message.content_type),
        ("message id", message.dedupe_id),
    ):
        if len(text.encode(errors="replace")) > SHORT:
            raise Unfit(f"RabbitMQ takes a {what} of at most {SHORT} bytes")
    if frame_max and _WIDEST * sum(map(len, headers.values())) > frame_max // 2:
        size = len(found.marshal()) + _AROUND
        if size > frame_max:
            raise Unfit(f"headers of {size} bytes are over RabbitMQ's frame_max of {frame_max}")
    return found
