"""What is special about Kafka: its outcomes, on librdkafka's mock cluster and its errors."""

from pathlib import Path

import anyio
import pytest
from confluent_kafka import KafkaError
from tests.support.brokers.kafka_mock import MockKafka
from tests.support.brokers.kafka_reader import read_all
from tests.support.brokers.readable_brokers import KafkaBroker

from dsql_outbox.outbox import Message, SettingsError, SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered, NotAttempted, Rejected, Unavailable
from dsql_outbox.testing.sink_contract import Answers, deliver, new_message, published

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
        assert await published(sink, [message]) == [Delivered()]

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
        await published(sink, [new_message(key=f"Loan/{n}", topic="many.X") for n in range(3)])

    found = {m.key(): m.partition() for m in read_all(kafka_cluster.bootstrap)}
    assert found == {b"Loan/0": 3, b"Loan/1": 2, b"Loan/2": 11}


# --- outcomes --------------------------------------------------------------------------


async def test_a_topic_that_is_none_is_rejected_and_sends_nothing(
    kafka_cluster: MockKafka,
) -> None:
    topics = ["", "a b", "a/b", "Zoë", "a\0b", ".", "..", "a" * 250]
    async with open_sink(f"kafka://{kafka_cluster.bootstrap}") as sink:
        messages = [new_message(key=f"Loan/{topic!r}", topic=topic) for topic in topics]
        *bad, good = await published(sink, [*messages, new_message(key="Loan/2")])

    for topic, outcome in zip(topics, bad, strict=True):
        assert isinstance(outcome, Rejected)
        assert repr(topic) in outcome.error
    assert good == Delivered()
    assert len(read_all(kafka_cluster.bootstrap)) == 1


async def test_a_topic_that_is_missing_is_unavailable_and_the_error_says_so(
    kafka_cluster: MockKafka,
) -> None:
    kafka_cluster.refuse_topic("late.X", KafkaError.UNKNOWN_TOPIC_OR_PART)
    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?timeout=1") as sink:
        missing, good = await published(
            sink, [new_message(topic="late.X"), new_message(key="Loan/2")]
        )

    assert missing == Unavailable(
        "there is no topic late.X: make it, or let the broker make topics itself"
    )
    assert good == Delivered()


async def test_a_message_over_the_clients_own_limit_is_rejected(
    kafka_cluster: MockKafka, tmp_path: Path
) -> None:
    file = tmp_path / "client.properties"
    file.write_text("message.max.bytes=2000\n")

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?config={file}") as sink:
        large, fits = await published(
            sink, [new_message(payload=b"x" * 2000), new_message(key="Loan/2")]
        )

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
        first, *others = await published(sink, messages)

    assert isinstance(first, Rejected)
    assert others == [Delivered()] * 2
    arrived = [m.key() for m in read_all(kafka_cluster.bootstrap)]
    assert arrived == [b"Loan/1", b"Loan/2"]


async def test_a_topic_without_the_right_to_write_is_unavailable(kafka_cluster: MockKafka) -> None:
    denied = KafkaError.TOPIC_AUTHORIZATION_FAILED
    async with open_sink(f"kafka://{kafka_cluster.bootstrap}") as sink:
        kafka_cluster.refuse_next(denied)
        to_write = await published(sink, [new_message()])
        kafka_cluster.refuse_topic("secret.X", denied)
        to_look = await published(sink, [new_message(topic="secret.X")])

    for (outcome,) in (to_write, to_look):
        assert isinstance(outcome, Unavailable)
        assert "Topic authorization failed (TOPIC_AUTHORIZATION_FAILED)" in outcome.error


@pytest.mark.parametrize(
    "code", [KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND]
)
async def test_a_topic_that_is_silent_is_unavailable_while_the_broker_answers(
    kafka_cluster: MockKafka, code: int
) -> None:
    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?timeout=1") as sink:
        await deliver(sink, [new_message()])
        kafka_cluster.refuse_next(*[code] * 1000)
        (outcome,) = await published(sink, [new_message()])
        kafka_cluster.refuse_next()
        await deliver(sink, [new_message()])

    assert isinstance(outcome, Unavailable)
    assert "no acknowledgement for topic events.LoanCreated within 1 s" in outcome.error
    assert "min.insync.replicas" in outcome.error


async def test_a_topic_without_a_leader_is_unavailable(kafka_cluster: MockKafka) -> None:
    kafka_cluster.refuse_topic("late.X", KafkaError.LEADER_NOT_AVAILABLE)
    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?timeout=1") as sink:
        silent, good = await published(
            sink, [new_message(topic="late.X"), new_message(key="Loan/2")]
        )

    assert isinstance(silent, Unavailable)
    assert good == Delivered()


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
        assert await published(sink, messages) == [Delivered()] * 3

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
            await published(sink, [message])

        assert await published(sink, [message]) == [Delivered()]


async def test_where_a_part_of_the_cluster_is_down_its_messages_count_as_not_attempted(
    kafka_cluster: MockKafka, caplog: pytest.LogCaptureFixture
) -> None:
    kafka_cluster.make_topic("events.LoanCreated", 3)
    messages = [new_message(key=f"Loan/{n}") for n in range(30)]

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?timeout=3") as sink:
        await deliver(sink, messages)
        kafka_cluster.take_down(2)
        outcomes = await published(sink, messages)
        kafka_cluster.bring_up(2)
        await deliver(sink, messages)

    assert set(outcomes) == {Delivered(), NotAttempted()}
    silent = outcomes.count(NotAttempted())
    assert f"a part of it fails, {silent} messages are without an answer" in caplog.text


async def test_a_call_for_the_part_that_is_down_is_no_unavailable_sink_while_others_are_answered(
    kafka_cluster: MockKafka, caplog: pytest.LogCaptureFixture
) -> None:
    topics = {"one.X": 1, "two.X": 2, "three.X": 3}
    for topic, broker in topics.items():
        kafka_cluster.make_topic(topic)
        kafka_cluster.lead(topic, broker)
    messages = [new_message(topic=topic) for topic in topics]
    answers = {message.topic: Answers(1) for message in messages}

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?timeout=1") as sink:
        await deliver(sink, messages)
        kafka_cluster.take_down(2)
        async with anyio.create_task_group() as tasks:
            for message in messages:
                tasks.start_soon(sink.publish, [message], answers[message.topic])

    assert answers["one.X"].outcomes + answers["three.X"].outcomes == [Delivered()] * 2
    assert isinstance(answers["two.X"].outcomes[0], Unavailable)
    assert len([record for record in caplog.records if "a part of it fails" in record.msg]) == 1


async def test_answers_come_while_other_partitions_and_other_calls_wait(
    kafka_cluster: MockKafka,
) -> None:
    kafka_cluster.make_topic("events.LoanCreated", 3)
    mixed = Answers(30)

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}") as sink:
        await deliver(sink, [new_message(key=f"Loan/{n}") for n in range(30)])
        kafka_cluster.answer_late(2, 2)
        async with anyio.create_task_group() as tasks:
            messages = [new_message(key=f"Loan/{n}") for n in range(30)]
            tasks.start_soon(sink.publish, messages, mixed)
            await mixed.next()
            with anyio.fail_after(1.9):
                assert await published(sink, [new_message(key="Loan/0")]) == [Delivered()]
            assert 0 < len(mixed.order) < 30

    assert mixed.outcomes == [Delivered()] * 30


async def test_a_message_refused_together_with_one_of_another_call_is_delivered(
    kafka_cluster: MockKafka, one_request: str
) -> None:
    kafka_cluster.make_topic("one.X")
    calls = [(message, Answers(1)) for message in of_one_partition(3)]

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?{one_request}") as sink:
        kafka_cluster.refuse_next(TOO_LARGE, TOO_LARGE)
        async with anyio.create_task_group() as tasks:
            for message, answers in calls:
                tasks.start_soon(sink.publish, [message], answers)

    found = [type(answers.outcomes[0]) for _, answers in calls]
    assert sorted(outcome.__name__ for outcome in found) == ["Delivered", "Delivered", "Rejected"]


async def test_what_does_not_fit_in_the_clients_queue_is_not_attempted(
    kafka_cluster: MockKafka, tmp_path: Path
) -> None:
    file = tmp_path / "client.properties"
    file.write_text("queue.buffering.max.messages=2\nlinger.ms=900\n")

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?config={file}") as sink:
        outcomes = await published(sink, [new_message(key=f"Loan/{n}") for n in range(4)])

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
