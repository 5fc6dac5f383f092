"""The meaning of JetStream's answer to a message."""

from typing import TYPE_CHECKING, Final

import msgspec

from dsql_outbox.publisher.sinks.port import (
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Unavailable,
)

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_NO_RESPONDERS: Final = "503"
_TOO_LARGE: Final = frozenset({10054, 10097})
"""JetStream's error codes: message over the limit of the stream, headers over the server's."""
_IN_PROCESS: Final = 10158
"""JetStream's error code: an earlier copy of the message is on its way to the replicas."""

_DELIVERED: Final = Delivered()


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    """JetStream's answer to a message; it has `stream` if it is an acknowledgement."""

    stream: str = ""
    error: _Error | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)


def outcome_of(answer: "Msg", topic: str) -> Outcome:
    """The outcome of a message of the topic.

    A stream decides by its limits and its state. So its errors are about the topic,
    unless they are about the size of the message.
    """
    if answer.headers and answer.headers.get("Status") == _NO_RESPONDERS:
        return Unavailable(
            f"no responders on {topic}: no stream takes this subject, or its stream has no leader "
            f"now (`nats stream report`); make one with `nats stream add NAME --subjects={topic}`, "
            "or give the sink ?stream=NAME"
        )
    try:
        read = _ANSWER.decode(answer.data)
    except msgspec.DecodeError:
        read = _Answer()
    if read.error is not None:
        return _refusal(read.error)
    return _DELIVERED if read.stream else Unavailable(f"the responder on {topic} is not a stream")


def _refusal(error: _Error) -> Outcome:
    if error.err_code == _IN_PROCESS:
        return NotAttempted()
    text = f"refused by JetStream: {error.description} ({error.err_code})"
    return Rejected(text) if error.err_code in _TOO_LARGE else Unavailable(text)


def silence(topic: str, seconds: float) -> Unavailable:
    """The outcome of a message without an answer, when no message of its topic has one."""
    return Unavailable(
        f"no acknowledgement for {topic} within {seconds:g} s: its stream has no quorum or is "
        "overloaded, or the subject belongs to a program that is no stream"
    )


def no_right(topic: str) -> Unavailable:
    """The outcome of a message whose topic the server refuses to this client."""
    return Unavailable(f"this client may not publish to {topic}: permissions violation")
