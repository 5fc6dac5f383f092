"""A sink for Redis Streams: ``redis://[USER:PASSWORD@]HOST[:PORT][?timeout=5]``.

The stream is the message's topic. An entry has the fields ``payload``, ``dedupe-id`` and
the headers of CloudEvents in binary mode. Redis does not know a message again, so
consumers compare ``dedupe-id``.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from dsql_outbox import Message, SettingsError, SinkUnavailable
from dsql_outbox.publisher import Answer, Delivered, Outcome, Sink, Unavailable
from dsql_outbox.publisher.sinks import (
    binary_headers,
    parameters,
    seconds,
    split_hosts,
    split_login,
)


class RedisSink:
    """Publishes to one server; a message is delivered when the server answered its XADD."""

    system = "redis"

    def __init__(self, host: str, user: str, password: str | None, timeout: float) -> None:
        name, _, port = host.rpartition(":")
        self._host = host
        self._timeout = timeout
        self._client: Any = Redis(
            host=name,
            port=int(port),
            username=user or None,
            password=password,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),  # the relay retries, not the client
        )

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Add messages to their streams, within the timeout; without messages, ask for the server.

        Raises `SinkUnavailable` if the server did not answer, so that anything may be stored.
        """
        try:
            async with asyncio.timeout(self._timeout):
                answered = await self._send(messages)
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            raise SinkUnavailable(f"Redis {self._host} cannot be used: {error!r}") from error
        for index, found in enumerate(answered):
            answer(index, _outcome(found))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _send(self, messages: Sequence[Message]) -> list[Any]:
        if not messages:
            await self._client.ping()
            return []
        async with self._client.pipeline(transaction=False) as pipeline:
            for message in messages:
                own = {"payload": message.payload, "dedupe-id": message.dedupe_id}
                pipeline.xadd(message.topic, binary_headers(message, "ce-") | own)
            answered: list[Any] = await pipeline.execute(raise_on_error=False)
        return answered


def _outcome(answered: Any) -> Outcome:
    if isinstance(answered, ResponseError):  # WRONGTYPE, OOM, NOPERM, READONLY, MISCONF, ..
        return Unavailable(f"refused by Redis: {answered}")
    return Delivered()


def open_redis(url: str) -> AbstractAsyncContextManager[Sink]:
    """The entry point for ``redis:``; raises `SettingsError` for a malformed URL."""
    try:
        login, (host,), query = split_hosts(url, 6379)
    except ValueError:  # its text may contain the password
        raise SettingsError("a Redis URL is redis://[USER:PASSWORD@]HOST[:PORT]") from None
    given = parameters("a Redis URL", query, ["timeout"])
    timeout = seconds("a Redis URL", given.get("timeout", "5"))
    return _connected(RedisSink(host, *split_login(login), timeout))


@asynccontextmanager
async def _connected(sink: RedisSink) -> AsyncGenerator[Sink]:
    try:
        await sink.publish([], lambda *_: None)  # a server that is away is told at the start
        yield sink
    finally:
        await sink.close()
