"""What is kept of a night, and whether it ended as it began. No I/O."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

ROWS = 96
"""Rows that are kept of a night of any length."""


class Sample(NamedTuple):
    """A look at the processes and the tables, `at` seconds after the start."""

    at: float
    publisher_mib: float
    writer_mib: float
    connections: float
    dead_rows: float
    outbox_mib: float
    waiting: float
    load: float
    """Of the machine."""


class Bound(NamedTuple):
    """The end may be `times` the start, `more` added."""

    times: float
    more: float


BOUNDS = {
    "publisher_mib": Bound(1.1, 0),
    "writer_mib": Bound(1.1, 0),
    "connections": Bound(1, 1),
    "dead_rows": Bound(1.5, 0),
    "outbox_mib": Bound(1.5, 0),
    "waiting": Bound(1, 10),
    "p50_ms": Bound(1.25, 0),
    "p99_ms": Bound(1.5, 0),
}
"""What a row has beside its time, and how much more of it the end may have than the start."""


class Ends(NamedTuple):
    """The median of a column while each part was restarted once: first, and last."""

    name: str
    start: float
    end: float

    @property
    def holds(self) -> bool:
        """Whether the end is as the start."""
        bound = BOUNDS[self.name]
        return self.end <= self.start * bound.times + bound.more


@dataclass(frozen=True, kw_only=True)
class Night:
    """A night: its options, how often each rule was broken, its restarts and its rows."""

    date: str
    machine: str
    hours: float
    rate: float
    every: float
    """Minutes between two restarts of a part."""
    events: int
    failed: int
    stored_twice: int
    """By the broker, which drops a repeat within its short window."""
    rules: Mapping[str, int]
    restarts: Sequence[tuple[float, str]]
    """Minutes after the start, and the part."""
    rows: Sequence[Mapping[str, float]]

    @property
    def ends(self) -> list[Ends]:
        """Each column at the start and at the end."""
        first = [row for row in self.rows if row["minute"] <= self.every]
        last = [row for row in self.rows if row["minute"] >= self.hours * 60 - self.every]
        return [
            Ends(name, *(statistics.median(row[name] for row in rows) for rows in (first, last)))
            for name in BOUNDS
        ]

    @property
    def holds(self) -> bool:
        """Whether no rule was broken, and the end is as the start."""
        return not any(self.rules.values()) and all(ends.holds for ends in self.ends)


def rows(
    samples: Sequence[Sample], delays: Sequence[tuple[float, float]], seconds: float
) -> Iterator[dict[str, float]]:
    """Yield the rows: medians of samples, and the delays of the events that were then committed.

    A delay is the time of a COMMIT in seconds after the start, and the seconds to the broker.
    """
    step = seconds / ROWS
    looks: list[list[Sample]] = [[] for _ in range(ROWS)]
    waits: list[list[float]] = [[] for _ in range(ROWS)]
    for sample in samples:
        looks[min(int(sample.at / step), ROWS - 1)].append(sample)
    for at, delay in delays:
        waits[min(int(at / step), ROWS - 1)].append(delay * 1000)
    for number, (seen, waited) in enumerate(zip(looks, waits, strict=True)):
        if seen and len(waited) > 1:
            cuts = statistics.quantiles(waited, n=100, method="inclusive")
            columns = zip(Sample._fields[1:], list(zip(*seen, strict=True))[1:], strict=True)
            row = {name: statistics.median(values) for name, values in columns}
            row |= {"minute": (number + 1) * step / 60, "p50_ms": cuts[49], "p99_ms": cuts[98]}
            yield {name: round(value, 2) for name, value in row.items()}
