"""The sink for NATS JetStream: it sends messages and passes on the acknowledgements.

JetStream's `publish` of nats-py creates a future and a timer per message, and its
`publish_async` loses answers that are errors. So this module uses the protocol
below them: each message names a reply subject under one inbox, and the answers
arrive there. A call has one timer, and a message costs no task.
"""

import asyncio
from collections.abc import Sequence
from itertools import count
from ssl import SSLCertVerificationError
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from nats.errors import ConnectionClosedError, ConnectionDrainingError, OutboundBufferLimitError

from dsql_outbox.outbox import Message, SettingsError, SinkUnavailable
from dsql_outbox.publisher.sinks.port import Answer, Delivered, Outcome, Rejected, at_host

from .acknowledgement import no_right, outcome_of, silence
from .client import NatsConnection
from .frame import BadMessage, make_frame
from .url import NatsSettings

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from .client import NatsClient

_WINDOW: Final = 256  # unanswered messages of a call at a time; a larger window is not faster
_CHUNK: Final = 64  # messages that are handed to the connection together


class JetStreamSink:
    """Publishes to JetStream; a message is delivered when the server acknowledged it as stored."""

    system = "nats"

    def __init__(self, settings: NatsSettings) -> None:
        self._timeout = settings.timeout
        self.destination = at_host(settings.hosts[0])
        self._inbox = f"_INBOX.{uuid4().hex}"
        self._calls: dict[str, _NatsCall] = {}
        self._numbers = count()
        self._connection = NatsConnection(
            settings, f"{self._inbox}.*.*", self._take, self._lose, self._refuse
        )

    async def connect(self) -> None:
        """Connect.

        Raises `SinkUnavailable` when no server answers within the timeout, and
        `SettingsError` when its certificate is not trusted.
        """
        try:
            await self._connection.ready(self._deadline())
        except SinkUnavailable as error:
            if not isinstance(error.__cause__, SSLCertVerificationError):
                raise
            raise SettingsError(
                f"{error}; name the authority that signed its certificate by ca=FILE in the URL"
            ) from error

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Publish messages; answers each as its acknowledgement comes.

        Takes the timeout at most, and as long again when a connection must be opened.
        A topic from which no acknowledgement came in this time is `Unavailable`. When
        some came, the other messages of the topic get no answer, and may be stored.
        Raises `SinkUnavailable` when the connection is lost or cannot be opened.
        """
        client = await self._connection.ready(self._deadline())
        deadline = self._deadline()  # after the opening: from then on, silence is an answer
        if not messages:
            await self._connection.ask(client, deadline)
            return
        number, call = str(next(self._numbers)), _NatsCall(messages, answer)
        self._calls[number] = call
        try:
            async with asyncio.timeout_at(deadline):
                await self._send(client, call, f"{self._inbox}.{number}")
                await call.until_at_most(0)
        except TimeoutError:
            pass  # `end` sees which messages have no answer
        except (ConnectionClosedError, ConnectionDrainingError, OutboundBufferLimitError) as error:
            raise self._connection.unavailable(error) from error
        finally:
            del self._calls[number]
        if call.is_lost or not client.is_connected:
            raise self._connection.unavailable(client.last_error)
        call.end(self._timeout)

    async def _send(self, client: "NatsClient", call: "_NatsCall", reply: str) -> None:
        for start in range(0, len(call.messages), _CHUNK):
            await call.until_at_most(_WINDOW - _CHUNK)
            await client.send(call.frames(start, start + _CHUNK, reply, client.max_payload))

    async def _take(self, answer: "Msg") -> None:
        _, number, index = answer.subject.rsplit(".", 2)
        # An answer whose call is over comes too late and is ignored.
        if call := self._calls.get(number):
            call.settle(int(index), outcome_of(answer, call.messages[int(index)].topic))

    def _lose(self) -> None:
        for call in self._calls.values():
            call.lose()

    def _refuse(self, subject: str) -> None:
        for call in self._calls.values():
            call.refuse(subject)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout


class _NatsCall:
    """The messages of one call, and which of them were sent and have no answer yet."""

    def __init__(self, messages: Sequence[Message], answer: Answer) -> None:
        self.messages = messages
        self.is_lost = False
        self._answer = answer
        self._unanswered: set[int] = set()
        self._heard: set[str] = set()
        self._enough = 0
        self._changed = asyncio.Event()

    def frames(self, start: int, stop: int, reply: str, max_payload: int) -> bytes:
        """The frames of these messages; those that NATS cannot take are rejected."""
        frames: list[bytes] = []
        for index, message in enumerate(self.messages[start:stop], start):
            try:
                frames.append(make_frame(message, f"{reply}.{index}", max_payload))
            except BadMessage as error:
                self._answer(index, Rejected(str(error)))
            else:
                self._unanswered.add(index)
        return b"".join(frames)

    async def until_at_most(self, number: int) -> None:
        """Wait until at most `number` messages have no answer, or the connection is lost."""
        self._enough = number
        if len(self._unanswered) > number and not self.is_lost:
            self._changed.clear()
            await self._changed.wait()
        if self.is_lost:
            raise ConnectionClosedError

    def settle(self, index: int, outcome: Outcome) -> None:
        """Pass on the outcome of a message, the first time."""
        if index not in self._unanswered:
            return
        self._unanswered.discard(index)
        if type(outcome) is Delivered:
            self._heard.add(self.messages[index].topic)
        self._answer(index, outcome)
        if len(self._unanswered) <= self._enough:
            self._changed.set()

    def refuse(self, subject: str) -> None:
        """The server takes nothing for the subject, which it names in lower case."""
        for index in [i for i in self._unanswered if self.messages[i].topic.lower() == subject]:
            self.settle(index, no_right(self.messages[index].topic))

    def lose(self) -> None:
        """End the wait: no further answer can come."""
        self.is_lost = True
        self._changed.set()

    def end(self, seconds: float) -> None:
        """Answer for the topics that were silent for all of these seconds."""
        for index in self._unanswered:
            if (topic := self.messages[index].topic) not in self._heard:
                self._answer(index, silence(topic, seconds))
