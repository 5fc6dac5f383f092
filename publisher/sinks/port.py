"""The port to a broker: the protocol `Sink` and the outcomes of a message."""

from collections.abc import Awaitable, Callable, Collection, Container, Iterator, Sequence
from typing import Final, Protocol
from urllib.parse import urlsplit

import msgspec

from dsql_outbox.outbox.errors import OutboxError
from dsql_outbox.outbox.message import Message


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


class Deferred(msgspec.Struct, frozen=True):
    """The broker cannot take this message now; the message is not at fault.

    Examples: one of several queues of its topic is full or has no leader, the server answers 503.
    Other messages of the topic may be taken. It counts as no attempt. The subject of the message
    waits with backoff, and other subjects go on. When the broker defers messages of a topic and
    takes none for some seconds, the relay pauses the topic, as for `Unavailable`. The message may
    be stored. The text in `error` contains no payload.
    """

    error: str


class NotAttempted(msgspec.Struct, frozen=True):
    """The message was not sent, or its result is unknown; this counts as no attempt.

    The reasons are: the time was over before it was sent, or one part of the broker
    failed while other parts answered. In the last case the message may be stored.
    """


Outcome = Delivered | Retry | Rejected | Unavailable | Deferred | NotAttempted

Answer = Callable[[int, Outcome], None]
"""Takes the outcome of the message with this index in the call of `Sink.publish`."""


MAX_RUN: Final = 256
"""The most messages of a run. A batch of NATS, however long, costs its server some milliseconds."""

MAX_RUN_BYTES: Final = 1 << 20
"""The most bytes of a run, payloads and stored headers; one message may have more."""


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
        Many calls run at the same time; a key is in one message of all of them, or in one
        run. The order of answers does not matter, except within a run.

        Raises `SinkUnavailable` when the broker as a whole failed and not a message or a
        topic. Earlier answers stand. The relay sends the other messages again later, and
        counts no attempt for them. After any other error it sends them in smaller calls, and a
        message that raises alone, while others get through, counts as `Retry`. Every call ends
        within a time limit of the sink. A call without messages asks whether the broker can be
        reached.
        """
        ...


def keeps_prefix(sink: Sink) -> bool:
    """Whether a sink takes runs: it has an attribute `keeps_prefix`, which is True.

    A *run* is several messages of one key in one call, side by side and in order. They have
    one topic, none of them is a replay, and they are at most `MAX_RUN` messages and
    `MAX_RUN_BYTES`. A sink that takes runs makes these promises for each run:

    - The broker stores a prefix of the run, in order, and nothing behind the first message that
      it does not store. That holds in any case: the broker refuses one of them, the call is
      cancelled, or the connection or the process is lost.
    - Answers come in the order of the run, and the answer for a message is `Delivered` only if
      that for the message before it was. Any other answer ends the run: the sink
      sends no more of it, and messages behind it need no answer. They count as `NotAttempted`.

    The relay then sends the rest of the run in a later call, beginning at its first message that
    was not `Delivered`. That message may be stored already, and so may those behind it.
    """
    return bool(getattr(sink, "keeps_prefix", False))


class Tombstone(msgspec.Struct, frozen=True):
    """What a map returns as `TOMBSTONE` for a deletion: the message has no value in Kafka.

    >>> def to_message(message: Message) -> object:
    ...     return TOMBSTONE if message.headers["type"] == "LoanClosed" else message
    """


TOMBSTONE: Final = Tombstone()
"""The payload of a deletion. A topic of Kafka that is compacted then forgets the key."""


class Properties(msgspec.Struct, frozen=True):
    """What one broker has beyond a payload, a key, headers and a topic. Each has a class of it."""

    def fault(self) -> str | None:
        """Why the broker would not take them, or None. It quotes no value."""
        raise NotImplementedError


def takes(sink: Sink) -> Container[type]:
    """What a sink takes beyond bytes: it has an attribute `takes`.

    It holds `Tombstone` and its class of `Properties`, if the sink takes them.
    """
    found: Container[type] = getattr(sink, "takes", ())
    return found


class Keeping(msgspec.Struct, frozen=True):
    """How a broker keeps the messages of a place that it has, such as a stream.

    `text` says how. `remedy` is what to change, if the broker may lose messages there that it
    has acknowledged. If `is_known` is False, this client may not look.
    """

    place: str
    text: str
    remedy: str | None = None
    is_known: bool = True


AskKeeping = Callable[[Collection[str]], Awaitable[Sequence[Keeping]]]
"""Tells how the broker keeps the messages of these topics, and of what the sink's URL names.

What is not there is left out. It may raise anything if the broker is out of reach.
"""


def asks_keeping(sink: Sink) -> AskKeeping | None:
    """Return the method `keeping` of a sink, or None: a sink need not have it."""
    found: AskKeeping | None = getattr(sink, "keeping", None)
    return found


def key_runs(messages: Sequence[Message]) -> Iterator[range]:
    """The messages of each key of a call, which stand side by side."""
    start = 0
    for stop in range(1, len(messages) + 1):
        if stop == len(messages) or messages[stop].key != messages[start].key:
            yield range(start, stop)
            start = stop


class WrongAnswer(OutboxError):
    """A sink answered twice for a message, or with an unknown index or outcome.

    This is a bug in the sink. `index` counts the messages of the call from 0.
    """

    def __init__(self, sink: Sink, index: int, fault: str) -> None:
        name = f"{type(sink).__module__}.{type(sink).__qualname__}"
        super().__init__(f"sink {name}: its answer for message {index} {fault}")
        self.index = index
