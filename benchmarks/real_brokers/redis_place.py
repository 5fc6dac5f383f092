"""Redis: a topic that is no stream, and a server that is killed, has no memory, or hangs."""

import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

from benchmarks.nemesis.check import Delivery
from tests.support.brokers.redis_server import RedisServer

from .place import VANS, Fault, delivery

_PROGRAM: Final = "redis-server"


class MissingRedis(Exception):
    """This machine has no Redis."""


class RedisPlace:
    """A server that syncs its file before it answers, so that it can be killed."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.sink = f"{server.url}?timeout=3"

    def prepare(self) -> None:
        """Nothing: a stream is made by its first entry."""

    def faults(self) -> Sequence[Fault]:
        return [
            Fault("topic is no stream", self._no_stream, VANS),
            Fault("server killed", self._killed),
            Fault("no memory", lambda: self._server.configured(maxmemory="1")),
            Fault("server stopped", self._server.frozen),
        ]

    def delivered(self) -> list[Delivery]:
        return [delivery(stored) for stored in self._server.stored()]

    @contextmanager
    def _no_stream(self) -> Generator[None]:
        self._server.client.set(VANS, "no stream")
        yield
        self._server.client.delete(VANS)

    @contextmanager
    def _killed(self) -> Generator[None]:
        self._server.kill()
        yield
        self._server.start()


def debians_redis() -> RedisServer:
    """Redis of Debian's package. Raises `MissingRedis`."""
    if shutil.which(_PROGRAM) is None:
        raise MissingRedis(f"{_PROGRAM} is missing: apt-get install {_PROGRAM}")
    return RedisServer(program=_PROGRAM)
