"""Atomic batches of JetStream: who gets them, and the headers of their messages.

A batch is stored as a whole or not at all (ADR-50, nats-server 2.12.1), so a run in one batch keeps
its prefix. One message that the stream knows by its ``Nats-Msg-Id`` refuses the whole batch. So
after a refusal the messages of a key go one by one, until one of them is new to the stream.

A stream in files makes a file store for each batch, which takes a few milliseconds, and takes
the batches of all subjects one after the other. So only a long run is worth a batch, and only
a few at a time: ten batches of ten are slower than ten rounds of one message of each subject.

An older server does not know the headers, and stores each message by itself. So the first batch
of a topic waits for the answer to its first message, which is empty if it opened a batch.
"""

from collections.abc import Callable
from typing import Final

from dsql_outbox.outbox.message import Message

_LONG: Final = 16  # messages of a run that is worth a batch
_OPEN: Final = 4
"""The most batches of this client at a time; a stream takes 50 of all clients."""
_DISABLED: Final = 10174  # JetStream's error code: the stream takes no batches
_REST: Final = 60.0  # seconds until a topic whose stream took no batch is asked again
_KEYS: Final = 10_000  # keys that are remembered


class Batches:
    """Which topics and keys get batches, and how many are open."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.open = 0
        """How many are on their way."""
        self._clock = clock
        self._proven: set[str] = set()
        self._resting: dict[str, float] = {}
        self._doubted: set[tuple[str, str]] = set()

    def takes(self, message: Message, length: int) -> bool:
        """Whether a run of this length, which begins with the message, is a batch now."""
        if length < _LONG:
            return False
        topic = message.topic
        is_free = self.open < _OPEN and self._resting.get(topic, 0.0) <= self._clock()
        return is_free and (topic, message.key) not in self._doubted

    def is_proven(self, topic: str) -> bool:
        """Whether a batch of the topic was opened since the connection was made."""
        return topic in self._proven

    def prove(self, topic: str) -> None:
        """A batch of the topic was opened."""
        self._proven.add(topic)

    def disable(self, topic: str) -> None:
        """The topic takes no batches."""
        self._resting[topic] = self._clock() + _REST

    def refuse(self, message: Message, code: int) -> None:
        """A batch with the message was refused, with this error code of JetStream."""
        if code == _DISABLED:
            self.disable(message.topic)
            return
        if len(self._doubted) >= _KEYS:  # a batch that is refused finds it out again
            self._doubted.clear()
        self._doubted.add((message.topic, message.key))

    def note_stored(self, message: Message) -> None:
        """The message was new to its stream, so those behind it are."""
        self._doubted.discard((message.topic, message.key))

    def forget(self) -> None:
        """The next connection may lead to another server."""
        self._proven.clear()


def batch_headers(batch: str, sequence: int, *, ends: bool) -> str:
    """The lines that make a message the one with this number, from 1, of a batch."""
    end = "Nats-Batch-Commit: 1\r\n" if ends else ""
    return f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {sequence}\r\n{end}"
