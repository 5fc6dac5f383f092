"""The answers of one call: each counts once and in its turn, and a run ends in one way."""

from uuid import UUID

import pytest

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Delivered, NotAttempted, Outcome, Retry
from dsql_outbox.publisher.relay.answers import Answers

RUNS = "aaabbb"
"""The keys of the messages of a call."""


@pytest.fixture
def taken() -> list[tuple[int, Outcome]]:
    return []


@pytest.fixture
def answers(taken: list[tuple[int, Outcome]]) -> Answers:
    messages = [
        Message(UUID(int=n), "t", key, {}, b"{}", str(n), 1, 2, 1) for n, key in enumerate(RUNS)
    ]

    def take(index: int, outcome: Outcome) -> None:
        taken.append((index, outcome))

    return Answers(messages, take)


def test_a_failure_ends_its_run_and_no_other(
    answers: Answers, taken: list[tuple[int, Outcome]]
) -> None:
    given = [(0, Delivered()), (1, Retry("no")), (2, NotAttempted()), (3, Delivered())]
    for index, outcome in given:
        answers(index, outcome)
    assert taken == [given[0], given[1], given[3]]
    assert (answers.waiting(range(len(RUNS))), answers.missing()) == ([4, 5], [2, 4, 5])
    assert answers.fault is None


def test_the_end_of_a_call_ends_each_run_that_waits_once(
    answers: Answers, taken: list[tuple[int, Outcome]]
) -> None:
    answers(0, Delivered())
    answers.end_runs([0, 1])
    assert taken == [(0, Delivered()), (1, NotAttempted())]
    answers.end()
    assert taken[2:] == [(3, NotAttempted())]
    answers(3, Delivered())
    assert (answers.waiting(range(len(RUNS))), answers.missing()) == ([], [1, 2, 3, 4, 5])
    assert len(taken) == 3, "an answer that comes after the end counts for nothing"
