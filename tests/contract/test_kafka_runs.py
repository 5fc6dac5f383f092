"""Runs on Kafka: a producer of their own, and one by one after a failure."""

from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from confluent_kafka import KafkaError
from msgspec.structs import replace
from tests.support.brokers.kafka_mock import MockKafka
from tests.support.brokers.kafka_reader import read_all, read_partitions
from tests.support.brokers.readable_brokers import kafka_attributes

from dsql_outbox.brokers.kafka.runs import Run, Runs
from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import MAX_RUN, Delivered, Rejected, Unavailable
from dsql_outbox.testing.sink_contract import Answers, new_message, published
from dsql_outbox.testing.sink_contract.sent_messages import deliver_runs

pytestmark = pytest.mark.anyio

TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE
NO_ERROR = 0


def run(length: int, key: str = "Loan/1", topic: str = "one.X") -> list[Message]:
    """Messages of one key."""
    return [new_message(key, topic=topic) for _ in range(length)]


def stored(cluster: MockKafka, key: str = "Loan/1") -> list[str]:
    """The events of the key, in the order of its partition."""
    found = [kafka_attributes(m.headers()) for m in read_partitions(cluster.bootstrap)]
    return [each["id"] for each in found if each["subject"] == key]


def wanted(messages: Sequence[Message]) -> list[str]:
    """The same of messages that were sent."""
    return [str(message.event_id) for message in messages]


@pytest.fixture
def one_per_request(tmp_path: Path) -> str:
    """The parameter of a sink whose requests hold one message."""
    file = tmp_path / "one.properties"
    file.write_text("batch.num.messages=1\n")
    return f"config={file}"


async def test_the_messages_of_a_run_are_stored_in_order_in_one_partition(
    kafka_cluster: MockKafka,
) -> None:
    kafka_cluster.make_topic("one.X", 6)
    keys = [f"Loan/{n}" for n in range(20)]
    runs = [run(length, key) for key, length in zip(keys, [*range(2, 21), MAX_RUN], strict=True)]
    later = [run(3, key) for key in keys]

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}") as sink:
        for each in runs, later:
            messages = [message for found in each for message in found]
            assert await published(sink, messages) == [Delivered()] * len(messages)
        single = run(1, "Loan/3")
        assert await published(sink, single) == [Delivered()]

    for key, first, second in zip(keys, runs, later, strict=True):
        more = single if key == "Loan/3" else []
        assert stored(kafka_cluster, key) == wanted([*first, *second, *more])
    places = {(m.key(), m.partition()) for m in read_all(kafka_cluster.bootstrap)}
    assert len(places) == len(keys)


async def test_a_run_with_keys_of_a_map_keeps_its_order_and_each_key_its_partition(
    kafka_cluster: MockKafka,
) -> None:
    kafka_cluster.make_topic("one.X", 6)
    keys = [f"L-{n}" for n in range(5)]
    alone = [new_message(key, topic="one.X") for key in keys]
    mixed = [replace(each, wire_key=keys[n // 3 % 5]) for n, each in enumerate(run(30))]
    equal = [replace(each, wire_key="L-0") for each in run(30, "Loan/2")]

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}") as sink:
        for sent in alone, [*mixed, *equal]:
            assert await published(sink, sent) == [Delivered()] * len(sent)

    found = read_all(kafka_cluster.bootstrap)
    by_id = {kafka_attributes(m.headers())["id"]: m.key() for m in found}
    assert [by_id[each] for each in wanted(mixed)] == [m.broker_key.encode() for m in mixed]
    assert len({(m.key(), m.partition()) for m in found}) == len(keys)
    assert stored(kafka_cluster, "Loan/2") == wanted(equal)


async def test_nothing_follows_the_first_message_of_a_run_that_is_refused(
    kafka_cluster: MockKafka, one_per_request: str
) -> None:
    """A broker that does not know the producer would take the second one."""
    kafka_cluster.make_topic("one.X")

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?{one_per_request}") as sink:
        kafka_cluster.refuse_next(TOO_LARGE)
        outcomes = await published(sink, run(5))

    assert Delivered() not in outcomes
    assert stored(kafka_cluster) == []


async def test_a_run_ends_at_the_message_that_is_refused(
    kafka_cluster: MockKafka, one_per_request: str
) -> None:
    kafka_cluster.make_topic("one.X")
    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?{one_per_request}") as sink:
        kafka_cluster.refuse_next(NO_ERROR, NO_ERROR, NO_ERROR, TOO_LARGE)
        outcomes = await published(sink, run(6))

    assert outcomes[:3] == [Delivered()] * 3
    assert Delivered() not in outcomes[3:]
    # What is stored then is a question to a real broker, which checks sequence numbers.


async def test_a_run_of_which_a_message_is_refused_goes_one_by_one(
    kafka_cluster: MockKafka, one_per_request: str
) -> None:
    """The last one is, so no request of its producer is on its way when the others are sent."""
    kafka_cluster.make_topic("one.X")
    messages = run(6)

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?{one_per_request}") as sink:
        kafka_cluster.refuse_next(NO_ERROR, NO_ERROR, NO_ERROR, TOO_LARGE)
        first = await published(sink, messages[:4])
        kafka_cluster.refuse_next(NO_ERROR, TOO_LARGE, TOO_LARGE)
        second = await published(sink, messages[3:])
        third = await published(sink, messages[5:])

    assert first[:3] == [Delivered()] * 3
    assert first[3] != Delivered()
    assert second[0] == Delivered()
    assert isinstance(second[1], Rejected)  # asked again alone
    assert second[2:] != [Delivered()]
    assert third == [Delivered()]


async def test_a_message_over_the_clients_own_limit_ends_its_run(
    kafka_cluster: MockKafka, tmp_path: Path
) -> None:
    file = tmp_path / "client.properties"
    file.write_text("message.max.bytes=2000\n")
    messages = run(9)
    messages[4] = new_message(payload=b"x" * 2000, topic="one.X")

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?config={file}") as sink:
        first = await published(sink, messages)
        second = await published(sink, messages[4:])

    assert first[:4] == [Delivered()] * 4
    assert Delivered() not in first[4:]
    assert isinstance(second[0], Rejected)
    assert Delivered() not in second
    assert stored(kafka_cluster) == wanted(messages[:4])


async def test_a_run_to_a_missing_topic_is_unavailable_at_its_first_message(
    kafka_cluster: MockKafka,
) -> None:
    kafka_cluster.refuse_topic("late.X", KafkaError.UNKNOWN_TOPIC_OR_PART)
    late, other = run(3, topic="late.X"), run(3, "Loan/2")

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?timeout=2") as sink:
        await deliver_runs(sink, run(2, "Loan/2"))
        outcomes = await published(sink, [*late, *other])
        kafka_cluster.refuse_topic("late.X", NO_ERROR)
        await deliver_runs(sink, late)

    assert isinstance(outcomes[0], Unavailable)
    assert Delivered() not in outcomes[:3]
    assert stored(kafka_cluster) == wanted(late)


async def test_after_silence_the_rest_of_a_run_is_not_sent_by_the_old_producer(
    kafka_mock: MockKafka,
) -> None:
    kafka_mock.make_topic("one.X")
    messages = run(10)

    async with open_sink(f"kafka://{kafka_mock.bootstrap}?timeout=1") as sink:
        await deliver_runs(sink, run(2))
        before = len(stored(kafka_mock))
        with kafka_mock.silent(1), pytest.raises(SinkUnavailable):
            await published(sink, messages[:6])
        await deliver_runs(sink, messages)

    found = stored(kafka_mock)[before:]
    # What was sent in silence is stored, too, and all of it before the rest.
    assert list(dict.fromkeys(found)) == wanted(messages)
    assert found[-4:] == wanted(messages[6:])


async def test_a_run_that_was_cancelled_is_given_up(
    kafka_mock: MockKafka, one_per_request: str
) -> None:
    kafka_mock.make_topic("one.X")

    async with open_sink(f"kafka://{kafka_mock.bootstrap}?{one_per_request}") as sink:
        await deliver_runs(sink, run(2))
        with kafka_mock.down(1):
            cut = Answers(5)
            with anyio.move_on_after(0.5):
                await sink.publish(run(5), cut)
            cut.end()
        kafka_mock.refuse_next(TOO_LARGE)  # the next producer, which the broker does not know
        assert Delivered() not in await published(sink, run(5))
        await deliver_runs(sink, later := run(5))

    assert stored(kafka_mock)[2:] == wanted(later)


async def test_runs_go_as_a_whole_again_when_the_topic_has_rested(
    kafka_cluster: MockKafka, one_per_request: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsql_outbox.brokers.kafka.runs.REST", 0.0)
    kafka_cluster.make_topic("one.X")

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}?{one_per_request}") as sink:
        for _ in range(3):
            kafka_cluster.refuse_next(NO_ERROR, TOO_LARGE)
            outcomes = await published(sink, messages := run(4))
            assert outcomes[0] == Delivered()
            assert Delivered() not in outcomes[1:]
            await deliver_runs(sink, messages[1:])


async def test_a_run_goes_one_by_one_when_its_producer_cannot_be_opened(
    kafka_cluster: MockKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Runs, *__: object) -> list[Run]:
        raise SinkUnavailable("no more connections")

    async with open_sink(f"kafka://{kafka_cluster.bootstrap}") as sink:
        monkeypatch.setattr(Runs, "send", fail)
        first = await published(sink, messages := run(5))
        second = await published(sink, messages)

    assert Delivered() not in first
    assert second == [Delivered()] * 5
    assert stored(kafka_cluster) == wanted(messages)


async def test_a_run_that_goes_one_by_one_ends_before_its_time_is_over(
    kafka_mock: MockKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runs, "takes", lambda *_: False)
    kafka_mock.make_topic("one.X")

    async with open_sink(f"kafka://{kafka_mock.bootstrap}?timeout=1") as sink:
        await deliver_runs(sink, run(1))
        kafka_mock.answer_late(1, 0.2)
        outcomes = await published(sink, messages := run(20))
        kafka_mock.answer_late(1, 0.0)

    done = outcomes.count(Delivered())
    assert 1 <= done < 20
    assert stored(kafka_mock)[1:] == wanted(messages[:done]), "each message has its answer"
