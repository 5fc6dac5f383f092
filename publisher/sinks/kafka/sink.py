"""The sink for Kafka: it produces messages and collects the delivery reports."""

import asyncio
import logging
import re
from collections.abc import Sequence
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Producer

from dsql_outbox.outbox import Message
from dsql_outbox.publisher.sinks.cloudevents import kafka_headers
from dsql_outbox.publisher.sinks.port import Delivered, NotAttempted, Outcome, Rejected, Retry

from .client import KafkaClient
from .url import KafkaSettings

logger = logging.getLogger("dsql_outbox")

_REPORT: Final = 1.0
"""librdkafka checks for timed-out messages once per second, so a report may be this late."""

_TOPIC: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")

# Names of errors: those with an underscore come from librdkafka, the others from the broker.
_REFUSED: Final = frozenset(
    {"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_RECORD", "TOPIC_EXCEPTION"}
)
"""The broker will never accept the message."""
_SHARED: Final = _REFUSED | {"_INVALID_DIFFERENT_RECORD"}
"""The error may be for all messages of a request, although only one of them is at fault."""
_NO_TOPIC: Final = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})
_BROKER: Final = frozenset(
    {
        "_MSG_TIMED_OUT",
        "_TIMED_OUT",
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
"""The broker or the producer failed; the message is not at fault."""


class KafkaSink:
    """Publishes to Kafka; a message is delivered when all in-sync replicas have it.

    It is not `ordered`, although the producer is idempotent. An idempotent producer
    keeps the order of the messages that it sends, but may send later messages after
    it gave up earlier ones: if 2 and 3 of 1 to 5 time out while the broker is away,
    then 1, 4 and 5 are written (librdkafka's manual, "Message timeout
    considerations"). ``enable.gapless.guarantee`` does not prevent this. So the relay
    sends one message per key at a time.
    """

    ordered = False
    system = "kafka"

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._client = KafkaClient(settings, self._give_up)
        self._batches: set[_KafkaBatch] = set()

    async def connect(self) -> None:
        """Connect; raises `SinkUnavailable` when no broker answers within the timeout."""
        await self._client.ready()

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()

    async def publish(self, messages: Sequence[Message], /) -> list[Outcome]:
        """Publish messages, within the timeout and one second.

        Raises `SinkUnavailable` when messages timed out and none was delivered. If some
        were delivered, a part of the cluster has failed: the messages that timed out
        are `NotAttempted`, and may be stored.
        """
        if not messages:
            return []
        deadline = asyncio.get_running_loop().time() + self._settings.timeout + _REPORT
        producer = await self._client.ready()
        batch = _KafkaBatch(len(messages))
        self._batches.add(batch)
        try:
            for index, message in enumerate(messages):
                self._produce(producer, batch, index, message)
            self._client.flush_soon()
            async with asyncio.timeout_at(deadline):
                await batch.closed.wait()
        except TimeoutError:
            pass  # the outcomes show which messages have no answer
        finally:
            self._batches.discard(batch)
        if None not in batch.found:
            self._client.answered()
        elif not batch.has_delivered:
            self._client.replace(producer)
            raise self._client.unavailable(batch.reason)
        else:
            text = "%s: a part of it fails, %d of %d messages are without an answer: %s"
            silent = batch.found.count(None)
            logger.warning(text, self._settings, silent, len(messages), batch.reason)
        for index in batch.shared if len(messages) > 1 else ():
            batch.found[index] = await self._alone(messages[index], deadline)
        return [outcome or NotAttempted() for outcome in batch.found]

    async def _alone(self, message: Message, deadline: float) -> Outcome | None:
        """Send a message alone, because the broker refused it together with others."""
        if asyncio.get_running_loop().time() >= deadline:
            return None
        (outcome,) = await self.publish([message])
        return outcome

    def _produce(
        self, producer: Producer, batch: "_KafkaBatch", index: int, message: Message
    ) -> None:
        if not _TOPIC.fullmatch(message.topic):
            text = f"topic {message.topic!r} is no Kafka topic: use 1 to 249 of A-Z a-z 0-9 . _ -"
            batch.settle(index, Rejected(text))
            return
        try:
            producer.produce(
                message.topic,
                value=message.payload,
                key=message.key.encode(),
                headers=[*kafka_headers(message).items()],
                on_delivery=partial(
                    self._client.callbacks.soon, batch.report, index, message.topic
                ),
            )
        except KafkaException as error:
            batch.refuse(index, error.args[0], message.topic)
        except BufferError:  # librdkafka's queue is full
            batch.settle(index, NotAttempted())

    def _give_up(self, reason: str) -> None:
        for batch in self._batches:
            batch.give_up(reason)


class _KafkaBatch:
    """The outcomes of the messages of one call; None while nothing is known about a message."""

    def __init__(self, size: int) -> None:
        self.found: list[Outcome | None] = [None] * size
        self.shared: list[int] = []
        self.reason = "no acknowledgement in time"
        """Why messages have no outcome."""
        self.closed = asyncio.Event()
        self._missing = size

    @property
    def has_delivered(self) -> bool:
        return any(isinstance(outcome, Delivered) for outcome in self.found)

    def report(self, index: int, topic: str, error: KafkaError | None, _: object) -> None:
        if error is None:
            self.settle(index, Delivered())
            return
        if error.name() in _SHARED:
            self.shared.append(index)
        self.refuse(index, error, topic)

    def refuse(self, index: int, error: KafkaError, topic: str) -> None:
        outcome = _outcome(error, topic)
        if outcome is None:
            self.reason = error.str()
        self.settle(index, outcome)

    def settle(self, index: int, outcome: Outcome | None) -> None:
        self.found[index] = outcome
        self._missing -= 1
        if not self._missing:
            self.closed.set()

    def give_up(self, reason: str) -> None:
        self.reason = reason
        self.closed.set()


def _outcome(error: KafkaError, topic: str) -> Outcome | None:
    name = error.name()
    if name in _BROKER or error.fatal():
        return None
    if name in _NO_TOPIC:
        return Retry(f"there is no topic {topic}: make it, or let the broker make topics itself")
    text = f"refused by Kafka: {error.str()} ({name})"
    return Rejected(text) if name in _REFUSED else Retry(text)
