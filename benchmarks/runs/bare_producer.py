"""librdkafka's producer alone, with the settings that shall keep the prefix of a run."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher.sinks import Answer, Delivered, Rejected
from dsql_outbox.publisher.sinks.cloudevents import kafka_headers

SETTINGS: Final = {
    "enable.idempotence": True,
    "acks": "all",
    "message.timeout.ms": 0,
    "max.in.flight.requests.per.connection": 1,
    "message.max.bytes": 100_000_000,
    "reconnect.backoff.max.ms": 1000,
    "log_level": 0,
}


class BareProducer:
    """A sink for runs: what has no report at the deadline is purged, and the producer dropped."""

    system = "kafka"

    def __init__(
        self, bootstrap: str, deadline: float, more: Callable[[], Mapping[str, object]]
    ) -> None:
        self._settings = {**SETTINGS, "bootstrap.servers": bootstrap}
        self._more = more
        self._deadline = deadline
        self._producer: _Served | None = None

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Produce a run; the answers end at the first message that is not stored."""
        if self._producer is None:
            self._producer = _Served(
                Producer({**self._settings, **self._more()}), asyncio.get_running_loop()
            )
        used = self._producer
        reports = _RunReports(len(messages))
        try:
            for index, message in enumerate(messages):
                used.producer.produce(
                    message.topic,
                    value=message.payload,
                    key=message.key.encode(),
                    headers=kafka_headers(message),
                    on_delivery=partial(used.soon, reports.take, index),
                )
            async with asyncio.timeout(self._deadline):
                await reports.ended.wait()
        except (TimeoutError, KafkaException):
            pass
        if any(error is not None for error in reports.found.values()) or not reports.is_full:
            self._drop(used)
        for index in range(len(messages)):
            if index not in reports.found:
                break
            error = reports.found[index]
            if error is None:
                answer(index, Delivered())
                continue
            if error.name() == "MSG_SIZE_TOO_LARGE" and len(messages) == 1:
                answer(index, Rejected("too large"))
            break
        if not reports.found:
            raise SinkUnavailable("no report")

    def _drop(self, used: "_Served") -> None:
        if self._producer is used:
            self._producer = None
        used.drop()

    def close(self) -> None:
        """Drop the producer."""
        if self._producer is not None:
            self._drop(self._producer)


class _RunReports:
    def __init__(self, size: int) -> None:
        self.found: dict[int, KafkaError | None] = {}
        self.ended = asyncio.Event()
        self._size = size

    @property
    def is_full(self) -> bool:
        return len(self.found) == self._size

    def take(self, index: int, error: KafkaError | None, _: object) -> None:
        self.found.setdefault(index, error)
        if error is not None or self.is_full:
            self.ended.set()


class _Served:
    """A producer and the thread that runs its callbacks."""

    def __init__(self, producer: Producer, loop: asyncio.AbstractEventLoop) -> None:
        self.producer = producer
        self._loop = loop
        self._is_dropped = False
        threading.Thread(target=self._serve, daemon=True).start()

    def soon(self, call: Any, *args: object) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call, *args)

    def drop(self) -> None:
        if not self._is_dropped:
            self._is_dropped = True
            with suppress(KafkaException):
                self.producer.purge()

    def _serve(self) -> None:
        while not self._is_dropped or len(self.producer):
            with suppress(KafkaException):
                self.producer.poll(0.05)
