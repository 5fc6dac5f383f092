"""Delivery reports of librdkafka: their meaning, and the missing ones of a call."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from confluent_kafka import KafkaError

from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.port import (
    Answer,
    Delivered,
    Outcome,
    Rejected,
    Retry,
    Unavailable,
)

from .refusal import report_text

# Names of errors: those with an underscore come from librdkafka, the others from the broker. A name
# that is in no set blames nothing by itself: its message is sent again, and no attempt is counted.
_REFUSED: Final = frozenset(
    {"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_RECORD", "TOPIC_EXCEPTION"}
)
"""The broker will never accept the message."""
_DAMAGED: Final = frozenset({"INVALID_MSG", "INVALID_MSG_SIZE", "_INVALID_DIFFERENT_RECORD"})
"""The message arrived damaged; another time it may arrive whole."""
_SHARED: Final = frozenset(
    {"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_RECORD", "_INVALID_DIFFERENT_RECORD"}
)
"""The error may be for all messages of a request, although only one of them is at fault."""
_NO_TOPIC: Final = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})
_TOPIC: Final = frozenset(
    {
        "TOPIC_AUTHORIZATION_FAILED",
        "FENCED_LEADER_EPOCH",
        "INCONSISTENT_TOPIC_ID",
        "INVALID_TIMESTAMP",  # it is that of the client's clock, as for all messages
        "KAFKA_STORAGE_ERROR",
        "LEADER_NOT_AVAILABLE",
        "NOT_ENOUGH_REPLICAS",
        "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        "NOT_LEADER_FOR_PARTITION",
        "POLICY_VIOLATION",
        "REPLICA_NOT_AVAILABLE",
        "THROTTLING_QUOTA_EXCEEDED",
        "UNKNOWN_LEADER_EPOCH",
        "UNKNOWN_TOPIC_ID",
        "UNSUPPORTED_COMPRESSION_TYPE",
        "UNSUPPORTED_FOR_MESSAGE_FORMAT",
        "_UNKNOWN_PARTITION",
    }
)
"""The topic cannot take messages now."""
_SILENCE: Final = frozenset({"_MSG_TIMED_OUT", "_TIMED_OUT"})
"""No answer came in time. The report does not say whether the topic or the broker is at fault."""
_BROKER: Final = frozenset(
    {
        "_TRANSPORT",
        "_PURGE_QUEUE",
        "_PURGE_INFLIGHT",
        "_FATAL",
        "CLUSTER_AUTHORIZATION_FAILED",
        # The broker refuses the state of the idempotent producer:
        "INVALID_PRODUCER_EPOCH",
        "INVALID_PRODUCER_ID_MAPPING",
        "OUT_OF_ORDER_SEQUENCE_NUMBER",
        "PRODUCER_FENCED",
        "UNKNOWN_PRODUCER_ID",
    }
)
"""The broker or the producer failed; neither the message nor the topic is at fault."""

_DELIVERED: Final = Delivered()


_MOST: Final = 10_000
"""The most topics whose last stored message is kept; a writer may use any number of them."""


class Heard:
    """The stored messages of all calls: the number of the last one per topic."""

    def __init__(self) -> None:
        self.count = 0
        self._topics: dict[str, int] = {}

    def note(self, topic: str) -> None:
        """Record that a message of the topic was stored."""
        self.count += 1
        self._topics.pop(topic, None)
        self._topics[topic] = self.count
        if len(self._topics) > _MOST:
            del self._topics[next(iter(self._topics))]  # the one that was heard longest ago

    def since(self, count: int, topic: str) -> bool:
        """Whether a message of the topic was stored after the first `count` messages."""
        return self._topics.get(topic, 0) > count


class Reports:
    """The reports of one call: passed on as answers, and those that are missing.

    `chains` are runs that go one by one: a message is due when the one before it was delivered.
    """

    def __init__(
        self, messages: Sequence[Message], answer: Answer, heard: Heard, chains: Iterable[range]
    ) -> None:
        self.unanswered: set[int] = set(range(len(messages)))
        self.refused: list[int] = []
        """Messages to send again alone: the broker refused them, perhaps because of another."""
        self.due: list[int] = []
        """Messages of chains that are to be sent now."""
        self.reason = "no acknowledgement in time"
        """Why messages have no answer."""
        self.is_broken = False
        """Whether the broker or the producer failed, and not only an answer is missing."""
        self.has_left = False
        """Whether messages were not attempted, which says nothing of the broker."""
        self.has_stopped = False
        """Whether the producer stopped for good, which says nothing of any topic."""
        self._unclear: dict[str, str] = {}
        """By topic, the last error that says neither what failed nor that no answer came."""
        self.changed = asyncio.Event()
        """Set when messages are refused or due, and when no report can change the outcome."""
        self._messages = messages
        self._answer = answer
        self._heard = heard
        self._began = heard.count
        self._expected = len(messages)
        self._stops = {index: chain.stop for chain in chains for index in chain}

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing to wait for."""
        return self._expected <= 0

    @property
    def others_were_heard(self) -> bool:
        """Whether any message, of any call, was stored since this call began."""
        return self._heard.count > self._began

    def report(self, index: int, error: KafkaError | None, _: object) -> None:
        """Take the first report of a message; refused messages may be sent again alone."""
        if error is not None and error.name() in _SHARED and index in self.unanswered:
            self.refused.append(index)
            self.changed.set()
        else:
            self.report_alone(index, error, _)

    def report_alone(self, index: int, error: KafkaError | None, _: object) -> None:
        """Take a report that is about this message alone."""
        if error is None:
            self.answer_stored(index)
        elif outcome := outcome_of(error, topic := self._messages[index].topic):
            self.settle(index, outcome)
        else:
            self.reason = report_text(error)
            if blames_broker(error):
                self.is_broken = True
            elif not is_silence(error):
                self._unclear[topic] = _refusal(error)
            self._count_down()
            self._leave_behind(index)

    def answer_stored(self, index: int) -> None:
        """Answer that a message is stored."""
        self._heard.note(self._messages[index].topic)
        self.settle(index, _DELIVERED)

    def settle(self, index: int, outcome: Outcome) -> None:
        """Answer for a message, the first time."""
        if index not in self.unanswered:
            return
        self.unanswered.discard(index)
        self._answer(index, outcome)
        if index + 1 < self._stops.get(index, 0) and outcome is _DELIVERED:
            self.due.append(index + 1)
            self.changed.set()
        else:
            self._leave_behind(index)
        self._count_down()

    def leave(self, indexes: Iterable[int]) -> None:
        """Answer nothing for messages that were not attempted, and blame nothing for them."""
        for index in indexes:
            if index in self.unanswered:
                self.has_left = True
                self.unanswered.discard(index)
                self._count_down()

    def give_up(self, reason: str) -> None:
        """End the wait: the producer has stopped."""
        self.reason, self._expected = reason, 0
        self.is_broken = self.has_stopped = True
        self.changed.set()

    def silent_topics(self) -> set[str]:
        """The topics of the messages without an answer."""
        return {self._messages[index].topic for index in self.unanswered}

    def blame_topics(self, seconds: float) -> None:
        """Answer for the topics of which nothing was stored since this call began.

        When the producer has stopped, no topic is to blame.
        """
        if self.has_stopped:
            return
        for index in sorted(self.unanswered):
            topic = self._messages[index].topic
            if not self._heard.since(self._began, topic):
                error = self._unclear.get(topic) or _silence(topic, seconds)
                self.settle(index, Unavailable(error))

    def close(self) -> None:
        """Ignore reports from now on."""
        self.unanswered.clear()

    def leave_chains(self, indexes: Iterable[int]) -> None:
        """Leave these messages of chains, and those behind them."""
        for index in indexes:
            self.leave(range(index, self._stops[index]))

    def _leave_behind(self, index: int) -> None:
        self.leave(range(index + 1, self._stops.get(index, 0)))

    def _count_down(self) -> None:
        self._expected -= 1
        if self._expected <= 0:
            self.changed.set()


def outcome_of(error: KafkaError, topic: str) -> Outcome | None:
    """The outcome of a message of the topic; None if the error blames neither of them.

    With None, the answers for other messages show what failed: a topic, a part of the broker, or
    all of it.
    """
    name = error.name()
    if error.fatal():
        return None
    if name in _NO_TOPIC:
        return Unavailable(
            f"there is no topic {topic}: make it, or let the broker make topics itself"
        )
    if name in _TOPIC:
        return Unavailable(_refusal(error))
    if name in _REFUSED:
        return Rejected(_refusal(error))
    return Retry(_refusal(error)) if name in _DAMAGED else None


def blames_broker(error: KafkaError) -> bool:
    """Whether the broker or the producer failed, and so no topic."""
    return error.name() in _BROKER or error.fatal()


def is_silence(error: KafkaError) -> bool:
    """Whether no answer came in time."""
    return error.name() in _SILENCE


def _refusal(error: KafkaError) -> str:
    return f"refused by Kafka: {report_text(error)} ({error.name()})"


def _silence(topic: str, seconds: float) -> str:
    return (
        f"no acknowledgement for topic {topic} within {seconds:g} s, although the broker answers: "
        "a partition has no leader, or fewer replicas in sync than min.insync.replicas"
    )
