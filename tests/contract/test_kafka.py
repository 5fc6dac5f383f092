"""What is special about Kafka: its outcomes, on librdkafka's mock cluster and its errors."""

from pathlib import Path

import pytest
from confluent_kafka import KafkaError
from tests.support.brokers.kafka_broker import read_all
from tests.support.brokers.kafka_mock import MockKafka
from tests.support.brokers.readable_brokers import KafkaBroker
from tests.support.publisher.sent_messages import deliver, new_message

from dsql_outbox.outbox import Message, SettingsError, SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered, NotAttempted, Rejected, Retry

pytestmark = pytest.mark.anyio

TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE


@pytest.fixture
def one_request(tmp_path: Path) -> str:
    """A parameter with which all messages of a batch go in one request, however slow we are."""
    file = tmp_path / "client.properties"
    file.write_text("linger.ms=900\n")
    return f"config={file}"


def of_one_partition(count: int) -> list[Message]:
    """Messages of different keys for a topic with one partition."""
    return [new_message(key=f"Loan/{n}", topic="one.X") for n in range(count)]


# --- what a consumer gets --------------------------------------------------------------


async def test_a_message_has_the_subject_as_key_and_headers_by_the_binding(
    kafka_broker: KafkaBroker,
) -> None:
    message = new_message(key="Loan/Zo%C3%AB", entities="Loan/Zoë@1", payload=b'{"a": 1}')

    async with kafka_broker.open() as sink:
        assert await sink.publish([message]) == [Delivered()]

    (stored,) = read_all(kafka_broker.bootstrap)
    assert (stored.topic(), stored.key(), stored.value()) == (
        "events.LoanCreated",
        b"Loan/Zo%C3%AB",
        b'{"a": 1}',
    )
    assert stored.headers() == [
        ("dedupe-id", message.dedupe_id.encode()),
        ("ce_specversion", b"1.0"),
        ("ce_id", str(message.event_id).encode()),
        ("ce_source", b"/tests"),
        ("ce_type", b"LoanCreated"),
        ("content-type", b"application/json"),
        ("ce_subject", b"Loan/Zo%C3%AB"),
        ("traceparent", message.headers["traceparent"].encode()),
        ("ce_entities", "Loan/Zoë@1".encode()),
    ]


async def test_a_key_is_in_the_partition_that_java_would_choose(kafka_cluster: MockKafka) -> None:
    kafka_cluster.make_topic("many.X", 12)
    async with open_sink(f"kafka://{kafka_cluster.bootstrap}") as sink:
        await sink.publish([new_message(key=f"Loan/{n}", topic="many.X") for n in range(3)])

    found = {m.key(): m.partition() for m in read_all(kafka_cluster.bootstrap)}
    assert found == {b"Loan/0": 3, b"Loan/1": 2, b"Loan/2": 11}


# --- outcomes --------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["", "a b", "a/b", "Zoë", "a\0b", ".", "..", "a" * 250])
async def test_a_topic_that_is_none_is_rejected_and_sends_nothing(
    kafka_cluster: MockKafka, topic: str
) -> None:
    async with open_sink(f"kafka://{kafka_cluster.bootstrap}") as sink:
        bad, good = await sink.publish([new_message(topic=topic), new_message()])

    assert isinstance(bad, Rejected)
    assert repr(topic) in bad.error
    assert good == Delivered()
    assert len(read_all(kafka_cluster.bootstrap)) == 1


async def test_a_topic_that_is_missing_may_come_and_the_error_says_so(
    kafka_cluster: MockKafka,
) -> None:
    kafka_cluster.refuse_topic("late.X", KafkaError.UNKNOWN_TOPIC_OR_PART)
    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?timeout=1") as sink:
        missing, good = await sink.publish([new_message(topic="late.X"), new_message()])

    assert missing == Retry(
        "there is no topic late.X: make it, or let the broker make topics itself"
    )
    assert good == Delivered()


async def test_a_message_over_the_clients_own_limit_is_rejected(
    kafka_cluster: MockKafka, tmp_path: Path
) -> None:
    file = tmp_path / "client.properties"
    file.write_text("message.max.bytes=2000\n")

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?config={file}") as sink:
        large, fits = await sink.publish([new_message(payload=b"x" * 2000), new_message()])

    assert isinstance(large, Rejected)
    assert "Message size too large" in large.error
    assert fits == Delivered()


@pytest.mark.parametrize("code", [TOO_LARGE, KafkaError.INVALID_RECORD])
async def test_what_the_broker_refuses_in_a_request_of_several_is_asked_again_alone(
    kafka_cluster: MockKafka, one_request: str, code: int
) -> None:
    kafka_cluster.make_topic("one.X")
    messages = of_one_partition(3)

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?{one_request}") as sink:
        kafka_cluster.refuse_next(code, code)
        first, *others = await sink.publish(messages)

    assert isinstance(first, Rejected)
    assert others == [Delivered()] * 2
    arrived = [m.key() for m in read_all(kafka_cluster.bootstrap)]
    assert arrived == [b"Loan/1", b"Loan/2"]


async def test_what_may_be_mended_is_to_be_sent_again_later(kafka_cluster: MockKafka) -> None:
    async with open_sink(f"kafka://{kafka_cluster.bootstrap}") as sink:
        kafka_cluster.refuse_next(KafkaError.TOPIC_AUTHORIZATION_FAILED)
        (outcome,) = await sink.publish([new_message()])

    assert isinstance(outcome, Retry)
    assert "Topic authorization failed" in outcome.error


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.REQUEST_TIMED_OUT,
    ],
)
async def test_what_passes_by_itself_is_no_outcome_and_makes_no_duplicate(
    kafka_cluster: MockKafka, one_request: str, code: int
) -> None:
    kafka_cluster.make_topic("one.X")
    messages = of_one_partition(3)

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?{one_request}") as sink:
        kafka_cluster.refuse_next(code)
        assert await sink.publish(messages) == [Delivered()] * 3

    arrived = [m.key() for m in read_all(kafka_cluster.bootstrap)]
    assert arrived == [b"Loan/0", b"Loan/1", b"Loan/2"]


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.PRODUCER_FENCED,
    ],
)
async def test_a_producer_that_has_gone_wrong_counts_against_no_message_and_is_replaced(
    kafka_cluster: MockKafka, code: int
) -> None:
    message = new_message()

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}") as sink:
        kafka_cluster.refuse_next(code)
        with pytest.raises(SinkUnavailable):
            await sink.publish([message])

        assert await sink.publish([message]) == [Delivered()]


async def test_where_a_part_of_the_cluster_is_down_its_messages_count_as_not_attempted(
    kafka_cluster: MockKafka, caplog: pytest.LogCaptureFixture
) -> None:
    kafka_cluster.make_topic("events.LoanCreated", 3)
    messages = [new_message(key=f"Loan/{n}") for n in range(30)]

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?timeout=1") as sink:
        await deliver(sink, messages)
        kafka_cluster.take_down(2)
        outcomes = await sink.publish(messages)
        kafka_cluster.bring_up(2)
        await deliver(sink, messages)

    assert set(outcomes) == {Delivered(), NotAttempted()}
    silent = outcomes.count(NotAttempted())
    assert f"a part of it fails, {silent} of 30 messages are without an answer" in caplog.text


async def test_what_does_not_fit_in_the_clients_queue_is_not_attempted(
    kafka_cluster: MockKafka, tmp_path: Path
) -> None:
    file = tmp_path / "client.properties"
    file.write_text("queue.buffering.max.messages=2\nlinger.ms=900\n")

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?config={file}") as sink:
        outcomes = await sink.publish([new_message(key=f"Loan/{n}") for n in range(4)])

    assert outcomes == [Delivered()] * 2 + [NotAttempted()] * 2


# --- settings that only librdkafka can judge -------------------------------------------


async def test_a_setting_that_librdkafka_refuses_is_told_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text("sasl.password=s3cret\nsasl.mechanism=s3cret\nsecurity.protocol=sasl_ssl\n")

    with pytest.raises(SettingsError, match=r"Unsupported SASL mechanism: \*\*\*") as refused:
        async with open_sink(f"kafka://a?config={file}"):
            pass

    assert "s3cret" not in repr(refused.value)


async def test_a_setting_that_librdkafka_does_not_know_is_named(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text("retires=3\n")

    with pytest.raises(SettingsError, match=r'No such configuration property: "retires"'):
        async with open_sink(f"kafka://a?config={file}"):
            pass
