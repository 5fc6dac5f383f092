"""The growth of costs and the constant load: what is kept, and when a setting holds."""

import json
from pathlib import Path

from benchmarks.growth.curves import wide_event
from benchmarks.growth.publisher_process import Relayed, together
from benchmarks.growth.sustained import OFFERED, Sustained, slope
from benchmarks.kept_results import newest, save

GOOD = Sustained(2, 500, 120.0, OFFERED, 0.0, 300, 1_200_000, 0, 0.03, 0.3)


def test_a_setting_holds_when_rows_arrive_and_the_backlog_stays_small() -> None:
    assert GOOD.holds
    assert not GOOD._replace(arrived=0.98 * OFFERED).holds
    assert not GOOD._replace(growth=101.0).holds
    assert not GOOD._replace(waiting=20_001).holds


def test_growth_is_that_of_the_second_half() -> None:
    sizes = [(0.0, 0), (1.0, 9_000), (2.0, 1_000), (3.0, 1_050), (4.0, 1_100)]
    assert slope(sizes) == 50
    assert slope([(1.0, 7)]) == 0


def test_publishers_together_deliver_the_sum_and_are_as_late_as_the_latest() -> None:
    found = [Relayed(10, 1, 0.1, 0.2), Relayed(20, 0, 0.05, 0.4)]
    assert together(found) == Relayed(30, 1, 0.1, 0.4)


def test_a_wide_event_has_as_many_entities_of_different_names() -> None:
    found = json.loads(wide_event(7, 3))["entities"]
    assert [each["entityHeader"]["entityId"] for each in found] == ["CAR-7-0", "CAR-7-1", "CAR-7-2"]


def test_the_newest_results_of_a_kind_are_found_and_have_few_digits(tmp_path: Path) -> None:
    assert newest("peers", tmp_path) is None
    (tmp_path / "2020-01-01-peers.json").write_text("{}")
    save("peers", 1.0, {"rows": [{"rate": 12345.678, "events": 12345}]}, tmp_path)
    save("other", 1.0, {}, tmp_path)
    found = newest("peers", tmp_path)
    assert found is not None
    assert found["rows"] == [{"rate": 12350.0, "events": 12345}]
    assert "cores" in found["machine"]
