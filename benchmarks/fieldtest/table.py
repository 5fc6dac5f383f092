"""The results as tables: text for a terminal, and Markdown for docs/fieldtest.md."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from .harms import Harm
from .judge import Result
from .libraries import ONE_RELAY, Library

COLUMNS = ("lost", "reordered", "repeated")


class Cell(NamedTuple):
    """Trials of a library."""

    results: Sequence[Result]

    def count(self, name: str) -> int:
        """The number of events of all trials."""
        return sum(getattr(each, name) for each in self.results)

    def column(self, name: str) -> str:
        """The number of events of all trials, and how many had any: ``12 (2 of 3)``."""
        found = sum(bool(getattr(each, name)) for each in self.results)
        return f"{self.count(name):,} ({found} of {len(self.results)})"

    @property
    def notes(self) -> str:
        """What is not in the columns: events that were given up, and that still waited."""
        found = []
        for name, said in (("kept", "given up and kept"), ("waiting", "still waited")):
            if number := sum(max(0, getattr(each, name)) for each in self.results):
                found.append(f"{number:,} {said}")
        return "; ".join(found)


class Report(NamedTuple):
    """All results. `missing` says why a library was not run, and `versions` what ran.

    `conditions` says when, where and with how many events.
    """

    results: Sequence[Result]
    versions: Mapping[str, str]
    missing: Mapping[str, str]
    seeds: Sequence[int]
    conditions: Mapping[str, Any]

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Self:
        """What `as_json` made."""
        return cls(**{**found, "results": [Result(**each) for each in found["results"]]})

    def as_json(self) -> dict[str, object]:
        """All of it as one JSON object."""
        return self._asdict() | {"results": [each._asdict() for each in self.results]}

    def cell(self, library: Library, harm: Harm | None = None) -> Cell:
        """The trials of a library, under all harms or under one."""
        return Cell(
            [
                each
                for each in self.results
                if each.library == library.name and (harm is None or each.harm == harm.name)
            ]
        )

    def name(self, library: Library) -> str:
        """The library with its version."""
        return f"{library.name} {self.versions.get(library.name, '')}".strip()


def text(report: Report, harm: Harm, libraries: Sequence[Library]) -> Iterator[str]:
    """The table of a harm for a terminal."""
    yield f"{harm.name}: {harm.title}"
    yield f"  {'':<28}" + "".join(f" {name:>18}" for name in COLUMNS) + "  order"
    for library in libraries:
        yield f"  {report.name(library):<28}" + _text_cells(report, library, harm)
    yield ""


def _text_cells(report: Report, library: Library, harm: Harm) -> str:
    cell = report.cell(library, harm)
    if not cell.results:
        return f"  not run: {report.missing.get(library.name, 'not asked for')}"
    shown = "".join(f" {cell.column(name):>18}" for name in COLUMNS)
    notes = f"; {cell.notes}" if cell.notes else ""
    return f"{shown}  {_promised(library, harm) or 'not promised'}{notes}"


def _promised(library: Library, harm: Harm | None) -> str:
    """The order that the library promises under a harm."""
    is_outside = library.order == ONE_RELAY and harm is not None and harm.relays > 1
    return "" if is_outside else library.order


def markdown(report: Report, harms: Sequence[Harm], libraries: Sequence[Library]) -> Iterator[str]:
    """The tables of the page: what is done, and what each failure did."""
    yield "| failure | what is done |"
    yield "| --- | --- |"
    yield from (f"| {harm.name} | {harm.what} |" for harm in harms)
    yield ""
    yield "## Results"
    yield ""
    yield "Events that were lost/reordered within their key/repeated. An empty cell is 0/0/0."
    yield ""
    yield f"| library | order promised | {' | '.join(harm.name for harm in harms)} | together |"
    yield f"| --- | --- |{' --- |' * len(harms)} --- |"
    for library in libraries:
        cells = [_counts(report.cell(library, harm)) for harm in harms]
        cells.append(_counts(report.cell(library)))
        yield f"| {library.name} | {library.order or 'none'} | {' | '.join(cells)} |"
    yield ""
    for library in libraries:
        if notes := report.cell(library).notes:
            yield f"Of {library.name}: {notes}."
            yield ""


def _counts(cell: Cell) -> str:
    if not cell.results:
        return "not run"
    counts = [cell.count(name) for name in COLUMNS]
    return "/".join(f"{count:,}" for count in counts) if any(counts) else ""


def markdown_libraries(report: Report, libraries: Sequence[Library]) -> Iterator[str]:
    """The table of the libraries: versions and settings. A name links to the page followed."""
    yield "| library | version | settings |"
    yield "| --- | --- | --- |"
    for each in libraries:
        version = report.versions.get(each.name, "")
        if each.name in report.missing:
            version = f"{version} not run: `{report.missing[each.name]}`".strip()
        name = f"[{each.name}]({each.page})" if each.page else each.name
        yield f"| {name} | {version} | {each.settings} |"
    yield ""
