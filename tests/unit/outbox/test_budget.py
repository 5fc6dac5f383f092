"""One loop that tries again: which errors, how often, and after how long."""

from collections.abc import Callable

import anyio
import psycopg
import pytest
from psycopg import errors

from dsql_outbox.outbox.failure import CONFLICTS, FailureKind, Moved
from dsql_outbox.outbox.unit_of_work import loops as module
from dsql_outbox.outbox.unit_of_work.budget import AT_ONCE, OPERATOR, Budget

BUDGET = Budget(CONFLICTS, times=3, base=1.0, cap=9.0, at_once=True)
CONFLICT = errors.SerializationFailure("change conflicts (OC000)")

Run = Callable[[Budget, Callable[[], int]], int]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of both loops, which take no time here."""
    found: list[float] = []

    async def note(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(module, "sleep", found.append)
    monkeypatch.setattr(anyio, "sleep", note)
    return found


def run_sync(budget: Budget, work: Callable[[], int]) -> int:
    return budget.run(work)


def run_async(budget: Budget, work: Callable[[], int]) -> int:
    async def task() -> int:
        return work()

    return anyio.run(budget.run_async, task)


both = pytest.mark.parametrize("run", [run_sync, run_async])


class Work:
    """Raises so many errors, one after the other, then returns how often it ran."""

    def __init__(self, *failures: Exception) -> None:
        self.runs = 0
        self._failures = list(failures)

    def __call__(self) -> int:
        self.runs += 1
        if self._failures:
            raise self._failures.pop(0)
        return self.runs


@both
def test_work_that_does_well_runs_once(run: Run, waits: list[float]) -> None:
    assert run(BUDGET, Work()) == 1
    assert waits == []


@both
def test_a_conflict_is_followed_by_another_try(run: Run, waits: list[float]) -> None:
    assert run(BUDGET, Work(CONFLICT, Moved(), CONFLICT)) == 4
    assert waits[0] == 0
    assert 1.0 <= waits[1] <= 1.25
    assert 2.0 <= waits[2] <= 2.5


@both
def test_the_error_of_the_last_try_is_raised(run: Run, waits: list[float]) -> None:
    last = errors.DeadlockDetected("the last")
    work = Work(CONFLICT, CONFLICT, CONFLICT, last)
    with pytest.raises(errors.DeadlockDetected) as raised:
        run(BUDGET, work)
    assert raised.value is last
    assert (work.runs, len(waits)) == (4, 3)


@both
@pytest.mark.parametrize(
    "error",
    [errors.UniqueViolation("taken"), psycopg.OperationalError("lost"), ValueError("OC000")],
)
def test_an_error_of_another_meaning_is_raised_at_once(
    run: Run, waits: list[float], error: Exception
) -> None:
    work = Work(CONFLICT, error)
    with pytest.raises(type(error)) as raised:
        run(BUDGET, work)
    assert raised.value is error
    assert (work.runs, len(waits)) == (2, 1)


@both
def test_the_meanings_that_are_tried_again_are_the_budgets(run: Run, waits: list[float]) -> None:
    taken = Budget({FailureKind.COLLISION}, times=1, base=0.5)
    assert run(taken, Work(errors.UniqueViolation("taken"))) == 2
    with pytest.raises(errors.SerializationFailure):
        run(taken, Work(CONFLICT))
    assert len(waits) == 1


def test_the_waits_alone() -> None:
    assert [OPERATOR.wait(nth, lambda: 0.0) for nth in range(1, 6)] == [0.0, 0.05, 0.1, 0.2, 0.4]
    assert [AT_ONCE.wait(nth, lambda: 1.0) for nth in range(1, 4)] == [0.0, 0.0, 0.0]
    assert BUDGET.wait(5, lambda: 1.0) == 9.0
