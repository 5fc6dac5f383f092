"""The part of a product of parameters in which each pair of values meets."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import pytest


def leave_pairs(items: Sequence[pytest.Item]) -> None:
    """Mark as slow what the tests marked `pairs` need not run to see each pair once."""
    tests: dict[tuple[object, ...], list[pytest.Function]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("pairs"):
            tests[item.path, item.cls, item.originalname].append(item)
    for product in tests.values():
        needed = covering([_pairs(item) for item in product])
        for n, item in enumerate(product):
            if n not in needed:
                item.add_marker(pytest.mark.slow)


def covering(sets: Sequence[set[object]]) -> set[int]:
    """The places of few sets that together hold what all do: each time the one that adds most."""
    missing = set[object]().union(*sets)
    chosen = set[int]()
    while missing:
        best = max(range(len(sets)), key=lambda n: len(sets[n] & missing))
        chosen.add(best)
        missing -= sets[best]
    return chosen


def _pairs(item: pytest.Function) -> set[object]:
    # A value may have no hash; all tests of the product hold the same one.
    values = {name: id(value) for name, value in item.callspec.params.items()}
    return set(combinations(sorted(values.items()), 2))
