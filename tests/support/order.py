"""The order in which tests run."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def pure_first(tests: Sequence[T], is_pure: Callable[[T], bool], processes: int) -> list[T]:
    """Each process begins with its share of the pure tests: the first that fails names the defect.

    pytest-xdist gives each process a piece of the list, of the same length.
    """
    pure = [each for each in tests if is_pure(each)]
    others = [each for each in tests if not is_pure(each)]
    ordered: list[T] = []
    for left in range(processes, 0, -1):
        share = len(pure) // left
        rest = (len(pure) + len(others)) // left - share
        ordered += [*pure[:share], *others[:rest]]
        del pure[:share], others[:rest]
    return ordered
