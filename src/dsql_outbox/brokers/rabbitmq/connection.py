"""One connection to RabbitMQ and its channels; it is opened again when it is lost."""

import asyncio
import logging
from collections.abc import Collection, Coroutine
from typing import Any, Final, TypeVar, cast

import anyio
from aiormq.channel import Channel
from aiormq.connection import Connection
from aiormq.exceptions import AMQPError, InvalidFrameError
from yarl import URL

from dsql_outbox.outbox.errors import SinkUnavailable
from dsql_outbox.outbox.redaction import system_error
from dsql_outbox.publisher.sinks.port import Destination

from .refusal import client_text
from .transport import Transport, quiet_context
from .url import RabbitMqSettings

logger: Final = logging.getLogger("dsql_outbox")

T = TypeVar("T")

_HEARTBEAT: Final = 15  # seconds; RabbitMQ misses a client that is silent for twice as long
_MOST_IDLE: Final = 8  # channels; RabbitMQ has a process for each
_GRACE: Final = 1.0  # seconds in which a channel is closed that is not stuck


class RabbitMqConnection:
    """Connects to the first host that answers, and again after a loss."""

    def __init__(self, settings: RabbitMqSettings) -> None:
        self._settings = settings
        self._client: RabbitMqClient | None = None
        self._opening = asyncio.Lock()
        self._first = 0  # the host to begin with: the one that answered last

    async def client(self, deadline: float) -> "RabbitMqClient":
        """The open connection, which is opened by `deadline`, a time of the loop's clock.

        Raises `SinkUnavailable` if no host answers in time, and while an alarm of the
        server blocks the connection.
        """
        async with self._opening:
            if self._client is not None and self._client.is_lost:
                logger.warning("%s: connection lost, reconnecting", self._settings)
                lost, self._client = self._client, None
                await lost.close()
            if self._client is None:
                self._client = await self._open(deadline)
        await self._client.check()
        return self._client

    async def close(self) -> None:
        """Disconnect; takes twice the timeout of the settings at most."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _open(self, deadline: float) -> "RabbitMqClient":
        hosts, failure = self._settings.hosts, ""
        loop, cause = asyncio.get_running_loop(), None
        for number in range(len(hosts)):
            place = (self._first + number) % len(hosts)
            left = (deadline - loop.time()) / (len(hosts) - number)
            try:
                client = RabbitMqClient(self._settings, hosts[place])
                await client.connect(left)
            except (AMQPError, OSError, TimeoutError) as error:
                failure, cause = client_text(error), error
            else:
                self._first = place
                return client
        text = f"{self._settings} cannot be reached: {failure}"
        raise SinkUnavailable(text) from system_error(cause)


class _Connection(Connection):
    """aiormq's connection, on which a message is sent at once, and whose last task is known.

    Otherwise messages wait for room in its queue. If RabbitMQ closes their channel meanwhile,
    aiormq still sends them, which ends the whole connection.
    """

    FRAME_BUFFER_SIZE = 0

    last_tasks: frozenset[asyncio.Task[Any]] = frozenset()
    """What aiormq starts when a connection ends, and leaves to itself."""

    @property
    def end(self) -> asyncio.Future[Any]:
        """What is done when the connection is closed, by the reason."""
        return self.closing  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

    def _on_reader_done(self, task: asyncio.Task[Any]) -> None:
        before = asyncio.all_tasks()
        super()._on_reader_done(task)  # pyright: ignore[reportUnknownMemberType]
        self.last_tasks = frozenset(asyncio.all_tasks() - before)


class RabbitMqClient:
    """An open connection and its channels, each of which one call uses at a time."""

    def __init__(self, settings: RabbitMqSettings, host: Destination) -> None:
        self._settings = settings
        self._transport = Transport(settings.tls)
        self._context = quiet_context()
        url = URL.build(
            scheme="amqp",  # the transport does TLS
            user=settings.user,
            password=settings.password,
            host=host.host or "",
            port=host.port,
            query={"heartbeat": _HEARTBEAT, "name": "dsql-outbox"},
        )
        self._connection = _Connection(url, transport_factory=self._transport)
        self._connection.vhost = settings.vhost
        self._idle: list[Channel] = []
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def is_lost(self) -> bool:
        """Whether no answer can come any more."""
        return not self._connection.is_opened

    @property
    def frame_max(self) -> int:
        """The most bytes of a frame, and so of a message's headers; 0 without a limit."""
        return self._connection.connection_tune.frame_max or 0

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task that works for this connection; nobody need look at its error."""
        task = asyncio.get_running_loop().create_task(work, context=self._context)
        task.add_done_callback(_look_at)
        return task

    async def connect(self, seconds: float) -> None:
        """Connect and log in. Raises `TimeoutError`, `OSError` or `AMQPError`."""
        connecting: asyncio.Task[bool] = self.spawn(
            self._connection.connect()  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        )
        try:
            await asyncio.wait([connecting], timeout=seconds)
            if not connecting.done():
                raise TimeoutError(f"no answer within {self._settings.given.timeout:g} s")
            connecting.result()
        except InvalidFrameError as error:  # aiormq loses the reason
            vhost = self._settings.vhost
            text = (
                f"virtual host {vhost} is missing, is down, or not for user {self._settings.user}"
            )
            self._transport.cut()
            raise ConnectionRefusedError(text) from error
        except BaseException:
            self._transport.cut()
            connecting.cancel()
            raise

    async def check(self) -> None:
        """Raise `SinkUnavailable` while an alarm of the server blocks this connection."""
        if await self._is_blocked():
            raise self._blocked()

    async def take(self) -> Channel:
        """A channel for a call, which gives it back by `release`, or ends it by `end`.

        Raises `SinkUnavailable` if RabbitMQ opens none within the timeout.
        """
        while self._idle:
            channel = self._idle.pop()
            if not channel.is_closed:
                return channel
        return await self._open_channel()

    async def ask(self) -> None:
        """Raise `SinkUnavailable` if RabbitMQ does not answer within the timeout."""
        self.release(await self._open_channel())

    async def _open_channel(self) -> Channel:
        opening = self.spawn(self._connection.channel())
        try:
            await asyncio.wait([opening], timeout=self._settings.given.timeout)
        except asyncio.CancelledError:
            opening.cancel()
            raise
        if not opening.done():
            opening.cancel()
            raise await self._silent()
        if opening.cancelled() or opening.exception() is not None:
            raise self.lost()
        return cast("Channel", opening.result())

    def release(self, channel: Channel) -> None:
        """Take back a channel on which nothing is on its way."""
        if len(self._idle) < _MOST_IDLE:
            self._idle.append(channel)
        else:
            self.end_soon(channel, [])

    def end_soon(
        self, channel: Channel, sent: Collection[asyncio.Task[None]]
    ) -> asyncio.Task[None]:
        """Close a channel whose messages `sent` may have no answers; returns the task."""
        ending = self.spawn(self._end(channel, sent))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return ending

    async def end(
        self, channel: Channel, sent: Collection[asyncio.Task[None]]
    ) -> asyncio.Task[None] | None:
        """Close a channel whose messages `sent` have no answers in time.

        Returns None when it is closed. If it is stuck, it is left to end by itself, and the task
        is returned that waits for this. Another channel shows whether RabbitMQ answers: raises
        `SinkUnavailable` if it is silent there for the timeout, and while an alarm blocks all.
        """
        ending = self.end_soon(channel, sent)
        await self.check()
        await self.ask()
        await asyncio.wait([ending], timeout=min(_GRACE, self._settings.given.timeout))
        return None if ending.done() else ending

    def lost(self) -> SinkUnavailable:
        """The error for a connection that is lost."""
        closing = self._connection.end if self._connection.is_closed else None
        cause = None if closing is None or closing.cancelled() else closing.exception()
        return SinkUnavailable(f"{self._settings} cannot be reached: {client_text(cause)}")

    async def close(self) -> None:
        """Disconnect; takes twice the timeout of the settings at most."""
        ends = set[asyncio.Future[Any]]()
        with anyio.move_on_after(self._settings.given.timeout, shield=True):
            if not self.is_lost and not await self._is_blocked():
                ends.add(self.spawn(self._connection.close()))
                await asyncio.wait(ends)
        self._transport.cut()
        for ending in self._ending:
            ending.cancel()
        with anyio.move_on_after(self._settings.given.timeout, shield=True):
            if not self._connection.is_closed:
                await asyncio.wait([self._connection.end])
            ends |= self._ending | self._connection.last_tasks
            if ends:
                await asyncio.wait(ends)

    async def _end(self, channel: Channel, sent: Collection[asyncio.Task[None]]) -> None:
        await self._connection.ready()  # meanwhile the server reads nothing
        await channel.close()
        if sent:
            await asyncio.wait(sent)

    async def _is_blocked(self) -> bool:
        try:
            async with asyncio.timeout(0):  # if it is not blocked, this waits for nothing
                await self._connection.ready()
        except TimeoutError:
            return not self.is_lost
        return False

    async def _silent(self) -> SinkUnavailable:
        """The error for a server that gives no answer; without an alarm, cut the connection."""
        if await self._is_blocked():
            return self._blocked()
        if self.is_lost:
            return self.lost()
        self._transport.cut()
        text = f"no answer within {self._settings.given.timeout:g} s"
        return SinkUnavailable(f"{self._settings} cannot be reached: {text}")

    def _blocked(self) -> SinkUnavailable:
        return SinkUnavailable(
            f"{self._settings} takes no messages: it has an alarm for its memory or its disk "
            "(`rabbitmq-diagnostics alarms`)"
        )


def _look_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # else asyncio would log it
