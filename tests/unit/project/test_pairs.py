"""A product of parameters that is too large runs as pairs."""

from itertools import combinations, product

import pytest
from tests.support.pairs import KINDS, by_turns, covering


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (2, 4, 2, 2), (7, 2, 2), (2, 2, 3, 2)])
def test_each_pair_is_in_few_of_the_product(sizes: tuple[int, ...]) -> None:
    every = list(product(*map(range, sizes)))
    sets = [set[object](combinations(enumerate(each), 2)) for each in every]
    chosen = covering(sets)
    first, second, *_ = sorted(sizes, reverse=True)
    assert set().union(*(sets[n] for n in chosen)) == set().union(*sets)
    assert first * second <= len(chosen) <= first * second + 2


def test_the_same_are_chosen_each_time() -> None:
    sets = [set[object](combinations(enumerate(each), 2)) for each in product(range(4), repeat=3)]
    assert covering(sets) == covering(list(sets))


def test_each_kind_has_about_half_of_the_tests() -> None:
    chosen = [by_turns(f"test_{n}.py test_something []") for n in range(1_000)]
    assert {chosen.count(kind) // 100 for kind in KINDS} <= {4, 5}
