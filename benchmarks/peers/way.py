"""The way of an event from a writer to a relay in another process."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

from benchmarks.relay.rows import new_database

from dsql_outbox.testing import EmbeddedPostgres

from .contestants import Contestant
from .pair import Cost, Interval, Pair, pair
from .peer_process import PeerFailedError


class Traffic(NamedTuple):
    """Events per second, and for how long; with 0 they are lone ones, 2 to 4 seconds apart."""

    rate: int
    seconds: int


LONE, HUNDRED, THOUSAND = Traffic(0, 300), Traffic(100, 30), Traffic(1_000, 30)


class Way(NamedTuple):
    """The way of a contestant's events, and what its relay and the relay's sessions cost."""

    contestant: str
    written: int
    relayed: Interval
    cost: Cost


class Ways(ExitStack):
    """Contestants with a writer and a relay in processes of their own; a context manager.

    `missing` says of each that did not start why.
    """

    def __init__(self, server: EmbeddedPostgres, contestants: Sequence[Contestant]) -> None:
        super().__init__()
        self.missing: dict[str, str] = {}
        self._pairs: dict[str, Pair] = {}
        for number, each in enumerate(contestants):
            url = new_database(server, f"way_{number}")
            try:
                running = self.enter_context(pair(each, url))
                list(running.intervals(20, 1, 1))  # the first events of a process take longer
            except PeerFailedError as error:
                self.missing[each.name] = str(error)
            else:
                self._pairs[each.name] = running

    def measure(self, traffic: Traffic, share: float) -> Iterator[Way]:
        """Run all contestants for a share of the time: at once if events are lone, else in turn."""
        seconds = max(1, round(traffic.seconds * share))

        def way(name: str) -> Way:
            ((written, relayed, cost),) = self._pairs[name].intervals(
                traffic.rate, seconds, seconds
            )
            return Way(name, written.events, relayed, cost)

        with ThreadPoolExecutor(1 if traffic.rate else len(self._pairs)) as threads:
            yield from threads.map(way, self._pairs)
