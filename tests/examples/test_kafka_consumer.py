"""examples/kafka: its consumer keeps the order of each subject, however it fails or ends.

It reads librdkafka's mock cluster, which serves groups, or the Kafka of `make real-brokers`.
"""

import signal
from collections.abc import Iterator
from itertools import count
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.support.brokers.kafka_mock import mock_kafka
from tests.support.brokers.running_broker import URL
from tests.support.example_consumers import (
    ALL,
    Service,
    billed,
    handle_all,
    moves,
    new_kafka_consumer,
)

from dsql_outbox import UnreadableMessage
from dsql_outbox.publisher import Delivered, open_sink
from dsql_outbox.testing.sink_contract import in_order

if urlsplit(URL).scheme not in {"", "kafka"}:
    pytest.skip("another broker is tested", allow_module_level=True)

pytestmark = pytest.mark.anyio


class Kafka:
    """A cluster, and a topic of its four partitions."""

    def __init__(self, bootstrap: str, topic: str, session: str) -> None:
        self.bootstrap = bootstrap
        self.topic = topic
        self.session = session

    async def publish(self, first: int, last: int) -> None:
        """Send these messages of each subject."""
        async with open_sink(f"kafka://{self.bootstrap}?timeout=20") as sink:
            assert set((await in_order(sink, moves(first, last, self.topic))).outcomes) == {
                Delivered()
            }

    def put(self, value: bytes, headers: dict[str, str | bytes | None]) -> None:
        """Send a message that no publisher sends, to each partition."""
        producer = confluent_kafka.Producer({"bootstrap.servers": self.bootstrap})
        for partition in range(4):
            producer.produce(self.topic, value, headers=headers, partition=partition)
        assert producer.flush(20) == 0


@pytest.fixture
def kafka() -> Iterator[Kafka]:
    """A cluster with an empty topic."""
    topic = f"events.{uuid4()}"
    if URL:
        running = Kafka(urlsplit(URL).netloc, topic, "6000")  # the least by default
        admin: Any = AdminClient({"bootstrap.servers": running.bootstrap})
        admin.create_topics([NewTopic(topic, 4)])[topic].result(20)
        yield running
        return
    with mock_kafka(1) as mock:
        mock.assign_at_once()
        mock.make_topic(topic, 4)
        yield Kafka(mock.bootstrap, topic, "1200")


@pytest.fixture
def _ends_by_sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_ends_by_sigterm")
async def test_errors_interrupts_and_messages_of_others_lose_no_order(
    kafka: Kafka, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await kafka.publish(1, 10)
    kafka.put(b"a secret", {})
    kafka.put(b"a secret", {"dedupe-id": b"1", "ce_id": b"1"})
    await kafka.publish(11, 20)
    monkeypatch.setenv("DATABASE_URL", url)
    consumer = new_kafka_consumer(kafka.topic, kafka.session)
    handle, calls = consumer.handle, count(1)

    def failing(*arguments: Any) -> None:
        number = next(calls)
        if number % 80 == 0:
            raise KeyboardInterrupt
        if number % 7 == 0:
            raise UnreadableMessage("JSON", "the handler fails before its effect")
        handle(*arguments)
        if number % 11 == 0:
            raise RuntimeError("the handler fails after its effect")

    with billed(url) as table:

        class Watched(confluent_kafka.Consumer):
            def poll(self, timeout: float = -1) -> Any:
                if len(table.rows()) == ALL:
                    raise KeyboardInterrupt
                return super().poll(timeout)

        vars(consumer).update(handle=failing, Consumer=Watched, WAIT=0)
        consumer.SETTINGS.update({"bootstrap.servers": kafka.bootstrap})
        interrupts = 0
        while len(table.rows()) < ALL:
            with pytest.raises(KeyboardInterrupt):
                consumer.main()
            interrupts += 1
        table.require_all_once_and_in_order()

    assert interrupts > 2
    others = [each for each in caplog.records if "another sender" in each.getMessage()]
    assert len(others) >= 8
    assert "a secret" not in caplog.text


@pytest.mark.skipif(not URL, reason="`make real-brokers` tests it")
@pytest.mark.parametrize("harm", [None, signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_each_message_is_handled_once_and_in_order_whatever_happens_to_its_consumer(
    kafka: Kafka, url: str, harm: signal.Signals | None
) -> None:
    await kafka.publish(1, 20)
    with billed(url) as table:
        env = {"KAFKA": kafka.bootstrap, "DATABASE_URL": url}
        service = Service("kafka", kafka.topic, kafka.session, env=env)
        handle_all(service, table, harm)
