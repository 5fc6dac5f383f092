"""The meaning of RabbitMQ's answer to a message."""

from typing import Final

from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelClosed,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)

from dsql_outbox.publisher.sinks.port import Deferred, Outcome, Rejected, Retry, Unavailable

from .refusal import client_text

_CONTENT_TOO_LARGE: Final = 311


def outcome_of(error: DeliveryError, topic: str, place: str) -> Unavailable | Deferred:
    """The outcome of a message that was returned, or that a queue refused.

    A refusal (nack) names no queue. The topic may have others that take messages.
    """
    if isinstance(error, PublishError):
        return Unavailable(
            f"unroutable: {place} routes {topic} to no queue; bind a queue to it by this routing "
            "key, or by a pattern"
        )
    return Deferred(
        f"refused by RabbitMQ (nack): a queue of {topic} is full and rejects, or it has no leader"
    )


def is_for_all(error: ChannelClosed) -> bool:
    """Whether the channel was closed for a reason that all messages share: no exchange."""
    return isinstance(error, ChannelNotFoundEntity)


def outcome_of_closing(error: ChannelClosed) -> Outcome:
    """The outcome of the message for which RabbitMQ closed its channel."""
    text = f"refused by RabbitMQ: {client_text(error)}"
    match error:
        case ChannelNotFoundEntity():
            return Unavailable(f"{text}; declare it, or name another one by exchange= in the URL")
        case ChannelAccessRefused():
            return Unavailable(text)
        case ChannelPreconditionFailed():  # the message is over max_message_size
            return Rejected(text)
        case _:
            return Rejected(text) if error.args[0] == _CONTENT_TOO_LARGE else Retry(text)


def silence(topic: str, seconds: float) -> Deferred:
    """The outcome of a message without an answer from a server that lives."""
    return Deferred(
        f"no confirmation for {topic} within {seconds:g} s, although RabbitMQ answers: a queue of "
        "it has no majority, or is overloaded"
    )
