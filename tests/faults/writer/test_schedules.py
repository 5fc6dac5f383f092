"""Whatever happens, the callers know what is stored: random schedules on a real database.

`make faults-writer N=10000 SEED=1` runs as many as one likes.
"""

import pytest
from tests.support.writer.checked_tables import Tables
from tests.support.writer.schedules import Tally, prepare_database, run_schedule
from tests.support.writer.slow_openings import SlowOpenings

SCHEDULES = 40
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
def test_no_schedule_makes_a_writer_tell_a_lie(url: str, tables: Tables) -> None:
    prepare_database(tables)
    tally = Tally()
    with SlowOpenings(url) as proxy:
        for seed in range(MAX_SCHEDULES):
            tally.add(run_schedule(seed, proxy, tables))
            if seed + 1 >= SCHEDULES and set(tally.outcomes) >= EXPECTED:
                break
    assert tally.mismatches == []
    assert tally.outcomes["Receipt (committed)"] > SCHEDULES, "void: hardly anything was stored"
    assert set(tally.outcomes) >= EXPECTED, "void: too little went wrong"
