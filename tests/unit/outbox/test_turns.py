"""The lines of entities: the order of turns, whatever is named in whatever order."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from dsql_outbox.outbox import Turn, Turns

NAMES = st.lists(st.sampled_from([("Car", str(n)) for n in range(4)]), max_size=4)


class Lines:
    """Turns, and whose turn it was, in order."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.running: dict[int, Turn] = {}
        self.waiting: dict[int, Turn] = {}

    def join(self, number: int, names: Sequence[tuple[str, str]]) -> None:
        turn = Turn(names)
        self.waiting[number] = turn
        if self.turns.join(turn, lambda: self.run(number)):
            self.run(number)

    def run(self, number: int) -> None:
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
