"""Three nodes of Apache Kafka that lose acknowledged messages: by a power cut, or a failover."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID

from benchmarks.real_brokers.kafka_place import PARTITIONS, KafkaPlace
from benchmarks.real_brokers.place import CARS
from confluent_kafka import Consumer, KafkaError, Message
from tests.support.brokers.apache_kafka import ApacheKafka, apache_kafka
from tests.support.waiting import wait_until

from dsql_outbox.inbox import from_kafka

from .brokers import PoweredBroker
from .disk import Disk, disk
from .shop import Handle

_NODES: Final = 3
_LEADER: Final = 0  # a node
_FOLLOWER: Final = 1
_BATCH: Final = 100
_LOOK: Final = 1.0  # seconds that a consumer waits for messages
_PATIENCE: Final = 120.0  # seconds for each step, also when the machine is busy


class _Cluster(PoweredBroker):
    """The nodes, and their topic as publisher and consumer use it."""

    def __init__(self, cluster: ApacheKafka) -> None:
        self._cluster = cluster
        self._place = KafkaPlace(cluster)
        self.sink = self._place.sink

    async def prepare(self) -> None:
        await asyncio.to_thread(self._place.prepare)

    def start(self) -> None:
        self._cluster.start()

    async def stored(self) -> set[UUID]:
        return {each.event_id for each in await asyncio.to_thread(self._place.delivered)}

    async def consume(self, handle: Handle, most: int | None = None) -> None:
        settings = {
            "bootstrap.servers": self._cluster.bootstrap,
            "group.id": "mailer",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "log_level": 0,
        }
        consumer = Consumer(settings)
        consumer.subscribe([CARS])
        left, open_ends = most, set(range(PARTITIONS))
        try:
            async with asyncio.timeout(_PATIENCE):
                while open_ends and left != 0:
                    wanted = min(_BATCH, left or _BATCH)
                    told = await asyncio.to_thread(consumer.consume, wanted, _LOOK)
                    batch = [raw for raw in told if raw.error() is None]
                    for raw in batch:
                        await handle(from_kafka(raw))
                    for last in {raw.partition(): raw for raw in batch}.values():
                        await asyncio.to_thread(consumer.commit, message=last, asynchronous=False)
                    left = left and left - len(batch)
                    open_ends -= {raw.partition() for raw in told if _is_end(raw)}
        finally:
            await asyncio.to_thread(consumer.close)


def _is_end(raw: Message) -> bool:
    error = raw.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001 - public


class PoweredKafka(_Cluster):
    """All nodes share a disk, and so lose their power at once.

    Each has a replica of the topic. A message is acknowledged once two have it in memory.
    """

    def __init__(self, disk: Disk, cluster: ApacheKafka) -> None:
        super().__init__(cluster)
        self._disk = disk

    def sync(self) -> None:
        self._disk.sync()

    def cut_power(self) -> None:
        self._cluster.close()
        self._disk.cut_power()


class FailedOverKafka(_Cluster):
    """The leader acknowledges alone and dies, and a follower that has less becomes leader.

    The topic has two replicas, ``min.insync.replicas=1``, and
    ``unclean.leader.election.enable=true``. The third node votes, and keeps the consumer's offsets.
    """

    async def prepare(self) -> None:
        settings = {"min.insync.replicas": "1", "unclean.leader.election.enable": "true"}
        make = self._cluster.make_topic
        await asyncio.to_thread(make, CARS, PARTITIONS, (_LEADER, _FOLLOWER), **settings)

    def sync(self) -> None:
        """Let the follower get all that is stored now, and nothing later."""
        self._wait_for_replicas(2)
        self._cluster.kill(_FOLLOWER)
        self._wait_for_replicas(1)

    def cut_power(self) -> None:
        """Kill the leader only."""
        self._cluster.kill(_LEADER)

    def start(self) -> None:
        self._cluster.start(_FOLLOWER)
        wait_until(lambda: self._cluster.leader(CARS) == _FOLLOWER, _PATIENCE)
        self._cluster.start()

    def _wait_for_replicas(self, number: int) -> None:
        wait_until(lambda: self._cluster.replicas_in_sync(CARS) == number, _PATIENCE)


@contextmanager
def powered_kafka(folder: Path) -> Generator[PoweredBroker]:
    """A cluster for a while. Raises `MissingDisk` or `MissingJava`."""
    image, place = folder / "image", folder / "disk"
    with disk(image, place) as made, apache_kafka(made.folder, _NODES) as cluster:
        yield PoweredKafka(made, cluster)


@contextmanager
def failed_over_kafka(folder: Path) -> Generator[PoweredBroker]:
    """A cluster for a while. Raises `MissingJava`."""
    with apache_kafka(folder, _NODES) as cluster:
        yield FailedOverKafka(cluster)
