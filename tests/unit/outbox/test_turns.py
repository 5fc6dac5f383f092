"""The lines of entities: the order of turns, whatever is named in whatever order."""

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.writer.callers import TIMEOUT

from dsql_outbox.outbox.unit_of_work import loops
from dsql_outbox.outbox.unit_of_work.primitives import TakeTurn
from dsql_outbox.outbox.unit_of_work.turns import Turn, Turns

NAMES = st.lists(st.sampled_from([("Car", str(n)) for n in range(4)]), max_size=4)


class Lines:
    """Turns, and whose turn it was, in order."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.running: dict[int, Turn] = {}
        self.waiting: dict[int, Turn] = {}

    def join(self, number: int, names: Sequence[tuple[str, str]]) -> None:
        turn = Turn(names, has_conflicted=lambda: False)
        self.waiting[number] = turn
        if self.turns.join(turn, lambda: self.run(number)):
            self.run(number)

    def run(self, number: int) -> None:
        if number in self.running:
            return  # a turn may be told more than once that it has come
        turn = self.waiting.pop(number)
        assert all(turn.entities.isdisjoint(other.entities) for other in self.running.values())
        before = (other for n, other in self.waiting.items() if n < number)
        assert all(turn.entities.isdisjoint(other.entities) for other in before), "overtaken"
        self.running[number] = turn

    def leave(self, number: int) -> None:
        turn = self.running.pop(number, None) or self.waiting.pop(number)
        self.turns.leave(turn)
        self.turns.leave(turn)  # once more, as after an interrupt

    @property
    def may_run(self) -> list[int]:
        """The calls that wait although nobody before them names one of their entities."""
        ahead = {**self.running, **self.waiting}
        return [
            n
            for n, turn in self.waiting.items()
            if all(turn.entities.isdisjoint(o.entities) for m, o in ahead.items() if m < n)
        ]


@settings(max_examples=300)
@given(calls=st.lists(NAMES, min_size=1, max_size=12), ends=st.lists(st.integers(0, 11)))
def test_of_calls_that_share_an_entity_one_runs_at_a_time_and_none_is_overtaken(
    calls: list[list[tuple[str, str]]], ends: list[int]
) -> None:
    lines = Lines()
    for number, names in enumerate(calls):
        lines.join(number, names)
        assert not lines.may_run
    for number in ends:  # one that runs has ended, or one that waits has given up
        if number in lines.running or number in lines.waiting:
            lines.leave(number)
            assert not lines.may_run
    while lines.running:
        lines.leave(next(iter(lines.running)))
        assert not lines.may_run
    assert not lines.waiting, "nobody waits for ever"
    assert not lines.turns._lines, "nothing is kept of those that have left"


def never() -> bool:
    return False


def nobody() -> None:
    """Nobody is woken."""


def by_thread(wanted: TakeTurn) -> bool:
    return bool(loops.do(wanted))


def by_task(wanted: TakeTurn) -> bool:
    return bool(asyncio.run(loops.do_async(wanted)))


@pytest.mark.parametrize("take", [by_thread, by_task])
def test_a_turn_ends_with_its_call_even_if_that_never_leaves(
    monkeypatch: pytest.MonkeyPatch, take: Callable[[TakeTurn], bool]
) -> None:
    monkeypatch.setattr(loops, "_LOOK", 0.01)
    names = [("Car", "1"), ("Car", "2")]
    calls = [Turn(names, never)]

    class Interrupted(Turns):
        """The first call is gone when the second one has begun to wait."""

        def join(self, turn: Turn, wake: Callable[[], None]) -> bool:
            has_come = super().join(turn, wake)
            if turn not in calls:
                calls.clear()
            return has_come

    turns = Interrupted()
    assert turns.join(calls[0], nobody)
    second = Turn(names[1:], never)
    assert take(TakeTurn(turns, second, monotonic() + TIMEOUT))
    turns.leave(second)
    assert turns.join(Turn(names, never), nobody)


def test_a_turn_that_begins_to_leave_has_left() -> None:
    """An interrupt may come before the lines are told."""
    turns, names = Turns(), [("Car", "1")]
    first, second = Turn(names, never), Turn(names, never)
    assert turns.join(first, nobody)
    assert not turns.join(second, nobody)
    first.has_left = True
    assert turns.has_come(second)
