"""One NATS connection: it connects, creates the stream, and reconnects."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import OutboundBufferLimitError, SecureConnWantedError
from nats.js.api import StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from dsql_outbox.outbox.errors import SettingsError, SinkUnavailable
from dsql_outbox.outbox.redaction import system_error

from .refusal import client_text, jetstream_text
from .url import NatsSettings

if TYPE_CHECKING:
    from nats.aio.msg import Msg

logger = logging.getLogger("dsql_outbox")

_DUPLICATE_WINDOW: Final = 120.0  # seconds in which a stream detects duplicates
_RECONNECT_WAIT: Final = 1  # seconds between two attempts to reconnect
_LOST_PINGS: Final = 2  # unanswered pings; at the next ping the server counts as gone

_NO_RIGHT: Final = re.compile(r'permissions violation for publish to "(.*)"')
"""nats-py gives errors of the server in lower case."""


class NatsConnection:
    """Connects, creates the stream, reconnects, and logs changes of the connection.

    `inbox` is a subject with wildcards. `on_message` receives the messages of that
    subject, `on_lost` is called when the connection is lost, and `on_refused` gets a
    subject, in lower case, to which this client may not publish. Tasks of nats-py
    call all three.
    """

    def __init__(
        self,
        settings: NatsSettings,
        inbox: str,
        on_message: "Callable[[Msg], Awaitable[None]]",
        on_lost: Callable[[], None],
        on_refused: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_refused = on_refused
        self._client: NatsClient | None = None
        self._is_over = False
        self._opening = asyncio.Lock()
        self._asking: set[asyncio.Timeout] = set()

    async def client(self, deadline: float) -> "NatsClient":
        """The connected client. Raises `SinkUnavailable` when there is none.

        The first call opens a connection. So does a call after the server closed the
        connection for good, for example because credentials expired. `deadline`, a
        time of the event loop's clock, bounds the opening. While nats-py tries to
        reconnect, this raises immediately. So does a call after `close`.
        """
        async with self._opening:
            if self._is_over:
                raise self.unavailable(None)
            if self._client is None or self._client.is_closed:
                self._client = None
                self._client = await self._open(deadline)
        if not self._client.is_connected:
            raise self.unavailable(self._client.last_error)
        return self._client

    async def ask(self, client: "NatsClient", deadline: float) -> None:
        """Ping the server. Raises `SinkUnavailable` if no answer comes in time."""
        limit = asyncio.timeout_at(deadline)
        self._asking.add(limit)
        try:
            async with limit:
                await client.flush()
        except (NatsError, OSError, TimeoutError) as error:
            raise self.unavailable(client.last_error or error) from system_error(error)
        finally:
            self._asking.discard(limit)

    def unavailable(self, reason: Exception | None) -> SinkUnavailable:
        """The error for a broker out of reach; it names the servers, without passwords."""
        text = "connection lost" if reason is None else client_text(reason)
        return SinkUnavailable(f"{self._settings} cannot be reached: {text}")

    async def close(self) -> None:
        """Send buffered data and disconnect; takes the timeout of the settings at most.

        Every message was answered or given up before. So ``drain`` of nats-py would
        only add a wait for a server that may be gone.
        """
        self._is_over = True
        client, self._client = self._client, None
        if client is not None:
            await self._disconnect(client)

    async def _open(self, deadline: float) -> "NatsClient":
        client = NatsClient() if self._settings.tls is None else _TlsClient()
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._disconnect, client)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._connect(client)
                    await client.subscribe(  # pyright: ignore[reportUnknownMemberType]
                        self._inbox, cb=self._on_message
                    )
                    await self._make_stream(client)
            except (NatsError, OSError, TimeoutError) as error:
                # nats-py retries until the time is over. Its last failure says more than a timeout.
                failure = None if client.is_connected else client.last_error
                raise self.unavailable(failure or error) from system_error(failure or error)
            undo.pop_all()
        return client

    async def _disconnect(self, client: Client) -> None:
        with anyio.move_on_after(self._settings.timeout, shield=True):
            if client.is_connected or client.is_connecting or client.is_reconnecting:
                with suppress(NatsError, OSError):  # of a connection that is lost already
                    await client.close()

    async def _connect(self, client: Client) -> None:
        settings = self._settings
        await client.connect(
            settings.servers,
            name="dsql-outbox",
            user=settings.user,
            password=settings.password,
            token=settings.token,
            user_credentials=settings.creds,
            nkeys_seed_str=settings.nkey,
            tls=settings.tls,
            error_cb=self._log_error,
            disconnected_cb=self._note_loss,
            reconnected_cb=self._note_reconnect,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RECONNECT_WAIT,
            # Buffer nothing for a server that is gone, and never block while a window is sent.
            pending_size=0,
            # A silent server must count as gone before a message times out. Then the
            # broker is unavailable, and no attempt counts against the message.
            ping_interval=settings.timeout / (_LOST_PINGS + 2),  # type: ignore[arg-type] # slept
            max_outstanding_pings=_LOST_PINGS,
        )

    async def _make_stream(self, client: Client) -> None:
        name = self._settings.stream
        if name is None:
            return
        jetstream: Any = client.jetstream(  # pyright: ignore[reportUnknownMemberType]
            timeout=self._settings.timeout
        )
        try:
            try:
                await jetstream.stream_info(name)
            except NotFoundError:
                await jetstream.add_stream(self._stream(name))
        except ServiceUnavailableError as error:
            raise SinkUnavailable(
                f"{self._settings} has no JetStream, or it is not ready: nats-server -js has it"
            ) from system_error(error)
        except APIError as error:
            reason = jetstream_text(error.description, error.err_code)
            raise SettingsError(f"cannot make stream {name}: {reason}") from None

    def _stream(self, name: str) -> StreamConfig:
        return StreamConfig(
            name=name,
            subjects=list(self._settings.subjects),
            storage=StorageType.FILE,
            duplicate_window=_DUPLICATE_WINDOW,
            num_replicas=self._settings.replicas,
            allow_atomic=True,  # a server without batches ignores it
        )

    async def _log_error(self, error: Exception) -> None:
        if refused := _NO_RIGHT.search(str(error)):
            self._on_refused(refused[1])  # the answer for the message reports it
            return
        is_news = self._client is not None and self._client.is_connected
        level = logging.WARNING if is_news else logging.DEBUG
        logger.log(level, "%s: %s", self._settings, client_text(error))

    async def _note_loss(self) -> None:
        self._on_lost()
        for limit in self._asking:  # no further answer can come
            limit.reschedule(0)
        if self._client is not None:
            logger.warning("%s: connection lost, reconnecting", self._settings)

    async def _note_reconnect(self) -> None:
        logger.info("%s: connected again", self._settings)


class NatsClient(Client):
    """nats-py's client, and a way to send frames that are ready."""

    async def send(self, frames: bytes) -> None:
        """Send frames of the protocol, as `publish` of nats-py does with its own.

        Raises `OutboundBufferLimitError` while there is no connection.
        """
        if not self.is_connected:
            raise OutboundBufferLimitError
        await self._send_command(frames)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()


class _TlsClient(NatsClient):
    """Requires TLS.

    nats-py itself sends everything in plain text, with the password, if the server
    offers no TLS.
    """

    def _connect_command(self) -> bytes:
        if not self._server_info.get("tls_required"):
            raise SecureConnWantedError
        return super()._connect_command()
