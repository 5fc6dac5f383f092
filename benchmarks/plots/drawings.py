"""Pictures and tables of docs/comparison.md, drawn from the newest results by `make plots`."""

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.kept_results import newest
from benchmarks.peers.contestants import CONTESTANTS, LINES, PGBENCH, ComparedLine

from .svg import Bar, bars, lines, number

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
PAGE = ROOT / "docs" / "comparison.md"

Results = Mapping[str, Any]

_OWN = {each.name for each in CONTESTANTS if each.name.startswith("dsql-outbox")}
_PART = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def pictures() -> Iterator[tuple[Path, str]]:
    """The path and the text of each picture that the newest results give."""
    if peers := newest("peers"):
        for line in LINES:
            if found := [row for row in peers["rows"] if row["line"] == line.name]:
                yield PICTURES / f"peers-{line.name}.svg", _bars_of(line, found)
    if growth := newest("growth"):
        for name, curve in growth["curves"].items():
            yield PICTURES / f"growth-{name}.svg", _lines_of(curve)


def page() -> str:
    """The text of docs/comparison.md with the tables that the newest results give."""
    tables = {
        "lines": newest("peers"),
        "peers": newest("peers"),
        "sustained": newest("sustained"),
        "growth": newest("growth"),
    }
    made = {name: _TABLES[name](found) for name, found in tables.items() if found}
    text = PAGE.read_text(encoding="utf-8")
    return _PART.sub(lambda part: f"{part[1]}{made.get(part[2], '')}{part[3]}", text)


def _bars_of(line: ComparedLine, rows: Sequence[Mapping[str, Any]]) -> str:
    found = [_bar(line, row) for row in rows]
    found.sort(key=lambda bar: bar.median, reverse=not line.waits)
    title = line.title[0].upper() + line.title[1:]
    return bars(title, "ms, 99th percentile" if line.waits else "events per second", found)


def _bar(line: ComparedLine, row: Mapping[str, Any]) -> Bar:
    values = row["p99s"] if line.waits else row["rates"]
    name = row["contestant"]
    return Bar(name, statistics.median(values), min(values), max(values), name in _OWN)


def _lines_of(curve: Mapping[str, Any]) -> str:
    series = {
        name: [statistics.median(values) for values in found]
        for name, found in curve["series"].items()
    }
    return lines(curve["title"], curve["across"], curve["up"], curve["points"], series)


def _line_table(found: Results) -> str:
    rates = {(row["contestant"], row["line"]): row for row in found["rows"]}
    names = [each.name for each in CONTESTANTS if any(name == each.name for name, _ in rates)]
    rows = [
        [name, *(_cell(rates.get((name, line.name)), line) for line in LINES)] for name in names
    ]
    missing = "".join(f"\nNot measured: {name}: {why}.\n" for name, why in found["missing"].items())
    head = ["", *(f"{line.name}, {'ms' if line.waits else 'events/s'}" for line in LINES)]
    return _table(head, rows) + missing + _measured(found, f"{found['rounds']} rounds in turn")


def _cell(row: Mapping[str, Any] | None, line: ComparedLine) -> str:
    if row is None:
        return ""
    if line.waits:
        return f"{number(row['p50'])} / {number(row['p99'])}"
    half = 50 * (max(row["rates"]) - min(row["rates"])) / row["median"]
    return f"{number(row['median'])} ({half:.0f} %)"


def _does_table(_: Results) -> str:
    rows = [
        [each.name, str(each.tables), each.order, each.retries, each.does]
        for each in CONTESTANTS
        if each.name != PGBENCH
    ]
    return _table(["", "tables", "order", "tries again after", "does"], rows)


def _sustained_table(found: Results) -> str:
    rows = [
        [
            f"{run['publishers']}, batches of {run['batch_rows']}",
            number(run["arrived"]),
            number(run["growth"]),
            f"{run['waiting']:,}",
            f"{number(run['p50'])} / {number(run['p99'])}",
            str(run["disordered"]),
            "holds" if run["holds"] else "**fails**",
        ]
        for run in sorted(found["runs"], key=lambda run: (run["publishers"], run["batch_rows"]))
    ]
    head = ["publishers", "arrived /s", "backlog grows /s", "waits at the end"]
    head += ["commit to sink, s, p50 / p99", "out of order", ""]
    seconds = {run["seconds"] for run in found["runs"]}
    shown = " or ".join(f"{each:.0f} s" for each in sorted(seconds))
    return _table(head, rows) + _measured(found, f"each run took {shown}")


def _growth_table(found: Results) -> str:
    rows = [
        [f"{curve['across']}: {name}", *_ends(curve["points"], values), curve["up"]]
        for curve in found["curves"].values()
        for name, values in curve["series"].items()
    ]
    return _table(["", "least", "most", "unit"], rows) + _measured(
        found, f"medians of {found['rounds']} rounds in turn"
    )


def _ends(points: Sequence[float], values: Sequence[Sequence[float]]) -> list[str]:
    first, last = statistics.median(values[0]), statistics.median(values[-1])
    return [f"{number(points[0])}: {number(first)}", f"{number(points[-1])}: {number(last)}"]


def _measured(found: Results, how: str) -> str:
    before = f"{found['load_before']:.1f} before it began"
    return f"\nMeasured on {found['date']}, {how}: {found['machine']} ({before}).\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


_TABLES = {
    "lines": _line_table,
    "peers": _does_table,
    "sustained": _sustained_table,
    "growth": _growth_table,
}
