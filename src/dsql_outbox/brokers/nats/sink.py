"""The sink for NATS JetStream: it sends messages and passes on the acknowledgements.

JetStream's `publish` of nats-py creates a future and a timer per message, and its
`publish_async` loses answers that are errors. So this module uses the protocol
below them: each message names a reply subject under one inbox, and the answers
arrive there. A call has one timer, and a message costs no task.
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from nats.errors import ConnectionClosedError, ConnectionDrainingError, OutboundBufferLimitError

from dsql_outbox.outbox.message import Message
from dsql_outbox.outbox.redaction import system_error
from dsql_outbox.publisher.sinks.port import Answer, Keeping, at_host
from dsql_outbox.publisher.sinks.url import naming_the_authority

from .batches import Batches
from .call import NatsCall
from .client import NatsConnection
from .keeping import stream_keepings
from .url import NatsSettings

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_GOES_ON: Final = 0.5
"""The part of a call's time in which a run goes on that takes several steps."""


class JetStreamSink:
    """Publishes to JetStream; a message is delivered when the server acknowledged it as stored.

    A run is an atomic batch, or goes one by one where the stream takes no batch (`Batches`).
    """

    system = "nats"
    keeps_prefix = True

    def __init__(self, settings: NatsSettings) -> None:
        self._timeout = settings.timeout
        self._stream = settings.stream
        self.destination = at_host(settings.hosts[0])
        self._inbox = f"_INBOX.{uuid4().hex}"
        self._calls: dict[str, NatsCall] = {}
        self._batches = Batches(_now)
        self._numbers = count()
        self._connection = NatsConnection(
            settings, f"{self._inbox}.*.*", self._take, self._lose, self._refuse
        )

    async def connect(self) -> None:
        """Connect.

        Raises `SinkUnavailable` when no server answers within the timeout, and
        `SettingsError` when its certificate is not trusted.
        """
        with naming_the_authority():
            await self._connection.client(self._deadline())

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
        client = await self._connection.client(self._deadline())
        deadline = self._deadline()  # after the opening: from then on, silence is an answer
        if not messages:
            await self._connection.ask(client, deadline)
            return
        number, half = str(next(self._numbers)), _now() + _GOES_ON * self._timeout
        reply = f"{self._inbox}.{number}"
        call = NatsCall(messages, answer, self._batches, reply, lambda: _now() < half)
        self._calls[number] = call
        try:
            with suppress(TimeoutError):  # `end` sees which messages have no answer
                async with asyncio.timeout_at(deadline):
                    while await call.wait_for_more():
                        await client.send(call.frames(client.max_payload))
            if call.is_lost or not client.is_connected:
                raise self._connection.unavailable(client.last_error)
            call.end(self._timeout)
        except (ConnectionClosedError, ConnectionDrainingError, OutboundBufferLimitError) as error:
            raise self._connection.unavailable(error) from system_error(error)
        finally:
            del self._calls[number]
            call.close()

    async def keeping(self, topics: Collection[str], /) -> Sequence[Keeping]:
        """How the streams of these topics, and the one of the URL, keep messages."""
        client = await self._connection.client(self._deadline())
        return await stream_keepings(client, self._timeout, self._stream, topics)

    async def _take(self, answer: "Msg") -> None:
        _, number, index = answer.subject.rsplit(".", 2)
        # An answer whose call is over comes too late and is ignored.
        if call := self._calls.get(number):
            call.take(int(index), answer)

    def _lose(self) -> None:
        self._batches.forget()
        for call in self._calls.values():
            call.lose()

    def _refuse(self, subject: str) -> None:
        for call in self._calls.values():
            call.refuse(subject)

    def _deadline(self) -> float:
        return _now() + self._timeout


def _now() -> float:
    return asyncio.get_running_loop().time()
