"""The sink for RabbitMQ: it publishes with confirms, on one connection."""

import asyncio
from collections.abc import Sequence
from typing import Final

from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.port import Answer
from dsql_outbox.publisher.sinks.url import naming_the_authority

from .call import RabbitMqCall
from .connection import RabbitMqConnection
from .doubts import Doubts
from .properties import RabbitMqProperties
from .url import RabbitMqSettings

_CALLS: Final = 8
"""The most calls that send at the same time, each on a channel of its own.

More would only wait in aiormq, and see their time pass there.
"""


class RabbitMqSink:
    """Publishes to an exchange; a message is delivered when RabbitMQ confirmed it."""

    system = "rabbitmq"
    takes = frozenset({RabbitMqProperties})

    def __init__(self, settings: RabbitMqSettings) -> None:
        self.destination = settings.hosts[0]
        self._settings = settings
        self._connection = RabbitMqConnection(settings)
        self._turns = asyncio.Semaphore(_CALLS)
        self._doubts = Doubts()

    async def connect(self) -> None:
        """Connect.

        Raises `SinkUnavailable` when no server answers within the timeout or takes the login, and
        `SettingsError` when its certificate is not trusted.
        """
        with naming_the_authority():
            await self._connection.client(self._deadline())

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Publish messages; answers each as its confirmation comes.

        Takes up to four times the timeout: to wait for other calls or for a connection, for the
        confirmations, for those of messages that go alone, and to ask a silent server. A message
        without a confirmation in its time is `Deferred` if the server answers, and may be stored.
        Raises `SinkUnavailable` when the connection is lost or blocked, or cannot be opened.
        """
        deadline = self._deadline()
        if not messages:
            client = await self._connection.client(deadline)
            await client.ask()
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
        except TimeoutError:
            return  # other calls take the time; nothing was attempted
        try:
            client = await self._connection.client(deadline)
            await RabbitMqCall(client, self._settings, self._doubts, messages, answer).run()
        finally:
            self._turns.release()

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._settings.given.timeout
