"""The right to send for ever: for tests of sinks, which know of no leases."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager

from anyio import CancelScope

from dsql_outbox.outbox import Message
from dsql_outbox.publisher.relay.waves import SentWaves, publish_in_waves
from dsql_outbox.publisher.sinks import Sink


class _Always:
    def sendable(self) -> set[int]:
        return {0}

    def bound(self, shards: Collection[int]) -> AbstractContextManager[CancelScope]:
        assert shards
        return CancelScope()


async def in_waves(sink: Sink, messages: Sequence[Message]) -> SentWaves:
    """Publish messages as the relay does while nobody takes its shards."""
    return await publish_in_waves(sink, messages, [0] * len(messages), _Always())
