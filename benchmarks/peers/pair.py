"""A contestant as two processes: its writer, and its relay."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .contestants import Contestant
from .peer_process import PeerProcess, started


class Interval(NamedTuple):
    """Events of a while, and the percentiles in ms: of their writes, or of their way to the sink.

    The way begins with the call of the write.
    """

    events: int
    p50: float
    p90: float
    p99: float
    max: float


class Pair(NamedTuple):
    """The two processes of a contestant."""

    writer: PeerProcess
    relay: PeerProcess

    def intervals(self, rate: int, seconds: int, every: int) -> Iterator[tuple[Interval, Interval]]:
        """Write and relay for `seconds`. Yields what was written and relayed, `every` so many.

        The last one has the stragglers.
        """
        self.relay.order("receive", seconds, every)
        self.relay.answer()
        self.writer.order("send", rate, seconds, every)
        for _ in range(0, seconds, every):
            yield Interval(**self.writer.answer()), Interval(**self.relay.answer())


@contextmanager
def pair(contestant: Contestant, url: str) -> Iterator[Pair]:
    """Start both: one module writes and relays, but for ours.

    Raises `PeerFailedError` with the reason if one ends.
    """
    relay = contestant.relay or contestant
    with started(contestant, url) as writer, started(relay, url) as reader:
        yield Pair(writer, reader)
