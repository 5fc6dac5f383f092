"""The topics whose messages may harm others on their channel, so that they go alone.

RabbitMQ closes a channel for a message that it refuses. And it can be *stuck* in one: it handles
the messages of a channel one after the other, and before the first one for a quorum queue it asks
the leader of the queue, and waits up to 60 s for one that is not there. Meanwhile it answers for no
other message there, and not for Close. Only other channels show that the server lives.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

import msgspec

from dsql_outbox.outbox.message import Message

_MOST_TOPICS: Final = 10_000
"""About the most topics that are kept; a writer may use any number of them."""

_MOST: Final = 64
"""The channels that may be stuck before no message is sent that is likely to be the next one."""

_MOST_OF_TOPIC: Final = 4
"""Those of one topic since RabbitMQ took a message of it."""

_LASTS: Final = 20.0
"""Seconds after which its message is sent again although the channel is stuck: a queue that is
back answers a new channel, and the old one maybe later."""


class _Stuck(msgspec.Struct, eq=False):
    key: str
    ending: asyncio.Task[None]
    until: float
    is_last: bool = True
    """Whether RabbitMQ took no message of the topic since."""


class Doubts:
    """The topics in doubt, and the channels that are stuck, shared by all calls of a sink."""

    def __init__(self) -> None:
        self._topics = set[str]()
        self._ending = set[asyncio.Task[None]]()
        self._by_topic: dict[str, list[_Stuck]] = {}

    def add(self, topics: Iterable[str]) -> None:
        """Doubt topics until RabbitMQ takes a message of theirs."""
        if len(self._topics) < _MOST_TOPICS:
            self._topics.update(topics)

    def note_stuck(self, message: Message, ending: asyncio.Task[None]) -> None:
        """Record that a channel is stuck in this message; `ending` ends when it is closed."""
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        for topic in [*self._by_topic]:
            self._is_stuck(topic)  # forgets what is over
        until = asyncio.get_running_loop().time() + _LASTS
        self._by_topic.setdefault(message.topic, []).append(_Stuck(message.key, ending, until))

    def note_taken(self, topic: str) -> None:
        """Record that RabbitMQ took a message of a topic."""
        self._topics.discard(topic)
        for each in self._by_topic.get(topic, ()):
            each.is_last = False

    def has(self, topic: str) -> bool:
        """Whether a topic is in doubt, as it is while a channel is stuck in a message of it."""
        return topic in self._topics or self._is_stuck(topic)

    def _is_stuck(self, topic: str) -> bool:
        found = self._by_topic.pop(topic, None)
        if found is None:
            return False
        now = asyncio.get_running_loop().time()
        if left := [each for each in found if not each.ending.done() and now < each.until]:
            self._by_topic[topic] = left
        return bool(left)

    def forbids(self, message: Message) -> bool:
        """Whether a message is not to be sent now: it would only block another channel."""
        if not self._is_stuck(message.topic):
            return False
        stuck = self._by_topic[message.topic]
        return (
            any(each.key == message.key for each in stuck)
            or sum(each.is_last for each in stuck) >= _MOST_OF_TOPIC
            or len(self._ending) >= _MOST
        )
