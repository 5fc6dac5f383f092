"""The counts of a conflict report: bounded memory, and the hot entity found among many."""

import logging
import random
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
from psycopg import errors
from tests.support.writer import workload_s

from dsql_outbox.observability.facts import ConflictsUnstored
from dsql_outbox.observability.log_hook import log_facts
from dsql_outbox.operations.conflicts import REMEDIES, Remedy, remedy_of
from dsql_outbox.outbox.contention import EntityConflicts
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.outbox.failure import classify
from dsql_outbox.writer import WriterSettings
from dsql_outbox.writer.conflicts.conflict_log import MOST, conflict_of
from dsql_outbox.writer.conflicts.sketch import SIZE, STORED, Conflict, EntityKey, Sketch

HOT = "Account", "hot"


def conflict(touched: Mapping[EntityKey, bool]) -> Conflict:
    return Conflict(
        touched=touched,
        is_sampled=False,
        in_transact=False,
        exhausted=0,
        given_up=(),
        lost_seconds=0.1,
    )


def test_the_hot_entity_among_thousands_stays_first_in_bounded_memory() -> None:
    rng, sketch = random.Random(7), Sketch()
    for n in range(5_000):
        keys = [("Item", str(rng.randrange(4_000))) for _ in range(3)]
        if n % 10 == 0:
            keys.append(HOT)
        sketch.add(conflict(dict.fromkeys(keys, True)), float(n), coalesced=False)
    report = sketch.report(5_000.0)
    first = report.entities[0]
    assert (first.entity_type, first.entity_id, first.conflicts) == (*HOT, 500)
    assert first.lost_seconds == pytest.approx(50.0)
    assert first.behind < 50
    assert remedy_of(first) == "separate"
    assert first.seen_seconds == 10.0
    assert (report.transactions, len(report.entities)) == (5_000, STORED)
    assert report.is_partial
    assert len(sketch._entities) == len(sketch._seen) == len(sketch._ranks) == SIZE


def test_few_entities_are_counted_exactly() -> None:
    sketch = Sketch()
    for n in range(STORED):
        sketch.add(conflict({("Item", str(n)): False}), 0.0, coalesced=True)
    report = sketch.report(1.0)
    assert not report.is_partial
    assert {(e.conflicts, e.alone, e.coalesced) for e in report.entities} == {(1, 1, 1)}


def conflict_of_write(event: Any, error: Exception, seconds: float) -> Conflict | None:
    failure = classify(error, sent=True)
    return conflict_of(failure, [parse_event(event)], (), seconds=seconds, in_transact=False)


def test_of_a_large_transaction_some_entities_are_counted() -> None:
    event = workload_s.many_entities("note", 40)
    found = conflict_of_write(event, errors.SerializationFailure(), 1e6)
    assert found is not None
    assert found.is_sampled
    assert (len(found.touched), found.given_up, found.exhausted) == (MOST, set(), 0)
    assert found.lost_seconds == 1e6


@pytest.mark.parametrize(
    "error",
    [
        errors.SerializationFailure("schema has been updated by another transaction (OC001)"),
        errors.UniqueViolation(),
        errors.CheckViolation(),
        OSError(),
    ],
)
def test_other_failures_are_no_conflicts_of_an_entity(error: Exception) -> None:
    assert conflict_of_write(workload_s.car_created(id=UUID(int=1)), error, 1.0) is None


@pytest.mark.parametrize(
    ("counts", "remedy"),
    [
        ({}, "coalesce"),
        ({"coalesced": 6}, "split"),
        ({"joint": 6}, "separate"),
        ({"joint": 6, "coalesced": 10}, "separate"),
        ({"joint": 10, "transact": 6}, "reorder"),
        ({"joint": 10, "transact": 10, "behind": 6}, "none"),
        ({"joint": 5, "transact": 5, "coalesced": 5}, "coalesce"),
    ],
)
def test_the_remedy_is_that_of_most_conflicts(counts: Mapping[str, int], remedy: Remedy) -> None:
    entity = EntityConflicts(entity_type="Car", entity_id="1", conflicts=10, **counts)
    assert remedy_of(entity) == remedy
    assert remedy in REMEDIES


@pytest.mark.parametrize(("switched_off", "level"), [(True, "WARNING"), (False, "DEBUG")])
def test_the_log_warns_of_a_switch_off_only(
    caplog: pytest.LogCaptureFixture, switched_off: bool, level: str
) -> None:
    caplog.set_level(logging.DEBUG, "dsql_outbox")
    log_facts(ConflictsUnstored("SomeError", "42501", switched_off))
    (record,) = caplog.records
    assert record.levelname == level
    assert ("schema grant --writer" in record.getMessage()) == switched_off


def test_in_lambda_it_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)
    assert WriterSettings().conflict_report == 10.0
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    assert WriterSettings().conflict_report is None
    assert WriterSettings(conflict_report=5.0).conflict_report == 5.0
