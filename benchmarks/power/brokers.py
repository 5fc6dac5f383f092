"""Brokers on a disk whose power can be cut."""

import asyncio
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol
from uuid import UUID

import nats
from benchmarks.nemesis.world import delivered, make_stream
from benchmarks.real_brokers.kafka_place import PARTITIONS, KafkaPlace
from benchmarks.real_brokers.place import CARS
from confluent_kafka import Consumer, KafkaError, Message
from nats.js.api import ConsumerConfig
from tests.support.brokers.apache_kafka import ApacheKafka, apache_kafka
from tests.support.brokers.nats_cluster import custom_server

from dsql_outbox.inbox import from_kafka, from_nats
from dsql_outbox.servers.server_process import free_port

from .disk import Disk, disk
from .shop import Handle

_BATCH: Final = 100
_PATIENCE: Final = 120.0  # seconds that a consumer of Kafka has, also when the machine is busy
_LOOK: Final = 1.0  # seconds that it waits for messages


class PoweredBroker(Protocol):
    """A broker that runs, and whose power can be cut."""

    sink: str
    """The URL for the publisher."""

    async def prepare(self) -> None:
        """Make the stream or topic that the publisher needs."""
        ...

    def sync(self) -> None:
        """Let all that it has stored reach the disk, as after a while."""
        ...

    def cut_power(self) -> None:
        """Cut the power of its servers and of their disk."""
        ...

    def start(self) -> None:
        """Start it on what the disk has."""
        ...

    async def stored(self) -> set[UUID]:
        """The events whose messages it has."""
        ...

    async def consume(self, handle: Handle, most: int | None = None) -> None:
        """Continue as its consumer did, to the end or for `most` messages; acknowledge each."""
        ...


class PoweredNats(PoweredBroker):
    """A NATS server with JetStream, with the default interval between syncs, or another one."""

    def __init__(self, disk: Disk, interval: str) -> None:
        self._disk = disk
        self._settings = f"jetstream {{ sync_interval: {interval} }}"
        self._port = free_port()
        self._process = ExitStack()
        self._url = f"nats://127.0.0.1:{self._port}"
        self.sink = f"{self._url}?timeout=3"

    def start(self) -> None:
        logs = Path(self._process.enter_context(TemporaryDirectory()))
        store = ("-sd", str(self._disk.folder))
        self._process.enter_context(
            custom_server(logs, *store, settings=self._settings, port=self._port)
        )

    def sync(self) -> None:
        self._disk.sync()

    def cut_power(self) -> None:
        self.close()
        self._disk.cut_power()

    def close(self) -> None:
        """Kill the server."""
        self._process.close()

    async def prepare(self) -> None:
        await make_stream(self._url)

    async def stored(self) -> set[UUID]:
        return {each.event_id for each in await delivered(self._url)}

    async def consume(self, handle: Handle, most: int | None = None) -> None:
        client: Any = await nats.connect(self._url)
        try:
            config = ConsumerConfig(max_ack_pending=_BATCH)
            reader = await client.jetstream().pull_subscribe(
                "events.>", durable="mailer", config=config
            )
            left = most or (await reader.consumer_info()).num_pending
            while left:
                for message in await reader.fetch(min(_BATCH, left), timeout=30):
                    await handle(from_nats(message))
                    await message.ack_sync()
                    left -= 1
        finally:
            await client.close()


@contextmanager
def powered_nats(folder: Path, interval: str) -> Generator[PoweredNats]:
    """A NATS server for a while. Raises `MissingDisk`."""
    with disk(folder / "image", folder / "disk") as made:
        server = PoweredNats(made, interval)
        try:
            server.start()
            yield server
        finally:
            server.close()


class PoweredKafka(PoweredBroker):
    """Three nodes of Apache Kafka that share a disk, and so lose their power at once.

    Each has a replica of the topic. A message is acknowledged once two have it in memory.
    """

    def __init__(self, disk: Disk, cluster: ApacheKafka) -> None:
        self._disk = disk
        self._cluster = cluster
        self._place = KafkaPlace(cluster)
        self.sink = self._place.sink

    def start(self) -> None:
        self._cluster.start()

    def sync(self) -> None:
        self._disk.sync()

    def cut_power(self) -> None:
        self._cluster.close()
        self._disk.cut_power()

    async def prepare(self) -> None:
        await asyncio.to_thread(self._place.prepare)

    async def stored(self) -> set[UUID]:
        return {each.event_id for each in await asyncio.to_thread(self._place.delivered)}

    async def consume(self, handle: Handle, most: int | None = None) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._cluster.bootstrap,
                "group.id": "mailer",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,  # told as an error of its own
                "log_level": 0,
            }
        )
        consumer.subscribe([CARS])
        left, open_ends = most, set(range(PARTITIONS))
        try:
            async with asyncio.timeout(_PATIENCE):
                while open_ends and left != 0:
                    most = min(_BATCH, left or _BATCH)
                    told = await asyncio.to_thread(consumer.consume, most, _LOOK)
                    batch = [raw for raw in told if raw.error() is None]
                    for raw in batch:
                        await handle(from_kafka(raw))
                    if batch:
                        await asyncio.to_thread(consumer.commit, asynchronous=False)
                    left = left and left - len(batch)
                    open_ends -= {raw.partition() for raw in told if _is_end(raw)}
        finally:
            await asyncio.to_thread(consumer.close)


def _is_end(raw: Message) -> bool:
    error = raw.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001 - public


@contextmanager
def powered_kafka(folder: Path) -> Generator[PoweredKafka]:
    """A cluster for a while. Raises `MissingDisk` or `MissingJava`."""
    with disk(folder / "image", folder / "disk") as made, apache_kafka(made.folder, 3) as cluster:
        yield PoweredKafka(made, cluster)
