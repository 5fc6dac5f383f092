"""A NATS cluster: a leader that dies, no quorum, a missing stream, and a full one."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import nats
from benchmarks.nemesis.check import Delivery
from benchmarks.nemesis.world import delivered
from nats.js.api import DiscardPolicy, StreamConfig
from tests.support.brokers.nats_cluster import NatsCluster

from .place import CARS, VANS, Fault

_CARS: Final = "CARS"
_VANS: Final = "VANS"
_NO_LIMIT: Final = -1
_PATIENCE: Final = 20.0  # seconds that JetStream may take to make or change a stream


class NatsPlace:
    """A cluster with a stream for the cars; the one of the vans is missing at first."""

    def __init__(self, cluster: NatsCluster) -> None:
        self._cluster = cluster
        self._url = ",".join(cluster.url(name) for name in cluster.names)
        self.sink = f"{self._url.replace(',nats://', ',')}?timeout=3"

    def prepare(self) -> None:
        self._do(lambda stream: stream.add_stream(_config(_CARS, CARS)))

    def faults(self) -> Sequence[Fault]:
        return [
            Fault("missing stream", self._missing_stream, VANS),
            Fault("leader killed", self._leader_killed),
            Fault("full stream", self._full_stream, VANS),
            Fault("no quorum", self._no_quorum),
        ]

    def delivered(self) -> list[Delivery]:
        url = self._cluster.url(self._cluster.names[0])
        return [*asyncio.run(delivered(url, _CARS)), *asyncio.run(delivered(url, _VANS))]

    @contextmanager
    def _missing_stream(self) -> Generator[None]:
        yield
        self._do(lambda streams: streams.add_stream(_config(_VANS, VANS)))

    @contextmanager
    def _leader_killed(self) -> Generator[None]:
        self._cluster.kill(self._info(_CARS).cluster.leader)
        yield
        self._cluster.start()

    @contextmanager
    def _full_stream(self) -> Generator[None]:
        stored = self._info(_VANS).state.messages
        self._do(lambda streams: streams.update_stream(_config(_VANS, VANS, stored)))
        yield
        self._do(lambda streams: streams.update_stream(_config(_VANS, VANS)))

    @contextmanager
    def _no_quorum(self) -> Generator[None]:
        for name in self._cluster.names[1:]:
            self._cluster.kill(name)
        yield
        self._cluster.start()

    def _info(self, stream: str) -> Any:
        return self._do(lambda streams: streams.stream_info(stream))

    def _do(self, change: Callable[[Any], Awaitable[Any]]) -> Any:
        return asyncio.run(self._ask(change))

    async def _ask(self, change: Callable[[Any], Awaitable[Any]]) -> Any:
        client: Any = await nats.connect(self._url.split(","))
        try:
            return await change(client.jetstream(timeout=_PATIENCE))
        finally:
            await client.close()


def _config(name: str, subject: str, most: int = _NO_LIMIT) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=[subject],
        num_replicas=3,
        max_msgs=most,
        discard=DiscardPolicy.NEW,
        allow_atomic=True,
    )
