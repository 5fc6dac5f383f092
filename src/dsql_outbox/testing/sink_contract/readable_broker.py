"""A broker as the contract suite sees it: it opens the sink and reads back what arrived."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from uuid import UUID

from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.port import Answer, Sink, keeps_prefix
from dsql_outbox.publisher.sinks.registry import open_sink


@dataclass(frozen=True)
class Stored:
    """A message as a consumer finds it."""

    topic: str
    headers: dict[str, str]
    """Attributes and trace headers under their plain names, read by the broker's own binding."""
    payload: bytes

    @property
    def event_id(self) -> UUID:
        """The event that the message is about."""
        return UUID(self.headers["id"])


class ReadableBroker(ABC):
    """Where a sink writes to. The attributes are the broker's promises."""

    ordered: bool = True
    """Whether consumers see the messages of a key in the order in which they were sent."""
    deduplicates: bool = False
    """Whether a message that is sent twice with the same dedupe id is stored once."""
    exact: bool = True
    """Whether JSON arrives byte for byte; else as an equal JSON value."""
    takes_empty: bool = True
    """Whether an empty payload arrives; else it is rejected."""
    max_payload: int = (1 << 20) - (4 << 10)
    """The bytes of a payload that must arrive; the message with its headers may be larger."""
    many: int = 600
    """How many messages one call gets; fewer for a slow stand-in."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for `open_sink`."""

    def open(self) -> AbstractAsyncContextManager[Sink]:
        """Open the sink."""
        return open_sink(self.url)

    def outage(self) -> AbstractContextManager[None] | None:
        """A block in which the sink cannot reach the broker; None if there is no way to do so."""
        return None

    @abstractmethod
    async def stored(self) -> list[Stored]:
        """Every message that is there, in the order in which it came."""


@dataclass
class Before:
    """A sink that does something once, right before `inner` is given a certain message."""

    inner: Sink
    event_id: UUID
    action: Callable[[], None] | None

    def __post_init__(self) -> None:
        self.system = self.inner.system
        self.keeps_prefix = keeps_prefix(self.inner)

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Act if the message is among these, and pass them on."""
        if self.action and any(message.event_id == self.event_id for message in messages):
            self.action()
            self.action = None
        await self.inner.publish(messages, answer)


@dataclass
class Stage:
    """A sink that fails at one message until it is healed."""

    sink: Sink
    broker: ReadableBroker
    heal: Callable[[], Awaitable[None]]
    stores: bool = False
    """Whether the message is stored, so that only its answer is lost."""
    exactly_once: bool = False
    """Whether the broker recognises a repeated message."""
    across_topics: bool = True
    """Whether the broker keeps the order of messages of different topics."""


OpenStage = Callable[[Message], AbstractAsyncContextManager[Stage]]
"""Opens a sink that fails at the message, whose topic is below ``late.``."""
