"""docs/scale.md: its tables are what the script prints, and its text says the same."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from benchmarks import scale
from tests.support.checkout import ROOT

PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())


@pytest.mark.parametrize("rows", [scale.limits, scale.sizes, scale.bills])
def test_the_tables_are_those_of_the_script(rows: Callable[[], Iterator[Sequence[str]]]) -> None:
    assert scale.table(rows()) in PAGE


def test_the_text_says_what_the_tables_say() -> None:
    costs, (small, _, large) = scale.costs(), map(scale.plan, scale.RATES)
    of_cell = large.connections_single / large.cells
    for said in (
        f"An event leaves {costs.stored:,} bytes",
        f"is full after {scale.days_until_full(small.rate):.0f} days",
        f"in single transactions a cell has {of_cell:,.0f}",
        f"{of_cell:,.0f} take {of_cell / 100:.0f} seconds",
        f"{scale.CLUSTERS} single-Region clusters per Region before an increase",
        f"{large.cells} cells need one",
        f"{scale.CLUSTER_ROWS:,} rows per second",
        f"{costs.write / (costs.write + costs.relay):.0%}".replace("%", " % of the bill"),
    ):
        assert said in TEXT
