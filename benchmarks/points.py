"""Rare points of a program: a campaign shows nothing of a branch that it never reached."""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, NamedTuple
from unittest.mock import patch


class Point(NamedTuple):
    """A branch that keeps a promise in a rare case: a call of a method whose arguments are so."""

    name: str
    owner: type
    method: str
    is_there: Callable[..., bool]


@contextmanager
def counted(points: Sequence[Point], counts: Counter[str]) -> Generator[None]:
    """Count in the block how often the program comes to each point."""
    with ExitStack() as stack:
        for point in points:
            counting = _counting(point, counts)
            stack.enter_context(patch.object(point.owner, point.method, counting))
        yield


def missed(points: Sequence[Point], counts: Counter[str]) -> list[str]:
    """The names of the points that a program never came to."""
    return [point.name for point in points if not counts[point.name]]


def _counting(point: Point, counts: Counter[str]) -> Callable[..., Any]:
    right = getattr(point.owner, point.method)

    @wraps(right)
    def method(*arguments: Any, **options: Any) -> Any:
        if point.is_there(*arguments, **options):
            counts[point.name] += 1
        return right(*arguments, **options)

    return method
