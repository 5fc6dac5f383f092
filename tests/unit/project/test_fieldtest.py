"""The field test: what its columns count, what is written, and how results are shown."""

import json

import pytest
from benchmarks.fieldtest.__main__ import UnknownName, select
from benchmarks.fieldtest.harms import HARMS
from benchmarks.fieldtest.judge import Result, judge
from benchmarks.fieldtest.libraries import LIBRARIES
from benchmarks.fieldtest.schedule import LANES, events, lanes
from benchmarks.fieldtest.table import Report, markdown, markdown_libraries, text
from tests.support.checkout import ROOT

KEYS = {1: "a", 2: "a", 3: "b", 4: "a", 5: "b"}
OURS, *_, LOOP = LIBRARIES
KILL = HARMS[1]


def result(seed: int, **found: int) -> Result:
    counts = {"lost": 0, "reordered": 0, "repeated": 0, "kept": 0, "waiting": 0} | found
    return Result(
        library=OURS.name, harm=KILL.name, seed=seed, restarts=0, seconds=1.0, first={}, **counts
    )


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


def test_one_connection_writes_all_events_of_a_key_in_their_order() -> None:
    found = events(7, 300, 10)
    each = lanes(7, found, held=True)
    written = [[event for one in lane for event in one.events] for lane in each]
    assert sorted(event for lane in written for event in lane) == found
    assert len(each) == LANES
    assert all(lane == sorted(lane) for lane in written)
    keys = [{event.key for event in lane} for lane in written]
    assert sum(map(len, keys)) == len({event.key for event in found})
    assert any(one.hold for lane in each for one in lane)
    assert not any(one.hold for lane in lanes(7, found, held=False) for one in lane)


def test_a_seed_always_writes_the_same() -> None:
    assert events(3, 100, 5) == events(3, 100, 5) != events(4, 100, 5)
    assert lanes(3, events(3, 100, 5), held=True) == lanes(3, events(3, 100, 5), held=True)


def test_a_cell_says_in_how_many_seeds_something_was_found() -> None:
    report = Report(
        [result(1, repeated=7), result(2), result(3, repeated=5, kept=2)], {}, {}, [1, 2, 3], {}
    )
    (row,) = [line for line in text(report, KILL, [OURS]) if line.startswith(f"  {OURS.name}")]
    assert "0 (0 of 3)" in row
    assert "12 (2 of 3)" in row
    assert "2 given up and kept" in row


def test_what_was_not_run_has_the_reason_and_what_is_not_promised_is_counted_all_the_same() -> None:
    unordered = result(1, reordered=4)._replace(library=LOOP.name)
    report = Report([unordered], {}, {OURS.name: "no such file"}, [1], {})
    rows = [line for line in markdown(report, [KILL], [OURS, LOOP]) if line.startswith("| ")]
    assert rows[3:6] + rows[-2:] == [
        "| library | lost | reordered within a key | repeated | |",
        "| --- | --- | --- | --- | --- |",
        "| dsql-outbox | not run | | | |",
        "| dsql-outbox | not run |",
        "| a table and a loop | 0 / 4 / 0 |",
    ]
    assert "| a table and a loop | 0 (0 of 1) | 4 (1 of 1), not promised | 0 (0 of 1) |  |" in rows
    assert any("not run: `no such file`" in row for row in markdown_libraries(report, [OURS]))


def test_results_are_the_same_after_they_were_written_to_a_file() -> None:
    report = Report([result(1, lost=2)], {OURS.name: "0.1.0"}, {}, [1], {"events": 9})
    assert Report.of_json(report.as_json()) == report


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    assert select("pause,kill", HARMS) == [HARMS[3], HARMS[1]]
    with pytest.raises(UnknownName, match=r"no 'fire': there are late-commit, kill"):
        select("kill,fire", HARMS)


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
