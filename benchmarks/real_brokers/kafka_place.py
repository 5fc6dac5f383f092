"""Apache Kafka: nodes that die or hang, a missing topic, and too few replicas in sync."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Final

from benchmarks.nemesis.check import Delivery
from tests.support.brokers.apache_kafka import ApacheKafka
from tests.support.brokers.kafka_reader import read_partitions
from tests.support.brokers.readable_brokers import from_kafka

from .place import CARS, VANS, Fault, delivery

PARTITIONS: Final = 6
_AWAY: Final = 30.0  # seconds, at most, until a cluster has noticed that a node is gone
_LOOK: Final = 0.1  # seconds between two checks


class KafkaPlace:
    """A cluster with the topic of the cars; the one of the vans is missing at first."""

    def __init__(self, cluster: ApacheKafka) -> None:
        self._cluster = cluster
        self.sink = f"kafka://{cluster.bootstrap}?timeout=3"

    def prepare(self) -> None:
        self._cluster.make_topic(CARS, PARTITIONS)

    def faults(self) -> Sequence[Fault]:
        found = [
            Fault("missing topic", self._missing_topic, VANS),
            Fault("leader killed", self._leader_killed),
            Fault("leader stopped", self._leader_stopped),
        ]
        if self._cluster.nodes > 1:
            found.append(Fault("below min ISR", self._below_min_isr, VANS))
        return found

    def delivered(self) -> list[Delivery]:
        return [delivery(from_kafka(m)) for m in read_partitions(self._cluster.bootstrap)]

    @contextmanager
    def _missing_topic(self) -> Generator[None]:
        yield
        every = str(self._cluster.nodes)
        self._cluster.make_topic(VANS, 1, **{"min.insync.replicas": every})

    @contextmanager
    def _leader_killed(self) -> Generator[None]:
        self._cluster.kill(self._cluster.leader(CARS))
        yield
        self._cluster.start()

    @contextmanager
    def _leader_stopped(self) -> Generator[None]:
        with self._cluster.frozen(self._cluster.leader(CARS)):
            yield

    @contextmanager
    def _below_min_isr(self) -> Generator[None]:
        """The vans want all nodes in sync, the cars two of them: one node is gone."""
        leader, enough = self._cluster.leader(VANS), self._cluster.nodes
        self._wait(lambda: self._cluster.replicas_in_sync(VANS) == enough)
        self._cluster.kill((leader + 1) % enough)
        self._wait(lambda: self._cluster.replicas_in_sync(VANS) < enough)
        yield
        self._cluster.start()

    @staticmethod
    def _wait(state: Callable[[], bool]) -> None:
        deadline = monotonic() + _AWAY
        while not state():
            if monotonic() > deadline:
                raise TimeoutError(f"Kafka's replicas did not change within {_AWAY:.0f} s")
            sleep(_LOOK)
