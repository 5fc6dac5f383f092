"""The sink for Kafka: it produces messages and passes on the delivery reports."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from confluent_kafka import KafkaException, Producer

from dsql_outbox.outbox.errors import SinkUnavailable
from dsql_outbox.outbox.message import Message, topic_name_fault
from dsql_outbox.publisher.sinks.port import (
    Answer,
    Keeping,
    NotAttempted,
    Rejected,
    Tombstone,
    at_host,
    key_runs,
)

from .client import Callbacks, KafkaClient, LogLimit
from .reports import Heard, Reports
from .runs import Run, Runs, record
from .url import KafkaSettings

logger = logging.getLogger("dsql_outbox")

_REPORT: Final = 1.0
"""librdkafka checks for timed-out messages once per second, so a report may be this late."""


class KafkaSink:
    """Publishes to Kafka; a message is delivered when all in-sync replicas have it.

    An idempotent producer keeps the order of the messages that it sends, but may send later
    messages after it gave up earlier ones. If 2 and 3 of 1 to 5 time out while the broker is
    away, then 1, 4 and 5 are written (librdkafka's manual, "Message timeout considerations").
    So runs have a producer of their own, whose messages never time out (`Runs`). After a
    run failed, those of its topic go one by one for a while.

    The broker may refuse a request because of one of its messages, which may be of
    different calls. Each of them is sent again by another producer, whose requests
    hold one message.
    """

    system = "kafka"
    keeps_prefix = True
    takes = frozenset({Tombstone})

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self.destination = at_host(settings.hosts[0])
        self._callbacks = Callbacks()
        self._client = KafkaClient(settings, self._callbacks, self._give_up)
        self._alone = KafkaClient(settings.one_per_request(), self._callbacks, self._give_up)
        self._runs = Runs(settings, self._callbacks)
        self._calls: dict[Reports, list[Producer]] = {}
        self._heard = Heard()
        self._log_limit = LogLimit()

    async def connect(self) -> None:
        """Connect. Raises `SinkUnavailable` when no broker answers within the timeout."""
        await self._client.producer()

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()
        await self._alone.close()
        await self._runs.close()

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Publish messages; answers each as its delivery report comes.

        Takes the timeout and two seconds at most, and the timeout again when a producer must
        be opened. For messages without a report in time there are three cases. If other
        messages of the topic were stored, they get no answer, and may be stored. If other
        topics were stored, or a broker answers a question, the topic is `Unavailable`. If
        nothing answers, raises `SinkUnavailable`.
        """
        producer = await self._client.producer()
        # After the opening: from then on, silence is an answer.
        deadline = _now() + self._settings.timeout + _REPORT
        if not messages:
            await self._client.ask(producer)
            return
        sorted_ = self._sort(messages)
        reports = Reports(messages, answer, self._heard, sorted_.chains)
        self._calls[reports] = [producer]
        sent: list[Run] = []
        try:
            with suppress(TimeoutError):  # `_end` sees which messages have no answer
                async with asyncio.timeout_at(deadline):
                    self._produce(producer, reports, messages, sorted_.singles)
                    if sorted_.runs:
                        sent = await self._send_runs(messages, sorted_.runs, reports)
                    await self._collect(reports, messages, producer)
            self._runs.end(sent)
            await self._end(reports, producer)
        finally:
            self._runs.end(sent)
            del self._calls[reports]
            reports.close()

    async def keeping(self, topics: Collection[str], /) -> Sequence[Keeping]:
        """How the brokers keep these topics."""
        return await self._client.keepings(topics)

    def _sort(self, messages: Sequence[Message]) -> "_Sorted":
        """Find the runs.

        A topic that takes none now gets the messages of its runs one by one, and so does a subject
        to whose messages a map gave several keys: these may go to several partitions.
        """
        found = _Sorted([], [], [])
        for run in key_runs(messages):
            topic = messages[run.start].topic
            has_one_key = len({messages[index].broker_key for index in run}) == 1
            takes_run = has_one_key and self._runs.takes(topic) and not topic_name_fault(topic)
            if len(run) > 1 and takes_run:
                found.runs.append(run)
            else:
                found.singles.append(run.start)
                found.chains.append(run)
        return found

    async def _send_runs(
        self, messages: Sequence[Message], runs: Sequence[range], reports: Reports
    ) -> list[Run]:
        try:
            return await self._runs.send(messages, runs, reports)
        except SinkUnavailable:  # the next call asks the usual producer
            for indexes in runs:
                self._runs.rest([messages[indexes.start].topic])
                reports.leave(indexes)
            return []

    async def _collect(
        self, reports: Reports, messages: Sequence[Message], producer: Producer
    ) -> None:
        """Wait for the reports. Meanwhile send what is due, and alone what was refused together.

        A chain goes on in the first half of the time, so that its last message has the other one.
        """
        half = _now() + self._settings.timeout / 2
        self._client.flush_soon()
        while not reports.is_complete:
            await reports.changed.wait()
            reports.changed.clear()
            if due := reports.due:
                reports.due = []
                if _now() < half:
                    self._produce(producer, reports, messages, due)
                    self._client.flush_soon()
                else:
                    reports.leave_chains(due)
            if refused := reports.refused:
                reports.refused = []
                alone = await self._alone.producer()
                self._calls[reports].append(alone)
                self._produce(alone, reports, messages, refused, are_alone=True)
                self._alone.flush_soon()

    async def _end(self, reports: Reports, producer: Producer) -> None:
        if not reports.unanswered:
            if not reports.has_left:
                self._client.note_answers()
            return
        if reports.others_were_heard:
            if self._log_limit.passes():
                text = "%s: a part of it fails, %d messages are without an answer: %s"
                logger.warning(text, self._settings, len(reports.unanswered), reports.reason)
        else:
            self._client.replace(producer)
            if not reports.is_broken:
                await self._client.ask(producer, reports.reason)
            if reports.is_broken:  # perhaps since the question
                raise self._client.unavailable(reports.reason)
        self._runs.rest(reports.silent_topics())
        reports.blame_topics(self._settings.timeout)

    def _produce(
        self,
        producer: Producer,
        reports: Reports,
        messages: Sequence[Message],
        indexes: Iterable[int],
        *,
        are_alone: bool = False,
    ) -> None:
        report = reports.report_alone if are_alone else reports.report
        soon, produce = self._callbacks.call_soon, producer.produce
        for index in indexes:
            message = messages[index]
            if fault := topic_name_fault(message.topic):
                reports.settle(index, Rejected(f"topic {message.topic!r} {fault}"))
                continue
            try:
                produce(**record(message), on_delivery=partial(soon, report, index))
            except KafkaException as error:
                reports.report_alone(index, error.args[0], None)
            except BufferError:  # librdkafka's queue is full
                reports.settle(index, NotAttempted())

    def _give_up(self, producer: Producer, reason: str) -> None:
        """End the calls that wait for a producer which has stopped, and only those."""
        for reports, producers in self._calls.items():
            if any(used is producer for used in producers):
                reports.give_up(reason)


class _Sorted(NamedTuple):
    """The messages of a call: those that are sent at once, runs, and runs that go one by one."""

    singles: list[int]
    runs: list[range]
    chains: list[range]


def _now() -> float:
    return asyncio.get_running_loop().time()
