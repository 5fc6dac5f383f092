"""The server is killed in the middle of a write, and started again or not."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from time import monotonic

import pytest
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import (
    QUICK,
    TIMEOUT,
    Facts,
    OpenWriter,
    in_background,
    outcome_of,
)
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import AttemptEnded, RetryScheduled
from dsql_outbox.outbox import Database, Event, OutcomeUnknown, Receipt
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres

PATIENT = replace(QUICK, cap=0.2)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that no other test needs."""
    with EmbeddedPostgres(settings={"fsync": "off"}) as server:
        apply(Database(server.url))
        yield server


@pytest.fixture(autouse=True)
def _is_running_and_empty(server: EmbeddedPostgres) -> Iterator[None]:
    with Tables(server.url) as tables:
        tables.execute(
            "TRUNCATE outbox.business_events, outbox.event_headers, outbox.entities, outbox.outbox"
        )
    yield
    server.start()


@pytest.mark.parametrize(
    "event", [workload_s.car_created(), workload_s.three_entities()], ids=["1 entity", "3 entities"]
)
def test_a_server_killed_during_a_write_and_started_again_has_the_event_once(
    open_writer: OpenWriter, server: EmbeddedPostgres, facts: Facts, event: Event
) -> None:
    caller = open_writer(server.url, PATIENT, [facts])
    before = [caller.write(workload_s.car_created(f"CAR-{n}")) for n in range(10, 14)]
    with Tables(server.url) as holder, Tables(server.url) as watch:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE outbox.entities")
        pending = in_background(partial(caller.write, event))
        wait_until(lambda: watch.blocked() == 1)
        server.kill()
    wait_until(lambda: len(facts.of(RetryScheduled)) > 0)
    server.start()
    receipt = pending.result(TIMEOUT)
    assert isinstance(receipt, Receipt)
    assert receipt.attempts > 1
    assert facts.of(AttemptEnded, event.id)[0].outcome == "in_doubt"
    after = caller.write(workload_s.car_created())
    with Tables(server.url) as tables:
        tables.assert_true_to({r.event_id: r for r in [*before, receipt, after]})


def test_a_server_killed_during_a_write_and_not_started_again_leaves_it_unknown(
    open_writer: OpenWriter, server: EmbeddedPostgres
) -> None:
    caller = open_writer(server.url, replace(QUICK, max_outage=0.5))
    caller.write(workload_s.car_created("CAR-FIRST"))
    event = workload_s.car_created()
    with Tables(server.url) as holder, Tables(server.url) as watch:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE outbox.entities")
        pending = in_background(partial(caller.write, event))
        wait_until(lambda: watch.blocked() == 1)
        began = monotonic()
        server.kill()
    error = pending.result(TIMEOUT)
    assert isinstance(error, OutcomeUnknown)
    assert monotonic() - began < 0.5 + 3.0
    server.start()
    receipt = caller.write(event, on_duplicate="return")
    with Tables(server.url) as tables:
        assert event.id in {row["id"] for row in tables.events()}
    assert isinstance(receipt, Receipt)


def test_connections_kept_over_a_restart_are_not_used_again(
    open_writer: OpenWriter, server: EmbeddedPostgres
) -> None:
    caller = open_writer(server.url)
    caller.write(workload_s.car_created())
    server.stop()
    server.start()
    outcome = outcome_of(partial(caller.write, workload_s.car_created()))
    assert isinstance(outcome, Receipt)
    assert outcome.attempts == 1
