"""A contestant as two processes: its writer, and its relay."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg
from benchmarks.measure import cpu_of, cpu_of_sessions
from psycopg import sql

from .contestants import Contestant
from .peer_process import PeerProcess, started

_RELAY = "relay"


class Interval(NamedTuple):
    """Events of a while, and the percentiles in ms: of their writes, or of their way to the sink.

    The way begins with the call of the write.
    """

    events: int
    p50: float
    p90: float
    p99: float
    max: float


class Cost(NamedTuple):
    """CPU of a relay's process, and of the server for its sessions: in seconds, or in us each."""

    process: float
    server: float

    def each(self, earlier: "Cost", events: int) -> "Cost":
        """What one of so many events has cost since `earlier`, in microseconds."""
        most = max(1, events) / 1e6
        return Cost((self.process - earlier.process) / most, (self.server - earlier.server) / most)


class Pair(NamedTuple):
    """The two processes of a contestant, and the database's URL."""

    writer: PeerProcess
    relay: PeerProcess
    url: str

    def intervals(
        self, rate: int, seconds: int, every: int
    ) -> Iterator[tuple[Interval, Interval, Cost]]:
        """Write and relay for `seconds`. Yields what was written and relayed, `every` so many.

        The last one has the stragglers. The cost is of an event that was relayed.
        """
        self.relay.order("receive", seconds, every)
        self.relay.answer()
        spent = self._spent()
        self.writer.order("send", rate, seconds, every)
        for _ in range(0, seconds, every):
            written = Interval(**self.writer.answer())
            now = self._spent()
            relayed = Interval(**self.relay.answer())
            yield written, relayed, now.each(spent, relayed.events)
            spent = now

    def _spent(self) -> Cost:
        return Cost(cpu_of(self.relay.pid), cpu_of_sessions(self.url, _RELAY))


@contextmanager
def pair(contestant: Contestant, url: str) -> Iterator[Pair]:
    """Start both: one module writes and relays, but for ours.

    Raises `PeerFailedError` with the reason if one ends.
    """
    relay = contestant.relay or contestant
    with started(contestant, url) as writer, started(relay, _as_relay(url)) as reader:
        yield Pair(writer, reader, url)


def _as_relay(url: str) -> str:
    """The URL for a role of the relay's own, by which its sessions are found."""
    parts = urlsplit(url)
    with psycopg.connect(url, autocommit=True) as connection:
        create = sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}")
        with suppress(psycopg.errors.DuplicateObject):
            connection.execute(create.format(sql.Identifier(_RELAY), parts.password))
    return url.replace(f"//{parts.username}:", f"//{_RELAY}:")
