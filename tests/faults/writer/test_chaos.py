"""Many writers on few entities while everything that can go wrong does, in random order."""

from dataclasses import replace
from functools import partial
from random import Random

import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, Facts, OpenWriter, outcome_of, with_workers
from tests.support.writer.checked_tables import Outcome, Tables

from dsql_outbox.observability.facts import AttemptEnded
from dsql_outbox.outbox import Database, Event, OutcomeUnknown, Receipt
from dsql_outbox.writer import WriterSettings

LOOK_UP = "WHERE id = "
FAULTS = 25


def set_faults(proxy: PostgresProxy, random: Random) -> None:
    """One fault after the other: the next write meets the first one, and so on."""
    faults = [
        partial(proxy.refuse, 1),
        partial(proxy.refuse, 1, sqlstate="40P01", message="deadlock detected"),
        partial(proxy.refuse, 1, sqlstate="23505", message="duplicate key (oc000)"),
        partial(proxy.cut, "before"),
        partial(proxy.cut, "after_sent"),
        partial(proxy.cut, "after_commit"),
        partial(proxy.cut, "after_commit", reset=True),
        partial(proxy.cut, "mid_answer"),
        partial(proxy.cut, "before", matching=LOOK_UP),
        partial(proxy.refuse, 1, matching=LOOK_UP),
    ]
    for _ in range(FAULTS):
        random.choice(faults)()


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "settings",
    [QUICK, replace(QUICK, max_outage=0.004)],
    ids=["patient", "impatient"],
)
def test_whatever_happens_the_callers_know_what_is_stored(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    tables: Tables,
    seed: int,
    settings: WriterSettings,
) -> None:
    """Facts 2, 15 and 24 together; no exception but the unknown one may hide a stored event."""
    facts = Facts()
    database = Database(proxy.url, isolation="repeatable read")
    caller = open_writer(database, replace(settings, max_connections=3), [facts])
    events = [event for events in workload_s.hot() for event in events]
    set_faults(proxy, Random(seed))

    def write(event: Event) -> Outcome:
        return outcome_of(partial(caller.write, event))

    results = with_workers(workload_s.WORKERS, write, events)
    outcomes = {event.id: result for event, result in zip(events, results, strict=True)}
    tables.assert_true_to(outcomes)
    seen = {fact.outcome for fact in facts.of(AttemptEnded)}
    assert seen >= {"committed", "conflict", "in_doubt", "resolved"}, "void: too little went wrong"

    proxy.heal()
    for event in events:
        outcome = outcomes[event.id]
        if isinstance(outcome, Exception):
            again = caller.write(event, on_duplicate="return")
            assert again.status == "committed" or isinstance(outcome, OutcomeUnknown)
            outcomes[event.id] = again
    assert all(isinstance(outcome, Receipt) for outcome in outcomes.values())
    tables.assert_true_to(outcomes)
    assert len(tables.events()) == len(events)
