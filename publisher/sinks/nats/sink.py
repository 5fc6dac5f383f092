"""The sink for NATS JetStream: it sends messages and collects the acknowledgements.

JetStream's `publish` of nats-py creates a future and a timer per message, and its
`publish_async` loses answers that are errors. So this module uses the protocol
below them: each message names a reply subject under one inbox, and the answers
arrive there. This is also faster than both.
"""

import asyncio
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import msgspec
from nats.errors import ConnectionClosedError, ConnectionDrainingError, OutboundBufferLimitError

from dsql_outbox.outbox import Message, broken_header
from dsql_outbox.publisher.sinks.cloudevents import binary_headers
from dsql_outbox.publisher.sinks.port import Delivered, NotAttempted, Outcome, Rejected, Retry

from .client import NatsConnection
from .url import NatsSettings

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

_WINDOW: Final = 256  # unacknowledged messages at a time; a larger window is not faster

# Tokens between dots, without blanks and wildcards. Subjects with "$" are the API of the
# server, which no event type may reach.
_SUBJECT: Final = re.compile(r"(?!\$)[^\s\x00-\x1f\x7f.*>]+(\.[^\s\x00-\x1f\x7f.*>]+)*")

_HEADERS_FRAME: Final = len("NATS/1.0\r\n\r\n")
_HEADER_FRAME: Final = len(": \r\n")

_NO_RESPONDERS: Final = "503"
_TOO_LARGE: Final = frozenset({10054, 10097})
"""JetStream's error codes: message over the limit of the stream, headers over the server's."""


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    """JetStream's answer to a message; it has `stream` if it is an acknowledgement."""

    stream: str = ""
    error: _Error | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class JetStreamSink:
    """Publishes to JetStream; a message is delivered when the server acknowledged it as stored."""

    ordered = False
    system = "nats"

    def __init__(self, settings: NatsSettings) -> None:
        self._timeout = settings.timeout
        self._inbox = f"_INBOX.{uuid4().hex}"
        self._windows: dict[str, _Window] = {}
        self._numbers = count()
        self._connection = NatsConnection(
            settings, f"{self._inbox}.*.*", self._settle, self._give_up
        )

    async def connect(self) -> None:
        """Connect; raises `SinkUnavailable` when no server answers within the timeout."""
        await self._connection.ready(self._deadline())

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()

    async def publish(self, messages: Sequence[Message], /) -> list[Outcome]:
        """Publish messages, within the timeout.

        A message without an acknowledgement by then is `Retry`, and may be stored. A
        message that there was no time to send is `NotAttempted`. Raises
        `SinkUnavailable` when the connection is lost or cannot be opened.
        """
        deadline = self._deadline()
        client = await self._connection.ready(deadline)
        outcomes: list[Outcome] = []
        for start in range(0, len(messages), _WINDOW):
            outcomes += await self._publish(client, messages[start : start + _WINDOW], deadline)
        return outcomes

    async def _publish(
        self, client: "Client", messages: Sequence[Message], deadline: float
    ) -> list[Outcome]:
        if asyncio.get_running_loop().time() >= deadline:
            return [NotAttempted()] * len(messages)
        number, window = str(next(self._numbers)), _Window(messages)
        self._windows[number] = window
        try:
            async with asyncio.timeout_at(deadline):
                await self._send(client, window, f"{self._inbox}.{number}")
                await window.closed.wait()
        except TimeoutError:
            pass  # the outcomes show which messages have no answer
        except (ConnectionClosedError, ConnectionDrainingError, OutboundBufferLimitError) as error:
            raise self._connection.unavailable(error) from error
        finally:
            del self._windows[number]
        if not client.is_connected or window.is_lost:
            raise self._connection.unavailable(client.last_error)
        silence = Retry(f"no acknowledgement within {self._timeout:g} s")
        return [outcome or silence for outcome in window.outcomes]

    async def _send(self, client: "Client", window: "_Window", reply: str) -> None:
        for index, message in enumerate(window.messages):
            headers = {"Nats-Msg-Id": message.dedupe_id, **binary_headers(message, "ce-")}
            if rule := _broken_rule(message, headers, client.max_payload):
                window.settle(index, Rejected(rule))
            else:
                await client.publish(message.topic, message.payload, f"{reply}.{index}", headers)

    async def _settle(self, answer: "Msg") -> None:
        _, number, index = answer.subject.rsplit(".", 2)
        # An answer whose window is over comes too late and is ignored.
        if window := self._windows.get(number):
            window.settle(int(index), _outcome(answer, window.messages[int(index)].topic))

    def _give_up(self) -> None:
        for window in self._windows.values():
            window.is_lost = True
            window.closed.set()

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout


class _Window:
    """The messages of one window and their outcomes; None while no answer came."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.outcomes: list[Outcome | None] = [None] * len(messages)
        self.closed = asyncio.Event()
        self.is_lost = False
        self._missing = len(messages)

    def settle(self, index: int, outcome: Outcome) -> None:
        if self.outcomes[index] is None:
            self.outcomes[index] = outcome
            self._missing -= 1
        if not self._missing:
            self.closed.set()


@lru_cache(maxsize=1024)
def _is_subject(topic: str) -> bool:
    return _SUBJECT.fullmatch(topic) is not None


def _broken_rule(message: Message, headers: dict[str, str], max_payload: int) -> str | None:
    if not _is_subject(message.topic):
        return f"topic {message.topic!r} is no subject of NATS: parts between dots, without blanks"
    if rule := broken_header(headers):
        return rule
    # The limit is for headers and payload together; the server disconnects a client above it.
    lines = sum(map(len, headers)) + sum(map(len, headers.values())) + _HEADER_FRAME * len(headers)
    size = _HEADERS_FRAME + lines + len(message.payload)
    if size > max_payload:
        return f"message of {size} bytes is over the server's max_payload of {max_payload} bytes"
    return None


def _outcome(answer: "Msg", topic: str) -> Outcome:
    if answer.headers and answer.headers.get("Status") == _NO_RESPONDERS:
        return Retry(
            f"no stream takes the subject {topic}: make one with "
            f"`nats stream add NAME --subjects={topic}`, or give the sink ?stream=NAME"
        )
    try:
        read = _ANSWER.decode(answer.data)
    except msgspec.DecodeError:
        read = _Answer()
    if read.error is not None:
        text = f"refused by JetStream: {read.error.description} ({read.error.err_code})"
        return Rejected(text) if read.error.err_code in _TOO_LARGE else Retry(text)
    return Delivered() if read.stream else Retry(f"what answers on {topic} is no stream")
