"""Whatever happens, the callers know what is stored: random schedules on a real database.

`make faults-writer N=10000 SEED=1` runs as many as one likes, and with DRIVERS=all callers have
sessions of their own.
"""

from collections.abc import Sequence

import pytest
from tests.support.writer.checked_tables import Tables
from tests.support.writer.consumer_units import CONSUMERS
from tests.support.writer.schedules import Tally, prepare_database, run_schedule
from tests.support.writer.session_units import WAYS, Way
from tests.support.writer.slow_openings import SlowOpenings

MAX_SCHEDULES = 240
EXPECTED = {
    "Receipt (duplicate)",
    "DuplicateEvent",
    "StaleVersion",
    "CheckViolation",
    "OutcomeUnknown",
    "NotStored",
    "RaiseException",
}
"""What goes wrong, sooner or later: when depends on the machine, whatever the seed."""


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("schedules", "kinds"),
    [(20, 4), pytest.param(25, len(EXPECTED) - 1, marks=pytest.mark.slow)],
)
def test_no_schedule_makes_a_writer_tell_a_lie(
    url: str, tables: Tables, schedules: int, kinds: int
) -> None:
    prepare_database(tables)
    tally = Tally()
    with SlowOpenings(url) as proxy:
        for seed in range(MAX_SCHEDULES):
            tally.add(run_schedule(seed, proxy, tables))
            if seed + 1 >= schedules and len(EXPECTED & set(tally.outcomes)) >= kinds:
                break
    assert tally.mismatches == []
    assert tally.outcomes["Receipt (committed)"] > schedules, "void: hardly anything was stored"
    assert len(EXPECTED & set(tally.outcomes)) >= kinds, "void: too little went wrong"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
# An interrupt at any point may leave a connection to nobody: then it is closed as an object.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("ways", [WAYS, CONSUMERS], ids=["callers", "consumers"])
def test_no_schedule_tears_a_row_of_the_caller_from_its_event_or_message(
    url: str, tables: Tables, ways: Sequence[Way]
) -> None:
    prepare_database(tables)
    tally = Tally()
    with SlowOpenings(url) as proxy:
        for seed in range(MAX_SCHEDULES):
            tally.add(run_schedule(seed, proxy, tables, ways=ways))
            if seed + 1 >= len(ways) and _ways_that_stored(tally) == {way.name for way in ways}:
                break
    assert tally.mismatches == []
    assert _ways_that_stored(tally) == {way.name for way in ways}, "void: too little was stored"
    assert {"OutcomeUnknown", "StaleVersion"} <= set(tally.outcomes), "void: too little went wrong"


def _ways_that_stored(tally: Tally) -> set[str]:
    return {name.partition(":")[0] for name in tally.ways if name.endswith("Receipt (committed)")}
