"""The brokers that a machine can have without Docker, and how each is started."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.brokers.apache_kafka import apache_kafka
from tests.support.brokers.elastic_mq import ElasticMq
from tests.support.brokers.nats_cluster import nats_cluster
from tests.support.brokers.rabbitmq_server import RabbitMqServer

from .kafka_place import KafkaPlace
from .nats_place import NatsPlace
from .place import Place
from .rabbitmq_place import Faults, RabbitMqPlace, all_faults, kills
from .redis_place import RedisPlace, debians_redis
from .sqs_place import SqsPlace


class Candidate(NamedTuple):
    """A broker: `suite` gives the contract suite its URL, `place` is what the nemesis harms.

    Each starts its own broker in a folder, and ends it.
    """

    name: str
    suite: Callable[[Path], AbstractContextManager[str]]
    place: Callable[[Path], AbstractContextManager[Place]]
    tests: tuple[str, ...] = ("tests/contract/test_sinks.py",)
    """The files of tests that run against it."""


@contextmanager
def _kafka_url(nodes: int, folder: Path) -> Generator[str]:
    with apache_kafka(folder, nodes, makes_topics=True) as cluster:
        yield f"kafka://{cluster.bootstrap}"


@contextmanager
def _kafka_place(nodes: int, folder: Path) -> Generator[Place]:
    with apache_kafka(folder, nodes) as cluster:
        yield KafkaPlace(cluster)


@contextmanager
def _nats_url(folder: Path) -> Generator[str]:
    with nats_cluster(folder) as cluster:
        yield cluster.url(cluster.names[0])


@contextmanager
def _nats_place(folder: Path) -> Generator[Place]:
    with nats_cluster(folder) as cluster:
        yield NatsPlace(cluster)


@contextmanager
def _redis_url(_: Path) -> Generator[str]:
    with debians_redis() as server:
        yield server.url


@contextmanager
def _redis_place(_: Path) -> Generator[Place]:
    with debians_redis() as server:
        yield RedisPlace(server)


@contextmanager
def _sqs_url(_: Path) -> Generator[str]:
    with ElasticMq() as server:
        yield server.endpoint


@contextmanager
def _sqs_place(_: Path) -> Generator[Place]:
    with ElasticMq() as server:
        yield SqsPlace(server)


@contextmanager
def _rabbitmq_url(_: Path) -> Generator[str]:
    with RabbitMqServer() as server:
        yield f"rabbitmq://{server.host}"


@contextmanager
def _rabbitmq_place(faults: Faults, _: Path) -> Generator[Place]:
    with RabbitMqServer() as server:
        yield RabbitMqPlace(server, faults)


CANDIDATES: Final = {
    "nats": Candidate("NATS, 3 nodes", _nats_url, _nats_place),
    "redis": Candidate("Redis", _redis_url, _redis_place),
    "sqs": Candidate("ElasticMQ (SQS)", _sqs_url, _sqs_place),
    "rabbitmq": Candidate(
        "RabbitMQ",
        _rabbitmq_url,
        partial(_rabbitmq_place, all_faults),
        (
            "tests/contract/test_sinks.py",
            "tests/contract/test_rabbitmq.py",
            "tests/examples/test_celery.py",
            "tests/examples/test_rabbitmq.py",
        ),
    ),
    "rabbitmq-kills": Candidate("RabbitMQ, killed", _rabbitmq_url, partial(_rabbitmq_place, kills)),
    "kafka": Candidate(
        "Kafka, 1 node",
        partial(_kafka_url, 1),
        partial(_kafka_place, 1),
        ("tests/contract/test_sinks.py", "tests/examples/test_kafka_consumer.py"),
    ),
    "kafka-3": Candidate("Kafka, 3 nodes", partial(_kafka_url, 3), partial(_kafka_place, 3)),
}
