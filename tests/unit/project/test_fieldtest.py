"""The field test: what its columns count, and the results that its page shows."""

import json

import pytest
from benchmarks.fieldtest.harms import HARMS
from benchmarks.fieldtest.judge import judge
from benchmarks.fieldtest.libraries import LIBRARIES
from benchmarks.fieldtest.table import Report, markdown, markdown_libraries
from tests.support.checkout import ROOT

KEYS = {1: "a", 2: "a", 3: "b", 4: "a", 5: "b"}
OURS, *_ = LIBRARIES


@pytest.mark.parametrize(
    ("stored", "missing", "reordered", "repeated"),
    [
        ([1, 2, 3, 4, 5], [], [], []),
        ([3, 5, 1, 2, 4], [], [], []),  # between keys no order is asked for
        ([1, 3, 4, 5], [2], [], []),
        ([1, 4, 2, 3, 5], [], [2], []),
        ([4, 1, 2, 3, 5], [], [1, 2], []),  # both are behind a later one
        ([1, 2, 1, 2, 3, 4, 5], [], [], [1, 2]),  # a repeat is not out of order
        ([1, 2, 2, 2, 3, 4, 5], [], [], [2, 2]),
        ([], [1, 2, 3, 4, 5], [], []),
    ],
)
def test_first_deliveries_have_an_order_and_others_are_repeats(
    stored: list[int], missing: list[int], reordered: list[int], repeated: list[int]
) -> None:
    assert judge(KEYS, stored) == (missing, reordered, repeated)


def test_the_page_shows_the_newest_results() -> None:
    newest = max((ROOT / "benchmarks/fieldtest/results").glob("*.json"))
    report = Report.of_json(json.loads(newest.read_text()))
    page = (ROOT / "docs/fieldtest.md").read_text()
    assert "\n".join(markdown(report, HARMS, LIBRARIES)) in page
    assert "\n".join(markdown_libraries(report, LIBRARIES)) in page
    assert all(f"{report.conditions[name]:,}" in page for name in ("events", "keys", "seconds"))
    assert report.conditions["date"] in page


def test_ours_lost_and_reordered_nothing_in_the_results_that_the_page_shows() -> None:
    newest = max((ROOT / "benchmarks/fieldtest/results").glob("*.json"))
    ours = Report.of_json(json.loads(newest.read_text())).cell(OURS)
    assert len(ours.results) >= len(HARMS)
    assert not any(
        each.lost or each.reordered or each.kept or each.waiting for each in ours.results
    )
