"""The servers and the sizes of the measurements."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.brokers.apache_kafka import ApacheKafka, apache_kafka
from tests.support.brokers.rabbitmq_broker import RabbitMqBroker
from tests.support.brokers.rabbitmq_server import RabbitMqServer

from dsql_outbox.testing import EmbeddedPostgres, NatsServer


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the measurements: rows, rounds, seconds, and `loads` of `load` events."""

    rows: int = 20_000
    drained: int = 40_000
    rounds: int = 3
    hot: int = 50_000
    held: int = 100_000
    failing: int = 200_000
    seconds: float = 4.0
    a_second: int = 10_000
    load: int = 100_000
    loads: int = 3


FULL = Sizes(
    rows=50_000, drained=200_000, rounds=5, failing=1_000_000, seconds=15.0, load=1_000_000, loads=1
)
"""The sizes for a quiet machine and a patient reader."""


class Conditions(ExitStack):
    """The servers, each started when it is first used; a context manager."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes

    @cached_property
    def server(self) -> EmbeddedPostgres:
        """One PostgreSQL for all lines."""
        return self.enter_context(EmbeddedPostgres(settings={"max_wal_size": "4GB"}))

    @cached_property
    def broker(self) -> NatsServer:
        """One NATS server for all lines."""
        return self.enter_context(NatsServer())

    @cached_property
    def kafka(self) -> ApacheKafka:
        """One Apache Kafka for all lines. Raises `MissingJava`."""
        folder = self.enter_context(TemporaryDirectory(prefix="goals-kafka-"))
        cluster = self.enter_context(apache_kafka(Path(folder), 1))
        cluster.make_topic("events.CarMoved", 6)
        return cluster

    @cached_property
    def rabbitmq(self) -> RabbitMqBroker:
        """An exchange of RabbitMQ with a quorum queue. Raises `MissingRabbitMq`."""
        server = self.enter_context(RabbitMqServer())
        broker = RabbitMqBroker(server.host, x_queue_type="quorum")
        asyncio.run(broker.prepare())
        return broker
