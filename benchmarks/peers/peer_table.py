"""The comparison as tables, and as JSON. No I/O."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.measure import median_ratio, spread

from .contestants import ComparedLine, Contestant
from .peer_process import Measured

_COLUMNS = {"cpu": ".0f", "disordered": ".0f"}
"""Fields of `Measured` that are columns, with the form of their numbers."""


class Row(NamedTuple):
    """The result of one contestant in one line. `ratio` is None without the line's floor."""

    line: str
    contestant: str
    rounds: Sequence[Measured]
    ratio: float | None

    @property
    def rates(self) -> list[float]:
        """Events per second of each round."""
        return [each.rate for each in self.rounds]

    def median(self, name: str) -> float | None:
        """The median of a field of `Measured` over the rounds that know it."""
        found = [value for each in self.rounds if (value := getattr(each, name)) is not None]
        return statistics.median(found) if found else None

    def __str__(self) -> str:
        cells = [(self.ratio, ".2f")]
        cells += [(self.median(name), form) for name, form in _COLUMNS.items()]
        shown = ["-" if value is None else format(value, form) for value, form in cells]
        return f"  {self.contestant:<28} {spread(self.rates)}" + "".join(f" {x:>8}" for x in shown)

    def as_json(self) -> dict[str, object]:
        """The row as one JSON object."""
        known = {name: self.median(name) for name in _COLUMNS}
        return {
            "line": self.line, "contestant": self.contestant, "rates": self.rates,
            "median": statistics.median(self.rates), "ratio": self.ratio,
            **{name: value for name, value in known.items() if value is not None},
        }  # fmt: skip


class Failure(NamedTuple):
    """A contestant that failed in a line, with the reason."""

    contestant: str
    line: str
    why: str

    def __str__(self) -> str:
        return f"  {self.contestant:<28} failed: {self.why}"

    def as_json(self) -> dict[str, object]:
        """The failure as one JSON object."""
        return {"line": self.line, "contestant": self.contestant, "failed": self.why}


def rows(line: ComparedLine, measured: Mapping[str, Sequence[Measured]]) -> list[Row]:
    """The rows of a line, of the rounds of each contestant."""
    floor = [each.rate for each in measured.get(line.floor, ())]

    def ratio(rounds: Sequence[Measured]) -> float | None:
        return median_ratio([each.rate for each in rounds], floor) if floor else None

    return [Row(line.name, name, rounds, ratio(rounds)) for name, rounds in measured.items()]


def heading(line: ComparedLine) -> str:
    """The heading of a line's table."""
    columns = ("ratio", "CPU us", "disorder")
    head = f"  {'':<28} {'events/s':>10}  {'spread':>6}"
    return "\n".join(
        [
            f"{line.name}: {line.title}; ratio to {line.floor}",
            head + "".join(f" {column:>8}" for column in columns),
        ]
    )


def descriptions(contestants: Sequence[Contestant], missing: Mapping[str, str]) -> Iterator[str]:
    """Yield the features of each contestant, and the reason of each that is missing."""
    yield f"  {'':<28} {'tables':<6} {'order':<29} {'retries':<40} does"
    for each in contestants:
        yield (
            f"  {each.name:<28} {each.tables:<6} {each.order:<29} {each.retries:<40} {each.does}"
        )
    for name, why in missing.items():
        yield f"  not measured: {name}: {why}"
