"""The port to a broker: the protocol `Sink` and the outcomes of a message."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from dsql_outbox.outbox import Message, OutboxError


class Delivered(msgspec.Struct, frozen=True):
    """The broker acknowledged that it stored the message."""


class Retry(msgspec.Struct, frozen=True):
    """The message was not stored, or no answer came: send it again later.

    The text in `error` contains no payload.
    """

    error: str


class Rejected(msgspec.Struct, frozen=True):
    """The broker will never accept this message; the text in `error` contains no payload."""

    error: str


class NotAttempted(msgspec.Struct, frozen=True):
    """The message was not sent, or its result is unknown; this counts as no attempt.

    The reasons are: an earlier message of its key failed, the time was over before
    it was sent, or one part of the broker failed while other parts answered. In the
    last case the message may be stored.
    """


Outcome = Delivered | Retry | Rejected | NotAttempted


class Sink(Protocol):
    """Sends messages to one broker.

    With ``ordered = False``, a call of `publish` contains at most one message per
    key, and the relay sends the next one only after the broker acknowledged it.

    A sink may set ``ordered = True`` only if its client guarantees that after a
    failure no later message of the same key is stored. A call then contains whole
    batches. The outcomes of a key must be `Delivered` for a prefix, then one failure,
    then `NotAttempted`.
    """

    ordered: bool
    system: str
    """The value of ``messaging.system`` in OpenTelemetry's conventions, such as ``nats``."""

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Outcome]:
        """Send messages; returns one outcome per message, in the same order.

        Returns when every outcome is known or given up. Several tasks may call it at
        the same time, but a key is never in two running calls.

        Raises `SinkUnavailable` when the broker failed and not a message. The relay
        then counts an attempt for none of the messages and sends all of them again.
        When a part of the broker failed and some messages were delivered, return
        `Delivered` for those and `NotAttempted` for messages without an answer.
        """
        ...


class WrongOutcomes(OutboxError):  # noqa: N818 - reads as what happened
    """A sink returned more or fewer outcomes than it got messages, which is a bug in the sink.

    None of the messages counts as delivered.
    """

    def __init__(self, sink: Sink, *, expected: int, actual: int) -> None:
        name = f"{type(sink).__module__}.{type(sink).__qualname__}"
        super().__init__(f"sink {name} gave {actual} outcomes for {expected} messages")
        self.expected = expected
        self.actual = actual
