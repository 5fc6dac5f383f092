"""The comparison as tables, and as JSON. No I/O."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.measure import median_ratio, spread

from .contestants import ComparedLine, Contestant
from .peer_process import Measured


class Row(NamedTuple):
    """The result of one contestant in one line. `ratio` is None without the line's floor."""

    line: str
    contestant: str
    rates: Sequence[float]
    ratio: float | None
    cpu: float | None

    def __str__(self) -> str:
        ratio = "-" if self.ratio is None else f"{self.ratio:.2f}"
        cpu = "-" if self.cpu is None else f"{self.cpu:.0f}"
        return f"  {self.contestant:<26} {spread(self.rates)} {ratio:>8} {cpu:>8}"

    def as_json(self) -> dict[str, object]:
        """The row as one JSON object."""
        return {
            "line": self.line, "contestant": self.contestant, "rates": list(self.rates),
            "median": statistics.median(self.rates), "ratio": self.ratio, "cpu_us": self.cpu,
        }  # fmt: skip


def rows(line: ComparedLine, measured: Mapping[str, Sequence[Measured]]) -> list[Row]:
    """The rows of a line, of the rounds of each contestant."""
    rates = {name: [each.rate for each in rounds] for name, rounds in measured.items()}
    floor = rates.get(line.floor)
    return [
        Row(line.name, name, own, median_ratio(own, floor) if floor else None, _cpu(measured[name]))
        for name, own in rates.items()
    ]


def heading(line: ComparedLine) -> str:
    """The heading of a line's table."""
    columns = f"  {'':<26} {'events/s':>10}  {'spread':>6} {'ratio':>8} {'CPU us':>8}"
    return f"{line.name}: {line.title}; ratio to {line.floor}\n{columns}"


def descriptions(contestants: Sequence[Contestant], missing: Mapping[str, str]) -> Iterator[str]:
    """The features and limits of each contestant, and the reason why a missing one is missing."""
    yield f"  {'':<26} {'tables':<6} {'order':<29} {'retries':<26} writes"
    for each in contestants:
        yield (
            f"  {each.name:<26} {each.tables:<6} {each.order:<29} {each.retries:<26} {each.does}"
        )
    for name, why in missing.items():
        yield f"  not measured: {name}: {why}"


def _cpu(rounds: Sequence[Measured]) -> float | None:
    found = [each.cpu for each in rounds if each.cpu is not None]
    return statistics.median(found) if found else None
