"""One line of the benchmark of the doors."""

from collections.abc import Callable
from typing import NamedTuple


class Line(NamedTuple):
    """A call of a door, and the bare call that does the same work without it."""

    name: str
    bare: Callable[[], object]
    door: Callable[[], object]
