"""A write that is only to happen while its subject is at a known version."""

from collections.abc import Callable
from functools import partial
from uuid import uuid4

import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, outcome_of, with_workers
from tests.support.writer.checked_tables import Outcome, Tables

from dsql_outbox.outbox import Database, DuplicateEvent, Entity, Event, Receipt, StaleVersion
from dsql_outbox.writer import Writer, http_status
from dsql_outbox.writer.attempt.pending import OnDuplicate
from dsql_outbox.writer.http_status import HttpAnswer

WRITERS = 8


def write(url: str, event: Event, expected: int, isolation: str = "read committed") -> Outcome:
    database = Database(url, isolation=isolation, opens_per_second=10_000)  # type: ignore[arg-type]
    with Writer(database, QUICK) as writer:
        return outcome_of(partial(writer.write, event, expected_version=expected))


def versions(*outcomes: Outcome) -> list[int]:
    return [o.entities[0].version for o in outcomes if isinstance(o, Receipt)]


EVENTS = [workload_s.car_created, workload_s.three_entities]


@pytest.mark.parametrize("make", EVENTS, ids=["1 entity", "3 entities"])
def test_versions_follow_each_other_from_an_entity_that_does_not_exist(
    url: str, tables: Tables, make: Callable[[], Event]
) -> None:
    events = [make() for _ in range(3)]
    outcomes = [write(url, event, n) for n, event in enumerate(events)]
    assert versions(*outcomes) == [1, 2, 3]
    tables.assert_true_to({e.id: o for e, o in zip(events, outcomes, strict=True)})


@pytest.mark.parametrize("make", EVENTS, ids=["1 entity", "3 entities"])
@pytest.mark.parametrize("expected", [0, 2, 7])
def test_another_version_is_stale_and_nothing_is_stored(
    url: str, tables: Tables, make: Callable[[], Event], expected: int
) -> None:
    first, second = make(), make()
    receipt = write(url, first, 0)
    error = write(url, second, expected)
    assert isinstance(error, StaleVersion)
    assert (error.event_id, error.expected, error.actual) == (second.id, expected, 1)
    assert http_status(error) == HttpAnswer(409)
    tables.assert_true_to({first.id: receipt, second.id: error})


def test_the_attempt_after_a_conflict_decides(proxy: PostgresProxy, tables: Tables) -> None:
    """A conflict proves no version; what moved it may have been another entity."""
    proxy.refuse(1)
    held = write(proxy.url, workload_s.car_created(), 0)
    assert isinstance(held, Receipt)
    assert held.conflicts == 1
    proxy.refuse(1)
    stale = write(proxy.url, event := workload_s.car_created(), 0)
    assert isinstance(stale, StaleVersion)
    tables.assert_true_to({held.event_id: held, event.id: stale})


@pytest.mark.parametrize("make", EVENTS, ids=["1 entity", "3 entities"])
def test_the_own_lost_commit_wins_over_stale(
    proxy: PostgresProxy, tables: Tables, make: Callable[[], Event]
) -> None:
    """It moved the version itself."""
    proxy.cut("after_commit")
    receipt = write(proxy.url, event := make(), 0)
    assert isinstance(receipt, Receipt)
    assert (receipt.status, receipt.attempts) == ("committed", 2)
    assert versions(receipt) == [1]
    tables.assert_true_to({event.id: receipt})


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_of_many_writers_with_the_same_version_exactly_one_wins(
    url: str, tables: Tables, isolation: str
) -> None:
    outcomes: dict[object, Outcome] = {}
    for version in range(3):
        events = [workload_s.car_created() for _ in range(WRITERS)]
        ends = with_workers(
            WRITERS,
            partial(write, url, expected=version, isolation=isolation),
            events,
        )
        assert versions(*ends) == [version + 1]
        assert sum(isinstance(end, StaleVersion) for end in ends) == WRITERS - 1
        outcomes |= {event.id: end for event, end in zip(events, ends, strict=True)}
    tables.assert_true_to(outcomes)  # type: ignore[arg-type]
    assert len(tables.events()) == 3


def test_in_one_call_each_event_may_build_on_the_one_before(url: str, tables: Tables) -> None:
    events = [workload_s.car_created() for _ in range(4)]
    with Writer(Database(url), QUICK) as writer:
        outcomes = writer.write_many(events, expected_versions=[0, 1, 1, None])
    assert versions(*outcomes) == [1, 2, 3]
    stale = outcomes[2]
    assert isinstance(stale, StaleVersion)
    assert (stale.expected, stale.actual) == (1, 2)
    tables.assert_true_to({e.id: o for e, o in zip(events, outcomes, strict=True)})


def through_write(writer: Writer, event: Event, on_duplicate: OnDuplicate) -> Receipt:
    return writer.write(event, expected_version=0, on_duplicate=on_duplicate)


def through_write_many(writer: Writer, event: Event, on_duplicate: OnDuplicate) -> Receipt:
    other = workload_s.car_created(str(uuid4()))
    ends = writer.write_many([other, event], expected_versions=[0, 0], on_duplicate=on_duplicate)
    assert isinstance(ends[0], Receipt)
    if isinstance(ends[1], Exception):
        raise ends[1]
    return ends[1]


def through_transact(writer: Writer, event: Event, on_duplicate: OnDuplicate) -> Receipt:
    return writer.transact(
        lambda transaction: transaction.append(event, expected_version=0),
        on_duplicate=on_duplicate,
    )


VERBS = [through_write, through_write_many, through_transact]


@pytest.mark.parametrize("verb", VERBS)
def test_an_event_that_comes_again_with_its_version_is_told_as_stored(
    url: str, tables: Tables, verb: Callable[[Writer, Event, OnDuplicate], Receipt]
) -> None:
    """Its own change, and no other one, has moved the version: as after `OutcomeUnknown`."""
    event = workload_s.car_created()
    with Writer(Database(url), QUICK) as writer:
        receipt = writer.write(event, expected_version=0)
        again = verb(writer, event, "return")
        assert (again.status, again.entities) == ("duplicate", receipt.entities)
    for sent in (event, Event.new("CarSold", [Entity("Car", "CAR-1")], id=event.id)):
        with Writer(Database(url), QUICK) as writer, pytest.raises(DuplicateEvent) as told:
            verb(writer, sent, "error")
        assert told.value.same_content == (sent is event)
    assert [row["id"] for row in tables.events()].count(event.id) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_a_look_up_that_fails_tells_no_stale_version(
    proxy: PostgresProxy, verb: Callable[[Writer, Event, OnDuplicate], Receipt]
) -> None:
    event = workload_s.car_created()
    with Writer(Database(proxy.url), QUICK) as writer:
        writer.write(event, expected_version=0)
        proxy.cut("before", matching="WHERE id = ")
        assert verb(writer, event, "return").status == "duplicate"
