"""Delivery reports that get lost or fail, and a principal that may not write at all."""

import subprocess
import sys
from contextlib import suppress
from typing import Any, ClassVar, Final

import anyio
import anyio.lowlevel
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from tests.support.brokers.kafka_mock import INIT_PRODUCER_ID, MockKafka

from dsql_outbox.brokers.kafka import client
from dsql_outbox.brokers.kafka.reports import outcome_of
from dsql_outbox.outbox import SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import (
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Retry,
    Unavailable,
)
from dsql_outbox.testing.sink_contract import Answers, deliver, new_message, published

# --- a report that does not come through -----------------------------------------------


class _Losing(Producer):
    """A producer that loses the report of a message with the key Loan/1, once."""

    is_harmed = False

    def produce(self, topic: str, **given: Any) -> None:
        if given["key"] == b"Loan/1" and not self.is_harmed:
            type(self).is_harmed = True
            given["on_delivery"] = self.harm
        super().produce(topic, **given)

    def harm(self, *_: object) -> None:
        """Say nothing."""


class _Failing(_Losing):
    """A producer whose report fails, as under an exception that waits to be raised."""

    def harm(self, *_: object) -> None:
        raise SystemError("returned a result with an exception set")


@pytest.mark.anyio
@pytest.mark.parametrize("producer", [_Losing, _Failing])
async def test_a_message_whose_report_is_lost_or_fails_has_no_answer_when_its_time_is_up(
    kafka_cluster: MockKafka, monkeypatch: pytest.MonkeyPatch, producer: type[_Losing]
) -> None:
    monkeypatch.setattr(client, "Producer", producer)
    monkeypatch.setattr(producer, "is_harmed", False)
    kafka_cluster.make_topic("one.X")
    messages = [new_message(key=f"Loan/{n}", topic="one.X") for n in range(3)]

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?timeout=1") as sink:
        await deliver(sink, messages[:1])  # connected, and a producer that knows the topic
        with anyio.fail_after(5):
            first, harmed, _ = await published(sink, messages)
        await deliver(sink, messages)

    assert (first, harmed) == (Delivered(), NotAttempted())


class _Stopping(Producer):
    """A producer that loses the report of the key Loan/old, and stops for good on request."""

    made: ClassVar[list["_Stopping"]] = []

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.is_over = False
        self.is_used = False
        self.made.append(self)

    def produce(self, topic: str, **given: Any) -> None:
        if given["key"] == b"Loan/old":
            del given["on_delivery"]
        super().produce(topic, **given)
        self.is_used = True

    def flush(self, *given: Any) -> int:
        if self.is_over:
            raise KafkaException(KafkaError(KafkaError._FATAL, "stopped", fatal=True))
        return super().flush(*given)


@pytest.mark.anyio
async def test_a_producer_that_stops_ends_only_the_calls_that_wait_for_it(
    kafka_cluster: MockKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "Producer", _Stopping)
    monkeypatch.setattr(_Stopping, "made", [])
    for topic, broker in ("one.X", 1), ("two.X", 2):
        kafka_cluster.make_topic(topic)
        kafka_cluster.lead(topic, broker)
    new = Answers(1)

    async def publish_old() -> None:
        with anyio.fail_after(5), suppress(SinkUnavailable):  # else it waits for eleven seconds
            assert await published(sink, [new_message(key="Loan/old", topic="one.X")]) == [
                NotAttempted()
            ]

    second_broker = kafka_cluster.bootstrap.split(",")[1]
    async with open_sink(f"kafka://{second_broker}?timeout=10") as sink:
        await deliver(sink, [new_message(topic="one.X")])
        (first,) = _Stopping.made
        kafka_cluster.answer_late(1, 30)  # so the first producer waits, however busy we are
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish_old)
            await anyio.wait_all_tasks_blocked()
            vars(sink)["_client"].replace(first)  # as another call that failed does
            tasks.start_soon(sink.publish, [new_message(topic="two.X")], new)
            with anyio.fail_after(5):
                while len(_Stopping.made) < 2 or not _Stopping.made[1].is_used:
                    await anyio.lowlevel.checkpoint()
            first.is_over = True

    assert new.outcomes == [Delivered()]


# --- a principal that may not write ----------------------------------------------------

_OPENINGS: Final = 12
_PUBLISH: Final = """
import asyncio, sys
from contextlib import suppress
from dsql_outbox.testing.sink_contract import new_message, published
from dsql_outbox.outbox import SinkUnavailable
from dsql_outbox.publisher import Unavailable, open_sink

async def call(sink):
    try:
        outcomes = await published(sink, [new_message(key=f"Loan/{n}") for n in range(20)])
    except SinkUnavailable:
        print("unavailable")
    else:  # the time was over before the broker had refused
        print("unavailable" if {type(each) for each in outcomes} == {Unavailable} else outcomes)

async def opening():
    is_open = False
    while not is_open:
        with suppress(SinkUnavailable):  # a busy machine takes longer than the timeout to connect
            async with open_sink(sys.argv[1]) as sink:
                is_open = True
                for _ in range(2):
                    await asyncio.gather(*[call(sink) for _ in range(4)])

async def main():
    await asyncio.gather(*[opening() for _ in range(int(sys.argv[2]))])

asyncio.run(main())
print("ends")
"""
"""Open the sink several times at once, and publish in two rounds of four calls."""


def test_a_process_whose_principal_may_not_write_ends(kafka_cluster: MockKafka) -> None:
    denied = [KafkaError.CLUSTER_AUTHORIZATION_FAILED] * 2_000
    kafka_cluster.refuse_next(*denied, request=INIT_PRODUCER_ID)
    for broker in (1, 2, 3):
        kafka_cluster.answer_late(broker, 0.02)  # so the fatal error comes among the messages

    words = [_PUBLISH, f"kafka://{kafka_cluster.bootstrap}?timeout=0.5", str(_OPENINGS)]
    done = subprocess.run(
        [sys.executable, "-c", *words], check=False, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["unavailable"] * _OPENINGS * 8 + ["ends"]


# --- what an error blames --------------------------------------------------------------

_REJECTED: Final = {
    "INVALID_RECORD",
    "MSG_SIZE_TOO_LARGE",
    "RECORD_LIST_TOO_LARGE",
    "TOPIC_EXCEPTION",
}
_RETRIED: Final = {"INVALID_MSG", "INVALID_MSG_SIZE", "_INVALID_DIFFERENT_RECORD"}
_OF_THE_TOPIC: Final = {
    "FENCED_LEADER_EPOCH",
    "INCONSISTENT_TOPIC_ID",
    "INVALID_TIMESTAMP",
    "KAFKA_STORAGE_ERROR",
    "LEADER_NOT_AVAILABLE",
    "NOT_ENOUGH_REPLICAS",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    "NOT_LEADER_FOR_PARTITION",
    "POLICY_VIOLATION",
    "REPLICA_NOT_AVAILABLE",
    "THROTTLING_QUOTA_EXCEEDED",
    "TOPIC_AUTHORIZATION_FAILED",
    "UNKNOWN_LEADER_EPOCH",
    "UNKNOWN_TOPIC_ID",
    "UNKNOWN_TOPIC_OR_PART",
    "UNSUPPORTED_COMPRESSION_TYPE",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT",
    "_UNKNOWN_PARTITION",
    "_UNKNOWN_TOPIC",
}


def test_only_an_error_that_names_the_record_blames_a_message() -> None:
    """Of all errors that librdkafka knows."""
    codes = {name: code for name, code in vars(KafkaError).items() if isinstance(code, int)}
    blamed = {name: outcome_of(KafkaError(code), "events.X") for name, code in codes.items()}

    def named(kind: type[Outcome]) -> set[str]:
        return {name for name, outcome in blamed.items() if isinstance(outcome, kind)}

    assert len(codes) > 150
    assert named(Rejected) == _REJECTED
    assert named(Retry) == _RETRIED
    assert named(Unavailable) == _OF_THE_TOPIC


class _Refusing(Producer):
    """A producer that reports an error for a message with the key Loan/1, once."""

    error: ClassVar[KafkaError | None] = None

    def produce(self, topic: str, **given: Any) -> None:
        if given["key"] == b"Loan/1" and self.error is not None:
            given["on_delivery"](self.error, None)
            type(self).error = None
        else:
            super().produce(topic, **given)


@pytest.mark.anyio
@pytest.mark.parametrize("beside", ["its topic", "another topic", "nothing"])
@pytest.mark.parametrize("name", ["_DESTROY", "SASL_AUTHENTICATION_FAILED", "UNKNOWN"])
async def test_after_an_unclear_error_the_answers_for_other_messages_say_what_failed(
    kafka_cluster: MockKafka, monkeypatch: pytest.MonkeyPatch, name: str, beside: str
) -> None:
    monkeypatch.setattr(client, "Producer", _Refusing)
    monkeypatch.setattr(_Refusing, "error", None)
    topics = {"its topic": ["one.X"], "another topic": ["two.X"], "nothing": []}[beside]
    others = [new_message(key="Loan/2", topic=topic) for topic in topics]
    harmed = new_message(key="Loan/1", topic="one.X")

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}") as sink:
        await deliver(sink, [harmed, *others])
        _Refusing.error = KafkaError(getattr(KafkaError, name))
        outcome, *rest = await published(sink, [harmed, *others])
        await deliver(sink, [harmed, *others])

    assert rest == [Delivered()] * len(others)
    if beside == "its topic":
        assert outcome == NotAttempted()
    else:
        assert isinstance(outcome, Unavailable)
        assert f"({name})" in outcome.error


@pytest.mark.anyio
async def test_after_an_unclear_error_a_run_goes_one_by_one_and_counts_against_no_message(
    kafka_cluster: MockKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "Producer", _Refusing)
    monkeypatch.setattr(_Refusing, "error", KafkaError(KafkaError._DESTROY))
    run = [new_message(key="Loan/1", topic="one.X", dedupe_id=f"{n}") for n in range(3)]

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}") as sink:
        ended = await published(sink, run)
        assert not vars(sink)["_runs"].takes("one.X")
        one_by_one = await published(sink, run)

    assert ended == [NotAttempted()] * 3
    assert one_by_one == [Delivered()] * 3
