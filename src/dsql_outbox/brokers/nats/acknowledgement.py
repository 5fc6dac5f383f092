"""The meaning of JetStream's answer to a message."""

from typing import TYPE_CHECKING, Final

import msgspec

from dsql_outbox.publisher.sinks.port import Delivered, NotAttempted, Outcome, Rejected, Unavailable

from .refusal import jetstream_text

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


class Acknowledgement(msgspec.Struct):
    """JetStream's answer to a message; it has `stream` if something was stored.

    `count` is that of the messages of a batch.
    """

    stream: str = ""
    duplicate: bool = False
    count: int = 0
    error: _Error | None = None


_ANSWER: Final = msgspec.json.Decoder(Acknowledgement)


def read_answer(answer: "Msg") -> Acknowledgement:
    """Read an answer; one that is none of JetStream's is empty."""
    try:
        return _ANSWER.decode(answer.data)
    except msgspec.DecodeError:
        return Acknowledgement()


def has_no_responders(answer: "Msg") -> bool:
    """Whether the server answered that nobody takes the subject."""
    return (answer.headers or {}).get("Status") == _NO_RESPONDERS


def outcome_of(answer: "Msg", read: Acknowledgement, topic: str) -> Outcome:
    """The outcome of a message of the topic.

    A stream decides by its limits and its state. So its errors are about the topic,
    unless they are about the size of the message.
    """
    if has_no_responders(answer):
        return Unavailable(
            f"no responders on {topic}: no stream takes this NATS subject, or it has no leader "
            f"now (`nats stream report`); make one with `nats stream add NAME --subjects={topic}`, "
            "or give the sink ?stream=NAME"
        )
    if read.error is not None:
        return _refusal(read.error)
    return _DELIVERED if read.stream else Unavailable(f"the responder on {topic} is not a stream")


def _refusal(error: _Error) -> Outcome:
    if error.err_code == _IN_PROCESS:
        return NotAttempted()
    text = f"refused by JetStream: {jetstream_text(error.description, error.err_code)}"
    return Rejected(text) if error.err_code in _TOO_LARGE else Unavailable(text)


def silence(topic: str, seconds: float) -> Unavailable:
    """The outcome of a message without an answer, when no message of its topic has one."""
    return Unavailable(
        f"no acknowledgement for {topic} within {seconds:g} s: its stream has no quorum or is "
        "overloaded, or the NATS subject belongs to a program that is no stream"
    )


def no_right(topic: str) -> Unavailable:
    """The outcome of a message whose topic the server refuses to this client."""
    return Unavailable(f"this client may not publish to {topic}: permissions violation")
