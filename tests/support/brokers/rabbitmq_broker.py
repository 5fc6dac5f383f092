"""An exchange of RabbitMQ and the queue that gets its messages."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import anyio
from tests.support.brokers.proxied_broker import ProxiedBroker
from tests.support.proxy.tcp_proxy import TcpProxy

from dsql_outbox.publisher.sinks.port import at_host
from dsql_outbox.testing.sink_contract import Stored

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

SUBJECTS: Final = "events.#"


class RabbitMqBroker(ProxiedBroker):
    """A topic exchange and one queue, which the sink reaches through a proxy if there is one.

    The queue gets what matches ``events.#``. It has `arguments`.
    """

    def __init__(self, host: str, proxy: TcpProxy | None = None, **arguments: Any) -> None:
        self.host = host
        self.proxy = proxy
        self.parameters = "timeout=5"
        self.name = f"events-{uuid4().hex}"
        self._arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._found: list[Stored] = []

    @property
    def url(self) -> str:
        host = f"127.0.0.1:{self.proxy.port}" if self.proxy else self.host
        return f"rabbitmq://{host}?exchange={self.name}&{self.parameters}"

    async def prepare(self) -> None:
        """Make the queue and the exchange."""
        async with self.channel() as channel:
            await channel.declare_queue(self.name, durable=True, arguments=self._arguments)
        await self.declare_exchange()

    async def stored(self) -> list[Stored]:
        self._found += await self.drained()
        return self._found

    async def drained(self) -> list[Stored]:
        """What has come since the last look."""
        async with self.channel() as channel:
            return [from_rabbitmq(message) for message in await taken(channel, self.name)]

    async def bind(self, pattern: str) -> None:
        """Let the queue get what matches the pattern, too."""
        async with self.channel() as channel:
            queue = await channel.get_queue(self.name, ensure=False)
            await queue.bind(self.name, pattern)

    async def declare_exchange(self) -> None:
        """Make the exchange, if it is not there, and bind the queue to it."""
        async with self.channel() as channel:
            await channel.declare_exchange(self.name, "topic", durable=True)
        await self.bind(SUBJECTS)

    async def delete_exchange(self) -> None:
        """Delete the exchange; the queue stays."""
        async with self.channel() as channel:
            await channel.exchange_delete(self.name)

    @asynccontextmanager
    async def channel(self) -> AsyncGenerator["AbstractChannel"]:
        """A client of its own, to look and to set up."""
        async with client(self.host) as channel:
            yield channel


@asynccontextmanager
async def client(host: str) -> AsyncGenerator["AbstractChannel"]:
    """A channel of a client, with the user guest."""
    import aio_pika

    async with await aio_pika.connect(f"amqp://guest:guest@{host}/") as connection:
        yield await connection.channel()


async def taken(channel: "AbstractChannel", queue: str) -> "list[AbstractIncomingMessage]":
    """Take all messages out of a queue."""
    found = await channel.declare_queue(queue, passive=True)
    count = found.declaration_result.message_count or 0
    messages: list[AbstractIncomingMessage] = []
    if count:
        async with found.iterator(no_ack=True) as arriving:
            async for message in arriving:
                messages.append(message)
                if len(messages) == count:
                    break
    return messages


def from_rabbitmq(message: "AbstractIncomingMessage") -> Stored:
    """A message as a consumer finds it, by the CloudEvents binding for RabbitMQ."""
    headers = {name.removeprefix("ce-"): str(value) for name, value in message.headers.items()}
    headers["datacontenttype"] = message.content_type or ""
    return Stored(message.routing_key or "", headers, message.body)


def running_rabbitmq(url: str, proxy: TcpProxy) -> RabbitMqBroker:
    """The server at the URL, with a new exchange and queue."""
    found = at_host(url)
    broker = RabbitMqBroker(f"{found.host}:{found.port}", proxy)
    anyio.run(broker.prepare)
    return broker
