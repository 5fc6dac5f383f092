"""The lines of `make goals`: selected by name, and whether their goals hold. Nothing is timed."""

import json

import pytest
from benchmarks.goals.__main__ import GROUPS, options
from benchmarks.goals.conditions import Conditions, Sizes
from benchmarks.goals.goal import (
    Goal,
    Line,
    NotMeasuredError,
    Result,
    UnknownGoals,
    results,
    select,
)


def test_without_a_selection_all_lines_are_measured_once_and_their_names_differ() -> None:
    lines = select(options().parse_args([]).only, GROUPS)
    assert all(line in lines for group in GROUPS.values() for line in group)
    assert len({line.name for line in lines}) == len(lines)


def test_a_selection_names_groups_and_lines_and_each_line_comes_once() -> None:
    assert select("relay", GROUPS) == list(GROUPS["relay"])
    only = options().parse_args(["--only", "hot,failed,forget,hot"]).only
    assert [line.name for line in select(only, GROUPS)] == ["hot", "failed", "forget"]


@pytest.mark.parametrize("only", ["cold", "hot,cold"])
def test_an_unknown_name_is_refused_with_those_that_exist(only: str) -> None:
    with pytest.raises(UnknownGoals, match=r"'cold': there are .*hot"):
        select(only, GROUPS)


def test_every_line_measures_or_says_what_is_missing() -> None:
    for line in select("", GROUPS):
        assert line.goals
        assert (line.measure is None) == bool(line.missing)


def test_a_limit_is_an_upper_or_a_lower_one() -> None:
    most, least = Goal("a", 2, most=True), Goal("b", 2)
    found = [Result("x", goal, value).verdict for goal in (most, least) for value in (1, 2, 3)]
    assert found == ["holds", "holds", "misses", "misses", "holds", "holds"]


def test_what_cannot_be_measured_neither_holds_nor_misses() -> None:
    line = Line("kafka", [Goal("rate", 2, unit=" /s")], None, "needs a Kafka")
    (result,) = results(line, Conditions(Sizes()))
    assert result.verdict == "not measured"
    assert str(result).endswith("not measured: needs a Kafka")
    assert json.loads(json.dumps(result.as_json()))["measured"] is None


def test_a_line_whose_peer_is_not_installed_is_not_measured_and_says_so() -> None:
    def measure(_: Conditions) -> list[float]:
        raise NotMeasuredError("No module named 'asyncpg'")

    line = Line("many", [Goal("ratio", 0.45), Goal("rate", 1)], measure)
    found = list(results(line, Conditions(Sizes())))
    assert [result.verdict for result in found] == ["not measured"] * 2
    assert str(found[0]).endswith("not measured: No module named 'asyncpg'")
