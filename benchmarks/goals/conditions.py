"""The servers and the sizes of the measurements."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.brokers.apache_kafka import ApacheKafka, apache_kafka

from dsql_outbox.testing import EmbeddedPostgres, NatsServer


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the measurements: rows, rounds, seconds, and the events of a load."""

    rows: int = 20_000
    drained: int = 40_000
    rounds: int = 3
    hot: int = 50_000
    failing: int = 200_000
    seconds: float = 4.0
    load: int = 100_000


FULL = Sizes(
    rows=50_000, drained=200_000, rounds=5, failing=1_000_000, seconds=15.0, load=1_000_000
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
