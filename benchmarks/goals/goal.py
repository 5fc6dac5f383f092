"""A goal, the lines that measure goals, and how lines are selected and reported. No I/O."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from .conditions import Conditions


class UnknownGoals(ValueError):
    """A selection names a group or a line that does not exist."""


class NotMeasuredError(Exception):
    """A line cannot be measured here; the message names the missing part."""


class Goal(NamedTuple):
    """A value that a line measures, and its limit: an upper one if `most`, else a lower one."""

    name: str
    limit: float
    most: bool = False
    unit: str = ""

    def holds(self, value: float) -> bool:
        """Whether a measured value keeps to the limit."""
        return value <= self.limit if self.most else value >= self.limit


class Line(NamedTuple):
    """Goals that are measured together: `measure` returns one value per goal.

    A line without `measure` can never be measured here, for the reason `missing`; one whose
    `measure` raises `NotMeasuredError` cannot be measured now.
    """

    name: str
    goals: Sequence[Goal]
    measure: Callable[[Conditions], Sequence[float]] | None
    missing: str = ""


class Result(NamedTuple):
    """The result of a goal. `value` is None if it was not measured."""

    line: str
    goal: Goal
    value: float | None
    missing: str = ""

    @property
    def verdict(self) -> str:
        """``holds``, ``misses`` or ``not measured``."""
        if self.value is None:
            return "not measured"
        return "holds" if self.goal.holds(self.value) else "misses"

    def __str__(self) -> str:
        goal = self.goal
        sign = "<=" if goal.most else ">="
        measured = "-" if self.value is None else f"{self.value:,.4g}{goal.unit}"
        limit = f"{sign} {goal.limit:,g}{goal.unit}"
        why = f": {self.missing}" if self.value is None else ""
        return f"{self.line:<11} {goal.name:<63} {measured:>11}  {limit:<13} {self.verdict}{why}"

    def as_json(self) -> dict[str, object]:
        """The result as one JSON object."""
        goal = self.goal
        return {
            "line": self.line, "name": goal.name, "measured": self.value, "unit": goal.unit.strip(),
            "goal": goal.limit, "at_most": goal.most, "verdict": self.verdict,
            "missing": self.missing or None,
        }  # fmt: skip


def select(only: str, groups: Mapping[str, Sequence[Line]]) -> list[Line]:
    """The lines that ``relay`` (a group) or ``failed,hot`` names, each once; empty means all.

    Raises `UnknownGoals`.
    """
    known = {line.name: [line] for lines in groups.values() for line in lines} | dict(groups)
    names = only.split(",") if only else list(groups)
    if unknown := [name for name in names if name not in known]:
        raise UnknownGoals(
            f"no goals {', '.join(map(repr, unknown))}: there are {', '.join(known)}"
        )
    return list({line.name: line for name in names for line in known[name]}.values())


def results(line: Line, conditions: Conditions) -> Iterable[Result]:
    """Measure a line."""
    if line.measure is None:
        return [Result(line.name, goal, None, line.missing) for goal in line.goals]
    try:
        values = line.measure(conditions)
    except NotMeasuredError as error:
        return [Result(line.name, goal, None, str(error)) for goal in line.goals]
    return [Result(line.name, *each) for each in zip(line.goals, values, strict=True)]
