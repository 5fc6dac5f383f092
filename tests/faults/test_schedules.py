"""Whatever happens, the callers know what is stored: random schedules on a real database.

`make faults-writer N=10000 SEED=1` runs as many as one likes.
"""

from tests._support.schedules import Tally, prepare_database, run_schedule
from tests._support.tables import Tables

from dsql_outbox.testing import PostgresProxy

SCHEDULES = 80


def test_no_schedule_makes_a_writer_tell_a_lie(proxy: PostgresProxy, tables: Tables) -> None:
    prepare_database(tables)
    tally = Tally()
    for seed in range(SCHEDULES):
        tally.add(run_schedule(seed, proxy, tables))
    assert tally.mismatches == []
    assert tally.outcomes["Receipt (committed)"] > SCHEDULES, "void: hardly anything was stored"
    seen = set(tally.outcomes)
    expected = {"Receipt (duplicate)", "DuplicateEvent", "StaleVersion", "CheckViolation"}
    assert seen >= expected | {"OutcomeUnknown"}, "void: too little went wrong"
