"""Each sink's broker."""

from collections.abc import Generator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.support.brokers.kafka_mock import MockKafka, mock_kafka
from tests.support.brokers.rabbitmq_broker import RabbitMqBroker, running_rabbitmq
from tests.support.brokers.readable_brokers import (
    EventBridgeBroker,
    FileBroker,
    KafkaBroker,
    MemoryBroker,
    NatsBroker,
    NatsPlace,
    SnsBroker,
    SqsBroker,
    StdoutBroker,
)
from tests.support.brokers.redis_server import RedisBroker, RedisServer
from tests.support.brokers.running_broker import (
    BROKERS,
    URL,
    RunningRedis,
    RunningSqs,
    running_kafka,
    running_nats,
)
from tests.support.brokers.sqs_server import CREDENTIALS, SqsServer
from tests.support.proxy.tcp_proxy import TcpProxy

from dsql_outbox.publisher.sinks.port import at_host
from dsql_outbox.testing.sink_contract import ReadableBroker


@pytest.fixture(
    params=[
        # FIFO queues and topics take the same way, and the order and the groups besides.
        pytest.param(name, marks=pytest.mark.slow) if name in {"sqs", "sns"} else name
        for name in BROKERS
    ]
)
def broker(request: pytest.FixtureRequest) -> ReadableBroker:
    """Each sink's broker in turn."""
    found: ReadableBroker = request.getfixturevalue(f"{request.param}_broker")
    return found


@pytest.fixture
def memory_broker() -> MemoryBroker:
    """A list of messages."""
    return MemoryBroker()


@pytest.fixture
def jsonl_broker(tmp_path: Path) -> FileBroker:
    """A file that is not there yet."""
    return FileBroker(tmp_path / "events.jsonl")


@pytest.fixture
def stdout_broker(tmp_path: Path) -> StdoutBroker:
    """Standard output, kept in a file."""
    return StdoutBroker(tmp_path / "stdout.jsonl")


@pytest.fixture
def nats_place(request: pytest.FixtureRequest) -> NatsPlace:
    """The server of this test, or the one that runs already."""
    found: NatsPlace = running_nats() if URL else request.getfixturevalue("nats_server")
    return found


@pytest.fixture
def nats_proxy(nats_place: NatsPlace) -> Generator[TcpProxy]:
    """What a client of the server can be cut off with."""
    port = urlsplit(nats_place.url).port
    assert port is not None
    with TcpProxy("127.0.0.1", port) as proxy:
        yield proxy


@pytest.fixture
def nats_broker(nats_place: NatsPlace, nats_proxy: TcpProxy) -> NatsBroker:
    """A server with the stream EVENTS, once the sink was opened."""
    return NatsBroker(nats_place, proxy=nats_proxy)


@pytest.fixture
def kafka_mock() -> Generator[MockKafka]:
    """A Kafka broker of this test's own, which it may take down."""
    with mock_kafka(1) as broker:
        yield broker


@pytest.fixture
def kafka_broker(request: pytest.FixtureRequest) -> KafkaBroker:
    """A broker without messages to read back, which makes topics by itself."""
    if URL:
        return running_kafka()
    mock: MockKafka = request.getfixturevalue("kafka_mock")
    return KafkaBroker(mock.bootstrap, mock=mock)


@pytest.fixture
def kafka_cluster() -> Generator[MockKafka]:
    """A cluster of three, which makes topics by itself and fails on request."""
    with mock_kafka(3) as cluster:
        yield cluster


@pytest.fixture
def rabbitmq_proxy() -> Generator[TcpProxy]:
    """What a client of the RabbitMQ that runs already can be cut off with."""
    with TcpProxy("127.0.0.1", at_host(URL).port or 0) as proxy:
        yield proxy


@pytest.fixture
def rabbitmq_broker(rabbitmq_proxy: TcpProxy) -> RabbitMqBroker:
    """A new exchange and its queue."""
    return running_rabbitmq(URL, rabbitmq_proxy)


@pytest.fixture(scope="session")
def redis_server() -> Generator[RedisServer]:
    """A Valkey for all tests, or the server that runs already."""
    if URL:
        yield RunningRedis()
        return
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_proxy(redis_server: RedisServer) -> Generator[TcpProxy]:
    """What a client of the Valkey can be cut off with."""
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def redis_broker(redis_server: RedisServer, redis_proxy: TcpProxy) -> RedisBroker:
    """The Valkey, empty."""
    redis_server.client.flushall()
    return RedisBroker(redis_server, redis_proxy)


@pytest.fixture(scope="session")
def sqs_server() -> Generator[SqsServer]:
    """An SQS for all tests, and credentials that it takes."""
    import botocore.session

    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        # Each session of an SDK would read the same large files again.
        patch.setattr(botocore.session, "create_loader", cache(botocore.session.create_loader))
        if URL:
            yield RunningSqs(URL)
            return
        with SqsServer() as server:
            yield server


@pytest.fixture
def sqs_proxy(sqs_server: SqsServer) -> Generator[TcpProxy]:
    """What a client of the SQS can be cut off with."""
    with TcpProxy("127.0.0.1", sqs_server.port) as proxy:
        yield proxy


@pytest.fixture
def sqs_broker(sqs_server: SqsServer, sqs_proxy: TcpProxy) -> SqsBroker:
    """A new standard queue."""
    return SqsBroker(sqs_server.endpoint, sqs_server.make_queue(), proxy=sqs_proxy)


@pytest.fixture
def sqs_fifo_broker(sqs_server: SqsServer, sqs_proxy: TcpProxy) -> SqsBroker:
    """A new FIFO queue."""
    return SqsBroker(sqs_server.endpoint, sqs_server.make_queue(fifo=True), proxy=sqs_proxy)


@pytest.fixture
def sns_broker(sqs_server: SqsServer, sqs_proxy: TcpProxy) -> SnsBroker:
    """A new standard topic, with a queue that subscribes to it."""
    return SnsBroker.make(sqs_server, sqs_proxy)


@pytest.fixture
def sns_fifo_broker(sqs_server: SqsServer, sqs_proxy: TcpProxy) -> SnsBroker:
    """A new FIFO topic, with a FIFO queue that subscribes to it."""
    return SnsBroker.make(sqs_server, sqs_proxy, fifo=True)


@pytest.fixture
def eventbridge_broker(sqs_server: SqsServer, sqs_proxy: TcpProxy) -> EventBridgeBroker:
    """A new bus, with a rule that sends all events to a queue."""
    return EventBridgeBroker.make(sqs_server, sqs_proxy)
