"""The lines that measure the way of an event from a writer to a relay in another process."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

from benchmarks.relay.rows import new_database

from dsql_outbox.testing import EmbeddedPostgres

from .contestants import ComparedLine, Contestant
from .pair import Interval, Pair, pair
from .peer_process import PeerFailedError


class Way(NamedTuple):
    """The way of a contestant's events in one line."""

    line: str
    contestant: str
    written: int
    relayed: Interval

    def __str__(self) -> str:
        counts = f"{self.written:>8,} {self.relayed.events:>8,}"
        times = "".join(f" {value:>9.1f}" for value in self.relayed[1:])
        return f"  {self.contestant:<32} {counts}{times}"

    def as_json(self) -> dict[str, object]:
        """The row as one JSON object."""
        found: dict[str, object] = self.relayed._asdict()
        return {
            "line": self.line, "contestant": self.contestant, "written": self.written, **found
        }  # fmt: skip


def heading(line: ComparedLine) -> str:
    """The heading of a line's table."""
    names = "".join(f" {name + ' ms':>9}" for name in Interval._fields[1:])
    return f"{line.name}: {line.title}\n  {'':<32} {'written':>8} {'relayed':>8}{names}"


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

    def measure(self, line: ComparedLine, share: float) -> Iterator[Way]:
        """Run a line: all contestants at once if its events are lone, else one after the other."""
        seconds = max(1, round(line.events / (line.rate or 1) * share))

        def way(name: str) -> Way:
            ((written, relayed),) = self._pairs[name].intervals(line.rate or 0, seconds, seconds)
            return Way(line.name, name, written.events, relayed)

        with ThreadPoolExecutor(len(self._pairs) if line.rate == 0 else 1) as threads:
            yield from threads.map(way, self._pairs)
