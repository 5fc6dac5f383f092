"""A night holds if no rule was broken, and its end is as its start."""

from dataclasses import replace

import pytest
from benchmarks.night.kept import BOUNDS, Night, Sample, rows

QUIET = Sample(0.0, 70.0, 50.0, 4.0, 100.0, 1.0, 2.0, 0.5)


def night(**at_the_end: float) -> Night:
    """Two hours with a look and three events a minute; the last hour has these values."""
    looks = [QUIET._replace(at=60.0 * n, **(at_the_end if n >= 60 else {})) for n in range(120)]
    delays = [(60.0 * n + k, 0.01) for n in range(120) for k in range(3)]
    kept = list(rows(looks, delays, 7200))
    return Night(
        date="", machine="", hours=2, rate=50, every=60, events=360, failed=0, stored_twice=0,
        rules={"never delivered": 0}, restarts=[], rows=kept,
    )  # fmt: skip


def test_a_night_that_ends_as_it_began_holds() -> None:
    quiet = night()
    assert quiet.holds
    assert {(ends.start, ends.end) for ends in quiet.ends if ends.name == "p50_ms"} == {(10, 10)}
    assert not replace(quiet, rules={"never delivered": 1}).holds


@pytest.mark.parametrize("name", [name for name in Sample._fields if name in BOUNDS])
def test_a_column_that_ends_above_its_bound_is_named(name: str) -> None:
    bound, start = BOUNDS[name], getattr(QUIET, name)
    assert night(**{name: start * bound.times + bound.more}).holds
    worse = night(**{name: start * bound.times + bound.more + 0.1})
    assert [ends.name for ends in worse.ends if not ends.holds] == [name]
