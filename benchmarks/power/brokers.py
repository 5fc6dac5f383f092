"""Brokers that lose what they have acknowledged; a NATS server on a disk is one."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol
from uuid import UUID

import nats
from benchmarks.nemesis.world import delivered, make_stream
from nats.js.api import ConsumerConfig
from tests.support.brokers.nats_cluster import custom_server

from dsql_outbox.inbox import from_nats
from dsql_outbox.servers.server_process import free_port

from .disk import Disk, disk
from .shop import Handle

_BATCH: Final = 100


class PoweredBroker(Protocol):
    """A broker that runs, and loses what it has not synced with its power."""

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
