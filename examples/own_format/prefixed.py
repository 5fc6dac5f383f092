"""A sink that puts a prefix before each topic, for a second contract on the same broker."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from msgspec import structs

from dsql_outbox import Message
from dsql_outbox.publisher import Answer, Sink, open_sink
from dsql_outbox.publisher.sinks import keeps_prefix


class Prefixed:
    """Sends ``events.OrderPlaced`` to ``v2.events.OrderPlaced``."""

    def __init__(self, sink: Sink, prefix: str) -> None:
        self.system, self.keeps_prefix = sink.system, keeps_prefix(sink)
        self._sink, self._prefix = sink, prefix

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Publish each message under its new topic."""
        renamed = [structs.replace(each, topic=self._prefix + each.topic) for each in messages]
        await self._sink.publish(renamed, answer)


@asynccontextmanager
async def open_prefixed(url: str, prefix: str) -> AsyncGenerator[Prefixed]:
    """Open the sink of a URL with such a prefix."""
    async with open_sink(url) as sink:
        yield Prefixed(sink, prefix)
