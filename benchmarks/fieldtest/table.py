"""The results as tables: text for a terminal, and Markdown for docs/fieldtest.md."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from .harms import Harm
from .judge import Result
from .libraries import Library

COLUMNS = ("lost", "reordered", "repeated")


class Cell(NamedTuple):
    """The trials of a library under a harm, one per seed."""

    results: Sequence[Result]

    def column(self, name: str) -> str:
        """The number of events of all seeds, and how many seeds had any: ``12 (2 of 3)``."""
        counts = [int(getattr(each, name)) for each in self.results]
        return f"{sum(counts):,} ({sum(map(bool, counts))} of {len(counts)})"

    @property
    def notes(self) -> str:
        """What is not in the columns: events that were given up, and that still waited."""
        kept, waiting = (
            sum(getattr(r, name) for r in self.results) for name in ("kept", "waiting")
        )
        found = [f"{kept:,} given up and kept"] if kept else []
        return "; ".join(found + ([f"{waiting:,} still waited"] if waiting else []))


class Report(NamedTuple):
    """All results. `missing` says why a library was not run, and `versions` what ran."""

    results: Sequence[Result]
    versions: Mapping[str, str]
    missing: Mapping[str, str]
    seeds: Sequence[int]

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Self:
        """What `as_json` made."""
        results = [Result(**each) for each in found["results"]]
        return cls(results, found["versions"], found["missing"], found["seeds"])

    def as_json(self) -> dict[str, object]:
        """All of it as one JSON object."""
        return self._asdict() | {"results": [each._asdict() for each in self.results]}

    def cell(self, library: Library, harm: Harm) -> Cell:
        """The trials of a library under a harm."""
        of_cell = (library.name, harm.name)
        return Cell([each for each in self.results if (each.library, each.harm) == of_cell])

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
    return f"{shown}  {library.order or 'not promised'}{notes}"


def markdown(report: Report, harms: Sequence[Harm], libraries: Sequence[Library]) -> Iterator[str]:
    """The tables of the page: one per harm, and one of the libraries."""
    for harm in harms:
        yield f"### {harm.title[0].upper()}{harm.title[1:]}\n"
        yield f"{harm.what}\n"
        yield "| library | lost | reordered within a key | repeated | |"
        yield "| --- | --- | --- | --- | --- |"
        for library in libraries:
            yield _markdown_row(report, library, harm)
        yield ""


def _markdown_row(report: Report, library: Library, harm: Harm) -> str:
    cell = report.cell(library, harm)
    if not cell.results:
        return f"| {library.name} | not run | | | {report.missing.get(library.name, '')} |"
    lost, reordered, repeated = map(cell.column, COLUMNS)
    if not library.order:
        reordered += ", not promised"
    return f"| {library.name} | {lost} | {reordered} | {repeated} | {cell.notes} |"


def markdown_libraries(report: Report, libraries: Sequence[Library]) -> Iterator[str]:
    """The table of the libraries: versions, settings, promises, and the pages followed."""
    yield "| library | version | settings | order promised | page followed |"
    yield "| --- | --- | --- | --- | --- |"
    for each in libraries:
        version = report.versions.get(each.name) or report.missing.get(each.name, "")
        page = f"[page]({each.page})" if each.page else ""
        order = each.order or "none"
        yield f"| {each.name} | {version} | {each.settings} | {order} | {page} |"
