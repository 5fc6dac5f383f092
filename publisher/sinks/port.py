"""The port to a broker: the protocol `Sink` and the outcomes of a message."""

from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from dsql_outbox.outbox import Message, OutboxError


class Delivered(msgspec.Struct, frozen=True):
    """The broker acknowledged that it stored the message."""


class Retry(msgspec.Struct, frozen=True):
    """The message was not stored, or no answer came: send it again later.

    The cause lies with this message: it counts as an attempt. The text in `error`
    contains no payload.
    """

    error: str


class Rejected(msgspec.Struct, frozen=True):
    """The broker will never accept this message; the text in `error` contains no payload."""

    error: str


class Unavailable(msgspec.Struct, frozen=True):
    """The topic of the message cannot take any message now; the message is not at fault.

    Examples: the topic does not exist, its stream is full or has no quorum, this
    client may not write to it. It counts as no attempt. The relay pauses the topic
    and tries it with one message at a time. The text in `error` contains no payload.
    """

    error: str


class NotAttempted(msgspec.Struct, frozen=True):
    """The message was not sent, or its result is unknown; this counts as no attempt.

    The reasons are: the time was over before it was sent, or one part of the broker
    failed while other parts answered. In the last case the message may be stored.
    """


Outcome = Delivered | Retry | Rejected | Unavailable | NotAttempted

Answer = Callable[[int, Outcome], None]
"""Takes the outcome of the message with this index in the call of `Sink.publish`."""


class Destination(msgspec.Struct, frozen=True):
    """The place that a sink sends to, as spans name it. A sink may have one as `destination`.

    `name` is the queue, topic or bus that takes the messages of all topics, or None if each
    topic is a destination of its own. `host` and `port` are those of the broker's first address.
    """

    name: str | None = None
    host: str | None = None
    port: int | None = None


def at_host(address: str) -> Destination:
    """Return a broker at ``host:port``, ``host``, or a URL, whose topics are its destinations."""
    found = urlsplit(address if "//" in address else f"//{address}")
    return Destination(host=found.hostname, port=found.port)


class Sink(Protocol):
    """Sends messages to one broker."""

    system: str
    """The value of ``messaging.system`` in OpenTelemetry's conventions, such as ``nats``."""

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Send messages; call `answer` for each as soon as its outcome is known.

        `answer` is called on the event loop, once per message at most, and only until
        this method returns. A message without an answer by then is `NotAttempted`.
        Many calls run at the same time; a key is in one message of all of them.
        The order of answers does not matter.

        Raises `SinkUnavailable` when the broker as a whole failed and not a message or a
        topic. Earlier answers stand. The relay sends the other messages again later, and
        counts no attempt for them. Every call ends within a time limit of the sink. A call
        without messages asks whether the broker can be reached.
        """
        ...


class WrongAnswer(OutboxError):
    """A sink answered twice for a message, or with an unknown index or outcome.

    This is a bug in the sink. `index` counts the messages of the call from 0.
    """

    def __init__(self, sink: Sink, index: int, fault: str) -> None:
        name = f"{type(sink).__module__}.{type(sink).__qualname__}"
        super().__init__(f"sink {name}: its answer for message {index} {fault}")
        self.index = index
