"""Hermitage's cases: each judgement turns when the anomaly of its case is seen."""

import pytest
from benchmarks.cluster.isolation import judge_cases
from benchmarks.cluster.isolation_cases import (
    CASES,
    Case,
    Ran,
    Rows,
    _serial,
    judge,
)

CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def ran(case: Case, *committed: int) -> Ran:
    """The run that snapshot isolation shows if these sessions commit."""
    steps = list(case.steps())
    return Ran([step.expected for step in steps], committed, _serial(steps, committed))


def sessions(case: Case) -> list[int]:
    return [step.session for step in case.steps() if step.name == "COMMIT"]


@CASE
def test_what_snapshot_isolation_shows_is_no_anomaly(case: Case) -> None:
    if case.conflict:
        assert judge(case, ran(case, 1)) == judge(case, ran(case)) == "prevented"
    else:
        expected = "possible" if case.allowed else "prevented"
        assert judge(case, ran(case, *sessions(case))) == expected


@CASE
def test_two_commits_after_a_conflict_are_an_anomaly(case: Case) -> None:
    if case.conflict:
        assert judge(case, ran(case, 1, 2)) == "broken"


@CASE
def test_a_strange_read_is_an_anomaly(case: Case) -> None:
    found = ran(case, 1, 3)
    sane = judge(case, found)
    for n, (step, rows) in enumerate(zip(case.steps(), found.reads, strict=True)):
        if rows is not None:
            strange: list[Rows | None] = [*found.reads]
            strange[n] = {**rows, 1: 101}
            counts = step.session in found.committed
            assert judge(case, found._replace(reads=strange)) == ("broken" if counts else sane)


@CASE
def test_rows_that_no_commit_explains_are_an_anomaly(case: Case) -> None:
    found = ran(case, 1)
    assert judge(case, found._replace(left={**found.left, 2: -1})) == "broken"


def test_names_differ_and_every_case_ends_its_sessions() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        steps = list(case.steps())
        ended = {step.session for step in steps if step.name in {"COMMIT", "ROLLBACK"}}
        assert ended == {step.session for step in steps}, case.name


def test_a_broken_case_is_a_failure_that_names_it() -> None:
    told = judge_cases({"G0": "prevented", "P4": "broken", "G2": "possible"})
    assert (told.verdict, told.text) == ("fail", "anomalies that snapshot isolation prevents: P4")
    told = judge_cases({"G0": "prevented", "G2": "possible"})
    assert told.verdict == "ok"
    assert told.text.endswith("allows the others: G2")
