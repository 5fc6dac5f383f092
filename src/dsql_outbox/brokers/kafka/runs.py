"""Runs: several messages of a key on their way, of which Kafka stores the first ones, in order.

librdkafka sends the messages of a partition in order and again until they are stored, if no message
times out (`KafkaSettings.for_runs`). Three rules keep the promise where that is not enough:

- A run that ends before its last message stops the producer, and with it all that is queued.
- A broker takes any sequence number of a producer that it does not know. So it would take the
  second request of a run when it has just refused the first one. Unless it stored a message
  of this key from this producer within the last seconds, the first message of a run goes alone.
- The report of that message names the partition of the others.
"""

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Report

from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.cloudevents import kafka_headers
from dsql_outbox.publisher.sinks.port import Unavailable

from .client import Callbacks, KafkaClient
from .reports import Reports, blames_broker, is_silence, outcome_of
from .url import KafkaSettings

REST: Final = 30.0
"""Seconds in which a topic gets no runs after one failed."""
_KNOWN: Final = 10.0
"""Seconds for which a partition is kept.

They are far below the time after which a broker forgets a producer (a day by default), and
end so that a key moves soon after its topic got more partitions.
"""
_PLACES: Final = 10_000  # keys whose partitions are kept
_TOPICS: Final = 10_000  # topics that get no runs for a while
_CHOSEN_BY_KEY: Final = -1


class _Partition(NamedTuple):
    partition: int
    until: float


class Run:
    """A run on its way: `left` are its messages without a report."""

    def __init__(
        self, messages: Sequence[Message], indexes: range, reports: Reports, producer: Producer
    ) -> None:
        self.messages = messages
        self.left = indexes
        self.reports = reports
        self.producer = producer
        self.is_known = False
        """Whether the broker knows the producer, so that all messages are sent."""

    @property
    def place(self) -> tuple[str, str]:
        """The topic and the key, by which Kafka chooses the partition."""
        message = self.messages[self.left.start]
        return message.topic, message.broker_key


class Runs:
    """Sends runs by a producer of their own."""

    def __init__(self, settings: KafkaSettings, callbacks: Callbacks) -> None:
        self._client = KafkaClient(settings.for_runs(), callbacks, self._end_runs, is_quiet=True)
        self._soon = callbacks.call_soon
        self._places: dict[tuple[str, str], _Partition] = {}
        self._resting: dict[str, float] = {}

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()

    def takes(self, topic: str) -> bool:
        """Whether the topic gets runs now; else its messages go one by one."""
        return self._resting.get(topic, 0.0) <= _now()

    def rest(self, topics: Iterable[str]) -> None:
        """Send no runs to these topics for a while."""
        if len(self._resting) >= _TOPICS:
            self._resting.clear()
        self._resting |= dict.fromkeys(topics, _now() + REST)

    async def send(
        self, messages: Sequence[Message], runs: Sequence[range], reports: Reports
    ) -> list[Run]:
        """Send runs of a call. Raises `SinkUnavailable` when no broker answers."""
        producer = await self._client.producer()
        sent = [Run(messages, indexes, reports, producer) for indexes in runs]
        for run in sent:
            place = self._places.get(run.place)
            if place is not None and place.until > _now():
                self._produce_all(run, place.partition)
            else:
                self._produce(run, run.left.start, _CHOSEN_BY_KEY)
        self._client.flush_soon()
        return sent

    def end(self, runs: Iterable[Run]) -> None:
        """Give up what has no report: a request may be on its way, and nothing follows it."""
        for run in runs:
            if run.left:
                run.left = range(0)
                self._drop(run.producer)

    def _produce_all(self, run: Run, partition: int) -> None:
        run.is_known = True
        for index in run.left:
            if not self._produce(run, index, partition):
                break

    def _produce(self, run: Run, index: int, partition: int) -> bool:
        """Hand a message to the producer; False ends the run there."""
        message = run.messages[index]
        try:
            run.producer.produce(
                **record(message),
                partition=partition,
                on_delivery=partial(self._soon, self._report, run, index),
            )
        except KafkaException as error:
            self._blame(message.topic, error.args[0])
        except BufferError:  # librdkafka's queue is full
            pass
        else:
            return True
        run.reports.leave(range(index, run.left.stop))
        run.left = range(run.left.start, index)
        return False

    def _report(self, run: Run, index: int, error: KafkaError | None, report: Report) -> None:
        if index not in run.left:
            return
        # A report out of turn breaks the promise of a prefix, whatever it says.
        if error is not None or index != run.left.start:
            self._fail(run, error)
            return
        place = run.place
        run.left = run.left[1:]
        run.reports.answer_stored(index)
        if not run.is_known and self._client.serves(run.producer):
            if len(self._places) >= _PLACES:
                self._places.clear()
            self._places[place] = found = _Partition(report.partition() or 0, _now() + _KNOWN)
            self._produce_all(run, found.partition)
            self._client.flush_soon()
        elif not run.is_known:
            run.reports.leave(run.left)

    def _fail(self, run: Run, error: KafkaError | None) -> None:
        left, (topic, _) = run.left, run.place
        run.left = range(0)
        self._drop(run.producer)
        if error is not None and (outcome := self._blame(topic, error)):
            run.reports.settle(left.start, outcome)
        run.reports.leave(left)

    def _blame(self, topic: str, error: KafkaError) -> Unavailable | None:
        """The outcome if the topic is at fault.

        After other errors the messages of a run go one by one, unless the broker failed as a whole.
        """
        outcome = outcome_of(error, topic)
        if isinstance(outcome, Unavailable):
            return outcome
        if not blames_broker(error) and not is_silence(error):
            self.rest([topic])
        return None

    def _drop(self, producer: Producer) -> None:
        if self._client.serves(producer):
            self._client.drop(producer)
            self._places.clear()

    def _end_runs(self, producer: Producer, reason: str) -> None:
        """The reports of the messages, which are given up, end their runs."""
        del producer, reason
        self._places.clear()


def record(message: Message) -> dict[str, Any]:
    """The arguments of `produce` that a message makes."""
    return {
        "topic": message.topic,
        "value": None if message.is_deletion else message.payload,
        "key": message.broker_key.encode(),
        "headers": kafka_headers(message),
    }


def _now() -> float:
    return asyncio.get_running_loop().time()
