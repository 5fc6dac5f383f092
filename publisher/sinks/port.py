"""The port to a broker."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from dsql_outbox.outbox import Message, OutboxError


class Delivered(msgspec.Struct, frozen=True):
    """The broker has stored the message and said so."""


class Retry(msgspec.Struct, frozen=True):
    """Not stored, or no answer came: send it again later. `error` holds no payload."""

    error: str


class Rejected(msgspec.Struct, frozen=True):
    """The broker will never take this message. `error` holds no payload."""

    error: str


class NotAttempted(msgspec.Struct, frozen=True):
    """Says nothing of the message, and counts against nothing; it may be stored.

    An earlier message of its key failed, the time was up before it was sent, or
    the part of the broker that it was for has failed while others answered.
    """


Outcome = Delivered | Retry | Rejected | NotAttempted


class Sink(Protocol):
    """Where messages go.

    A sink with ``ordered = False`` gets at most one message of a key in a call;
    the relay sends the next only after this one was acknowledged. A sink may
    set ``ordered = True`` only if its client proves that after a failure
    nothing later of that key is stored; then it gets whole batches, and answers
    per key a delivered prefix, one failure, and NotAttempted.
    """

    ordered: bool
    system: str
    """The broker's name in OpenTelemetry's messaging conventions, as ``nats``."""

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Outcome]:
        """Send messages; the outcomes have the same order and length.

        Returns only when every outcome is known or given up. Raises
        `SinkUnavailable` when the broker, not a message, failed: then the
        relay counts nothing against any message and sends them all again. When
        a part of the broker failed and some messages were delivered, it returns
        `Delivered` for those and `NotAttempted` for what has no answer.
        Called by several tasks at once, but never with one key in two calls.
        """
        ...


class WrongOutcomes(OutboxError):  # noqa: N818 - reads as what happened
    """A sink answered with more or fewer outcomes than it got messages: a bug in the sink.

    None of the messages counts as delivered.
    """

    def __init__(self, sink: Sink, *, expected: int, actual: int) -> None:
        name = f"{type(sink).__module__}.{type(sink).__qualname__}"
        super().__init__(f"sink {name} gave {actual} outcomes for {expected} messages")
        self.expected = expected
        self.actual = actual
