"""Run the contract suite on every sink and print which sink passes which check.

``python -m tests.support.brokers.contract_table``
"""

import re
import sys
from collections import defaultdict
from typing import Final

import click
import pytest

_FILE: Final = "tests/contract/test_sinks.py"
_NAME: Final = re.compile(r"::TestEverySink::test_(?P<check>\w+)(?:\[(?P<case>.*)\])?$")
_CELLS: Final = {"passed": "ok", "skipped": "-", "failed": "FAILED"}
_WORST: Final = ["FAILED", "ok", "-"]


class Table:
    """A plugin of pytest that keeps what became of each check."""

    def __init__(self) -> None:
        self.cells: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(
            lambda: defaultdict(set)
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the result of a test, or of a setup that did not pass."""
        found = _NAME.search(report.nodeid)
        if found and (report.when == "call" or not report.passed):
            case = found["case"] or ""
            sink = re.split("[- ]", case)[0]
            self.cells[found["check"].replace("_", " ")][sink].add(_CELLS[report.outcome])

    def lines(self) -> list[str]:
        """The table in Markdown: a row per check, a column per sink."""
        sinks = list(dict.fromkeys(sink for row in self.cells.values() for sink in row))
        rows = [["check", *sinks], ["---"] * (len(sinks) + 1)]
        for check, row in sorted(self.cells.items()):
            rows.append([check, *(_worst(row[sink]) for sink in sinks)])
        return [f"| {' | '.join(row)} |" for row in rows]


def _worst(outcomes: set[str]) -> str:
    return next((cell for cell in _WORST if cell in outcomes), "-")


def main() -> int:
    """Print the table; returns the exit code of pytest."""
    table = Table()
    code = pytest.main(["-q", "-n", "2", "--no-header", "-k", "Sink and Test", _FILE], [table])
    click.echo("\nok: passes; -: not promised by the broker, or no such fault\n")
    click.echo("\n".join(table.lines()))
    return code


if __name__ == "__main__":
    sys.exit(main())
