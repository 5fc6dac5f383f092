"""The part of the tests of a product of parameters that runs in `make test`."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations, product
from typing import Any, Final
from zlib import crc32

import pytest
from tests.support.checkout import ROOT

KINDS: Final = ("threads", "asyncio")


def leave_pairs(items: Sequence[pytest.Item]) -> None:
    """Mark as slow what the tests marked `pairs` need not run to see each pair once."""
    tests: dict[tuple[object, ...], list[pytest.Function]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("pairs"):
            tests[item.path, item.cls, item.originalname].append(item)
    for items_of_test in tests.values():
        needed = covering([_pairs(item) for item in items_of_test])
        for n, item in enumerate(items_of_test):
            if n not in needed:
                item.add_marker(pytest.mark.slow)


def leave_one_kind(items: Sequence[pytest.Item]) -> None:
    """Mark as slow one kind of writer, inbox or application of each test, by turns.

    Both kinds are loops over the same programs. The tests of a promise run with both.
    """
    promised = (ROOT / "tests" / "promises.md").read_text(encoding="utf-8")
    for item in items:
        if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
            continue
        kinds = [each for each in item.callspec.params.values() if each in KINDS]
        if kinds and f"{item.path.name}::{item.originalname}" not in promised:
            others = [part for part in item.callspec.id.split("-") if part not in KINDS]
            if kinds[0] != by_turns(f"{item.path.name} {item.originalname} {others}"):
                item.add_marker(pytest.mark.slow)


def in_turn(
    common: Sequence[Any], others: Sequence[Any], values: Sequence[Any]
) -> list[tuple[Any, Any]]:
    """Each value with each of the common kinds, and one after the other with the other kinds.

    Each of the other kinds gets a value, and each value one of them.
    """
    turns = range(max(len(others), len(values)))
    return [
        *product(common, values),
        *((others[n % len(others)], values[n % len(values)]) for n in turns),
    ]


def by_turns(test: str) -> str:
    """The kind with which a test runs, each time the same one."""
    return KINDS[crc32(test.encode()) % len(KINDS)]


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
