"""The sink for Redis Streams: it sends the commands of a call at once, and reads the replies.

It uses connections of redis-py without its pipelines. They would add the payload to the text of
an error, and they cannot hold several transactions.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final

from redis.asyncio import Connection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError, ResponseError

from dsql_outbox.outbox.errors import SinkUnavailable
from dsql_outbox.outbox.message import Message
from dsql_outbox.outbox.redaction import error_text, system_error
from dsql_outbox.publisher.sinks.cloudevents import binary_headers
from dsql_outbox.publisher.sinks.port import Answer, Delivered, Outcome, key_runs
from dsql_outbox.publisher.sinks.url import naming_the_authority, read_utf8

from .refusal import KNOWN, blames_server, closes_connection, outcome_of
from .url import RedisSettings

Command = tuple[str | bytes | int, ...]

_MULTI: Final[Command] = ("MULTI",)
_EXEC: Final[Command] = ("EXEC",)
_PING: Final[Command] = ("PING",)
_WAITS: Final = 0.8
"""The part of a call's time in which the server may wait for its disk and its replicas."""

_CONNECTIONS: Final = 1 << 16
"""No limit: each call uses one connection, and the relay limits the calls."""


class RedisSink:
    """Publishes to one server; a message is delivered when the server answered its XADD.

    With `fsync` or `replicas`, it is delivered when the server confirmed these as well.
    """

    system = "redis"
    keeps_prefix = True

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self.destination = settings.hosts[0]
        self._pool = _pool(settings)
        self._trim: Command = (
            ("MAXLEN", "~", settings.given.maxlen) if settings.given.maxlen else ()
        )
        self._confirm = _confirmation(settings)

    async def connect(self) -> None:
        """Connect.

        Raises `SinkUnavailable` when the server does not answer within the timeout or refuses the
        login, and `SettingsError` when its certificate is not trusted.
        """
        with naming_the_authority():
            await self._ask()

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.disconnect()
        if self._settings.given.sentinel is not None:
            for sentinel in self._pool.sentinel_manager.sentinels:
                await sentinel.aclose()

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Add messages to their streams, within twice the timeout; a run is one transaction.

        Raises `SinkUnavailable` when the connection is lost, and when the server is silent, refuses
        every write or does not confirm. If it refuses after some messages of the call were
        delivered, the others get no answer.
        """
        if not messages:
            await self._ask()
            return
        call = _Call(messages, answer, list(key_runs(messages)))
        ends = monotonic() + self._settings.given.timeout
        while call.left and monotonic() < ends:
            async with self._connection() as connection:
                await self._exchange(connection, call)
        if call.refused is not None:
            await self._forget_connections()
            if not call.has_delivered:
                raise self._unusable(call.refused)

    async def _exchange(self, connection: Any, call: "_Call") -> None:
        """Send what is left of a call, and act on the replies.

        A command that is too large for the server ends the connection. What stands behind it is
        left for the next exchange.
        """
        runs, call.left = call.left, []
        commands = [command for run in runs for command in self._commands(call.messages, run)]
        unconfirmed: list[tuple[int, Outcome]] = []

        def keep(index: int, outcome: Outcome) -> None:
            unconfirmed.append((index, outcome))

        answer = keep if self._confirm else call.answer
        async with _sending(connection, [*commands, *self._confirm]):
            for number, run in enumerate(runs):
                try:
                    call.take(run, await _run_replies(connection, run), answer)
                except _Closed as closed:
                    call.leave_behind(closed, runs[number:])
                    await connection.disconnect(nowait=True)
                    return
            await self._read_confirmation(connection)
        for told in unconfirmed:
            call.answer(*told)

    def _commands(self, messages: Sequence[Message], run: range) -> Iterator[Command]:
        is_one = len(run) == 1
        if not is_one:
            yield _MULTI
        for index in run:
            message = messages[index]
            fields = binary_headers(message, "ce-") | {"dedupe-id": message.dedupe_id}
            named = (part for pair in fields.items() for part in pair)
            yield (
                "XADD",
                message.topic,
                *self._trim,
                "*",
                *named,
                self._settings.given.field,
                message.payload,
            )
        if not is_one:
            yield _EXEC

    async def _ask(self) -> None:
        """Ask whether the server takes transactions, and confirms."""
        async with self._connection() as connection:
            await _send(connection, [_MULTI, _PING, _EXEC, *self._confirm])
            for _ in (_MULTI, _PING, _EXEC):
                if isinstance(reply := await _reply(connection), ResponseError):
                    raise reply
            await self._read_confirmation(connection)

    async def _read_confirmation(self, connection: Any) -> None:
        """Read the reply of WAIT or WAITAOF. Raises `SinkUnavailable` unless it confirms."""
        if not self._confirm:
            return
        reply = await _reply(connection)
        if isinstance(reply, ResponseError):
            raise reply
        synced, replicas = reply if self._settings.given.fsync else (1, reply)
        if not synced:
            raise SinkUnavailable(f"{self._settings} did not sync its file in time")
        if replicas < self._settings.given.replicas:
            asked = self._settings.given.replicas
            text = f"{self._settings}: {replicas} of {asked} replicas confirmed in time"
            raise SinkUnavailable(text)

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Any]:
        """A connection for one exchange within the timeout. Raises `SinkUnavailable`."""
        try:
            async with asyncio.timeout(self._settings.given.timeout):
                connection = await self._pool.get_connection()
                try:
                    yield connection
                except BaseException:
                    # Replies that nobody read must not answer the next call.
                    await connection.disconnect(nowait=True)
                    raise
                finally:
                    await asyncio.shield(self._pool.release(connection))
        except TimeoutError:
            await self._forget_connections()
            text = f"{self._settings} does not answer within {self._settings.given.timeout:g} s"
            raise SinkUnavailable(text) from None
        except (RedisError, OSError) as error:
            await self._forget_connections()
            raise self._unusable(error) from system_error(error)

    async def _forget_connections(self) -> None:
        """Close what no call uses: by now another server may have the name, as after a failover."""
        await self._pool.disconnect(inuse_connections=False)

    def _unusable(self, error: Exception) -> SinkUnavailable:
        return SinkUnavailable(f"{self._settings} cannot be used: {error_text(error, KNOWN)}")


class _Call:
    """The messages of a call, and the runs that are left to send."""

    def __init__(self, messages: Sequence[Message], answer: Answer, left: list[range]) -> None:
        self.messages = messages
        self.answer = answer
        self.left = left
        self.refused: ResponseError | None = None
        """Why the server takes no message, if it said so."""
        self.has_delivered = False

    def take(self, run: range, replies: Sequence[Any], answer: Answer) -> None:
        """Answer for a run, or for its first message, if the server refused all of it."""
        for index, reply in zip(run, replies, strict=False):
            if isinstance(reply, ResponseError):
                if blames_server(reply):
                    self.refused = reply
                else:
                    answer(index, self._outcome(index, reply))
                return  # nothing of the run is stored
            self.has_delivered = True
            answer(index, Delivered())

    def leave_behind(self, closed: "_Closed", runs: Sequence[range]) -> None:
        """Reject the message for which the server closed the connection.

        Nothing of its run is stored, so the messages before it are sent again, and it is the next.
        """
        run, at = runs[0], runs[0].start + closed.place
        if at > run.start:
            self.left = [range(run.start, at), range(at, at + 1), *runs[1:]]
        else:
            self.left = list(runs[1:])
            self.answer(at, self._outcome(at, closed.refusal))

    def _outcome(self, index: int, refusal: ResponseError) -> Outcome:
        message = self.messages[index]
        return outcome_of(message.topic, len(message.payload), refusal)


class _Closed(Exception):
    """The server closed the connection at the message with this place in its run."""

    def __init__(self, place: int, refusal: ResponseError) -> None:
        super().__init__(place)
        self.place = place
        self.refusal = refusal


async def _send(connection: Any, commands: Sequence[Command]) -> None:
    await connection.send_packed_command(connection.pack_commands(commands))


@asynccontextmanager
async def _sending(connection: Any, commands: Sequence[Command]) -> AsyncGenerator[None]:
    """Send commands while the block reads the replies.

    A server that refuses a command may read no further, and its reply would be lost to a client
    that first sends everything.
    """
    sending = asyncio.create_task(_send(connection, commands))
    sending.add_done_callback(_look_at)
    try:
        yield
    finally:
        # Without the turn, a task that has sent everything would end the connection.
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait([sending])


def _look_at(sending: asyncio.Task[None]) -> None:
    if not sending.cancelled():
        sending.exception()  # else asyncio would log it; the reader has met its cause


async def _reply(connection: Any) -> Any:
    """The next reply, which may be an error."""
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal


async def _reply_at(connection: Any, place: int) -> Any:
    """The reply to the message with this place in its run. Raises `_Closed` if it is too large."""
    reply = await _reply(connection)
    if isinstance(reply, ResponseError) and closes_connection(reply) and not blames_server(reply):
        raise _Closed(place, reply)
    return reply


async def _run_replies(connection: Any, run: range) -> list[Any]:
    """The reply for each message of a run, or one error for all of it.

    Raises `ResponseError` if the server takes no transaction. It has then stored the messages one
    by one, so the run may have holes, and no message of it counts as delivered.
    """
    if len(run) == 1:
        return [await _reply_at(connection, 0)]
    begun = await _reply(connection)
    queued = [await _reply_at(connection, place) for place in range(len(run))]
    stored = await _reply(connection)
    if isinstance(begun, ResponseError):
        raise begun
    if isinstance(stored, ResponseError):  # it names a cause only if each command was queued
        return [next((reply for reply in queued if isinstance(reply, ResponseError)), stored)]
    return list(stored)


def _confirmation(settings: RedisSettings) -> list[Command]:
    """The command behind those of a call that waits for the server's file and its replicas."""
    milliseconds = int(settings.given.timeout * _WAITS * 1000)
    if settings.given.fsync:
        return [("WAITAOF", 1, settings.given.replicas, milliseconds)]
    return [("WAIT", settings.given.replicas, milliseconds)] if settings.given.replicas else []


def _pool(settings: RedisSettings) -> Any:
    options: dict[str, Any] = {
        "db": settings.database,
        "max_connections": _CONNECTIONS,
        "protocol": 2,  # without it, some servers push messages among the replies
        "socket_timeout": None,  # the time limit of a call is for all of it
        "socket_connect_timeout": None,
    }
    if settings.given.password_file is not None:
        options["credential_provider"] = _PasswordFile(settings.user, settings.given.password_file)
    else:
        options |= {"username": settings.user, "password": settings.password}
    names = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}
    files = {option: getattr(settings.given, name) for name, option in names.items()}
    tls: dict[str, Any] = {option: file for option, file in files.items() if file is not None}
    if settings.given.sentinel is not None:
        manager = _sentinels(settings, tls | {"ssl": settings.has_tls})
        return SentinelConnectionPool(  # type: ignore[no-untyped-call]
            settings.given.sentinel, manager, ssl=settings.has_tls, **options, **tls
        )
    (host,) = settings.hosts
    kind = SSLConnection if settings.has_tls else Connection
    return ConnectionPool(kind, host=host.host, port=host.port, **options, **tls)


def _sentinels(settings: RedisSettings, tls: dict[str, Any]) -> Sentinel:
    """Those that know the server. A silent one leaves time to ask the others."""
    patience = settings.given.timeout / (len(settings.hosts) + 1)
    options = tls | {
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "retry": Retry(NoBackoff(), 0),  # the next one is asked at once
        "protocol": 2,
    }
    if settings.given.sentinel_password_file is not None:
        options["credential_provider"] = _PasswordFile(None, settings.given.sentinel_password_file)
    places = [(host.host, host.port) for host in settings.hosts]
    return Sentinel(places, sentinel_kwargs=options)  # type: ignore[no-untyped-call]


class _PasswordFile(CredentialProvider):
    """Reads the password from a file at each login."""

    def __init__(self, user: str | None, file: Path) -> None:
        self._user = user
        self._file = file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = read_utf8(self._file).strip()
        return (password,) if self._user is None else (self._user, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()
