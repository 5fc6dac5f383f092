"""How brokers keep what they acknowledge, as their sinks tell it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import nats
import pytest
from confluent_kafka import KafkaError, KafkaException, admin
from nats.js.api import PersistMode, StorageType, StreamConfig
from tests.support.brokers.kafka_mock import MockKafka
from tests.support.brokers.nats_cluster import custom_server, nats_cluster

from dsql_outbox.brokers.kafka.keeping import keeping_of, least_copies, topic_keepings
from dsql_outbox.brokers.kafka.url import parse_kafka_url
from dsql_outbox.outbox import SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks.port import Keeping, asks_keeping
from dsql_outbox.testing import NatsServer
from dsql_outbox.testing.sink_contract import deliver, new_message

pytestmark = pytest.mark.anyio

TOPIC: Final = "events.LoanCreated"


async def asked(url: str, *topics: str) -> list[Keeping]:
    """What a sink tells of these topics."""
    async with open_sink(url) as sink:
        ask = asks_keeping(sink)
        assert ask is not None
        return [*await ask(topics)]


async def made(url: str, **config: Any) -> None:
    """Make the stream EVENTS of all topics."""
    client: Any = await nats.connect(url)  # pyright: ignore[reportUnknownMemberType]
    try:
        await client.jetstream().add_stream(
            StreamConfig(name="EVENTS", subjects=["events.>"], **config)
        )
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("config", "text", "remedy"),
    [
        ({}, "1 replica, file storage", "--replicas=3"),
        ({"storage": StorageType.MEMORY}, "1 replica, memory storage", "file storage"),
        (
            {"persist_mode": PersistMode.ASYNC},
            "1 replica, file storage, asynchronous persistence",
            "acknowledged before",
        ),
    ],
)
async def test_a_stream_that_may_lose_messages_is_named(
    nats_server: NatsServer, config: dict[str, Any], text: str, remedy: str
) -> None:
    await made(nats_server.url, **config)

    (found,) = await asked(nats_server.url, TOPIC, "events.LoanPaid", "elsewhere.X")

    assert (found.place, found.text) == ("stream EVENTS", text)
    assert remedy in str(found.remedy)


async def test_the_stream_of_the_url_is_told_before_there_are_topics(
    nats_server: NatsServer,
) -> None:
    (found,) = await asked(f"{nats_server.url}?stream=EVENTS")
    assert found.text == "1 replica, file storage"


async def test_a_stream_with_three_replicas_on_files_needs_no_remedy(tmp_path: Path) -> None:
    with nats_cluster(tmp_path) as cluster:
        (found,) = await asked(f"{cluster.url('n0')}?stream=EVENTS&replicas=3&timeout=30", TOPIC)
    assert found == Keeping("stream EVENTS", "3 replicas, file storage")


RIGHTS: Final = """
authorization {
  users = [
    { user: owner, password: owner }
    { user: app, password: app, permissions: { publish: "events.>", subscribe: "_INBOX.>" } }
  ]
}
"""


async def test_a_client_that_may_not_look_says_so_and_publishes(tmp_path: Path) -> None:
    with custom_server(tmp_path, "-js", settings=RIGHTS) as host:
        await made(f"nats://owner:owner@{host}")
        url = f"nats://app:app@{host}?timeout=0.5"
        (found,) = await asked(url, TOPIC)
        async with open_sink(url) as sink:
            await deliver(sink, [new_message()])
    assert not found.is_known
    assert "$JS.API.STREAM.INFO" in found.text


async def test_a_topic_with_one_copy_is_named_and_a_topic_that_is_none_is_left_out(
    kafka_cluster: MockKafka,
) -> None:
    kafka_cluster.make_topic(TOPIC)
    found = await asked(f"kafka://{kafka_cluster.bootstrap}?timeout=1", TOPIC, "elsewhere.X")
    (one,) = found
    assert (one.place, one.text) == (f"topic {TOPIC}", "replication factor 1")
    assert one.remedy is not None


@pytest.mark.parametrize(
    ("copies", "least", "is_weak", "is_known"),
    [
        (3, 2, False, True),
        (3, 1, True, True),
        (1, 1, True, True),
        (3, "TOPIC_AUTHORIZATION_FAILED", False, False),
        (1, "TOPIC_AUTHORIZATION_FAILED", True, True),
    ],
)
def test_the_fewest_copies_that_count_decide(
    copies: int, least: int | str, is_weak: bool, is_known: bool
) -> None:
    found = keeping_of(TOPIC, copies, least)
    assert (found.remedy is not None, found.is_known) == (is_weak, is_known)
    assert str(copies) in found.text


async def test_the_partition_with_the_fewest_copies_decides_for_its_topic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    partitions = {0: SimpleNamespace(replicas=[1, 2, 3]), 1: SimpleNamespace(replicas=[2])}
    topics = {TOPIC: SimpleNamespace(partitions=partitions)}
    client = SimpleNamespace(
        poll=lambda _: None,
        list_topics=lambda timeout: SimpleNamespace(topics=topics, timeout=timeout),
    )
    monkeypatch.setattr(admin, "AdminClient", lambda _: client)
    (found,) = topic_keepings(parse_kafka_url("kafka://127.0.0.1"), {}, [TOPIC])
    assert found.text == "replication factor 1"
    assert found.remedy is not None


class Answer:
    """An answer of DescribeConfigs."""

    def __init__(self, code: int) -> None:
        self._code = code

    def result(self) -> None:
        raise KafkaException(KafkaError(self._code))


def test_only_a_missing_right_hides_the_copies_that_count() -> None:
    assert least_copies(Answer(KafkaError.TOPIC_AUTHORIZATION_FAILED)) == (
        "TOPIC_AUTHORIZATION_FAILED"
    )
    with pytest.raises(KafkaException):
        least_copies(Answer(KafkaError.REQUEST_TIMED_OUT))


async def test_a_closed_sink_of_nats_opens_no_connection_to_tell(nats_server: NatsServer) -> None:
    async with open_sink(nats_server.url) as sink:
        ask = asks_keeping(sink)
    assert ask is not None
    with pytest.raises(SinkUnavailable):
        await ask([TOPIC])
