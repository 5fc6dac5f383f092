"""Many events in few transactions: what is sent, what is stored, and what each caller is told."""

import json
from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from anyio.from_thread import BlockingPortal
from psycopg import errors
from tests.support.dsql.server import KINDS
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer.callers import QUICK, Facts
from tests.support.writer.checked_tables import Outcome, Tables

from dsql_outbox.observability.facts import AttemptEnded, WriteEnded
from dsql_outbox.outbox import (
    Database,
    DuplicateEvent,
    Entity,
    Event,
    EventTooLarge,
    InvalidEvent,
    OutcomeUnknown,
    Receipt,
)
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.writer import AsyncWriter, Writer

WriteMany = Callable[..., list[Outcome]]


@pytest.fixture(params=KINDS)
def write_many(
    request: pytest.FixtureRequest, portal: BlockingPortal, proxy: PostgresProxy, facts: Facts
) -> Iterator[WriteMany]:
    """Calls `write_many` through the proxy, on a writer that is open before anything is counted."""
    database = Database(proxy.url, opens_per_second=10_000)
    writer, their = (
        Writer(database, QUICK, hooks=[facts]),
        AsyncWriter(database, QUICK, hooks=[facts]),
    )

    def call_async(events: Iterable[EventSource], **options: Any) -> list[Outcome]:
        return portal.call(partial(their.write_many, events, **options))

    call: WriteMany = writer.write_many if request.param == "threads" else call_async
    call([sold("WARM-UP")])
    facts.all.clear()
    proxy.reset_counts()
    yield call
    writer.close()
    portal.call(their.close)


def sold(*cars: str, name: str = "Car Sold", event_id: UUID | None = None) -> Event:
    entities = [Entity("Car", car, {"sold": True}) for car in cars]
    return Event.new("CarSold", entities, name=name, id=event_id)


def versions(outcomes: list[Outcome]) -> list[int]:
    return [o.entities[0].version for o in outcomes if isinstance(o, Receipt)]


def told(outcome: Outcome) -> str:
    """What a duplicate is told to be."""
    if isinstance(outcome, Receipt) and outcome.status == "duplicate":
        return "receipt"
    assert isinstance(outcome, DuplicateEvent)
    return "same content" if outcome.same_content else "other content"


def assert_true(tables: Tables, events: list[Event], outcomes: list[Outcome]) -> None:
    tables.assert_true_to({e.id: o for e, o in zip(events, outcomes, strict=True)})


def inserts(proxy: PostgresProxy) -> int:
    return sum("INSERT" in sql for sql in proxy.statements)


def refuse_faulty(tables: Tables) -> None:
    tables.execute(
        "ALTER TABLE outbox.business_events ADD CONSTRAINT no_faulty_event"
        " CHECK (event_name <> 'faulty')"
    )


@pytest.mark.parametrize("cars", [1, 3])
def test_a_hundred_events_are_one_round_trip(
    write_many: WriteMany, proxy: PostgresProxy, tables: Tables, cars: int
) -> None:
    events = [sold(*[f"C-{n}-{k}" for k in range(cars)]) for n in range(100)]
    outcomes = write_many(events)
    assert (proxy.round_trips, len(proxy.statements)) == (1, 1)
    assert [o.event_id for o in outcomes if isinstance(o, Receipt)] == [e.id for e in events]
    assert_true(tables, events, outcomes)


def test_events_of_one_subject_keep_their_order(write_many: WriteMany, tables: Tables) -> None:
    events = [sold(f"C-{n % 2}") for n in range(40)]
    outcomes = write_many(events)
    assert versions(outcomes[::2]) == versions(outcomes[1::2]) == list(range(1, 21))
    assert_true(tables, events, outcomes)


def test_an_invalid_event_has_its_outcome_at_its_place(
    write_many: WriteMany, proxy: PostgresProxy, tables: Tables
) -> None:
    """And nothing is sent before all events have come."""
    seen: list[int] = []

    def events() -> Any:
        for n in range(6):
            yield "{}" if n == 2 else sold("C-1")
            seen.append(len(proxy.statements))

    outcomes = write_many(events())
    assert seen == [0] * 6
    assert isinstance(outcomes[2], InvalidEvent)
    assert outcomes[2].path == "eventHeader"
    assert versions(outcomes) == [1, 2, 3, 4, 5]
    assert len(tables.events()) == 7 - 1


def test_an_event_that_is_too_large_is_named_at_its_place(write_many: WriteMany) -> None:
    huge = Event.new("CarSold", [Entity("Car", "C-1", {"a": "x" * (1 << 20)})])
    outcomes = write_many([sold("C-1"), huge])
    assert [type(o) for o in outcomes] == [Receipt, EventTooLarge]


def test_no_events_are_no_statement(write_many: WriteMany, proxy: PostgresProxy) -> None:
    assert write_many([]) == []
    assert proxy.statements == []


def test_a_transaction_takes_3000_rows(
    write_many: WriteMany, proxy: PostgresProxy, tables: Tables
) -> None:
    events = [sold(f"C-{n}") for n in range(751)]
    outcomes = write_many(events)
    assert inserts(proxy) == 2
    assert all(isinstance(outcome, Receipt) for outcome in outcomes)
    (largest,) = tables.execute(
        "SELECT count(*) AS events FROM outbox.business_events GROUP BY xmin::text"
        " ORDER BY 1 DESC LIMIT 1"
    )
    assert largest["events"] * 4 == 3_000


def test_a_transaction_takes_8_mib_of_statement(
    write_many: WriteMany, proxy: PostgresProxy
) -> None:
    """Each of the quotes is some bytes on the wire, in more than one copy."""
    text = '"' * 200_000
    events = [Event.new("CarSold", [Entity("Car", f"C-{n}", {"a": text})]) for n in range(8)]
    outcomes = write_many(events)
    assert all(isinstance(outcome, Receipt) for outcome in outcomes)
    assert 2 <= inserts(proxy) <= 4


@pytest.mark.parametrize("place", [0, 57, 99])
def test_one_bad_event_of_a_hundred_fails_alone(
    write_many: WriteMany, proxy: PostgresProxy, tables: Tables, place: int
) -> None:
    refuse_faulty(tables)
    names = ["faulty" if n == place else "Car Sold" for n in range(100)]
    events = [sold("C-1", name=name) for name in names]
    outcomes = write_many(events)
    assert isinstance(outcomes[place], errors.CheckViolation)
    assert versions(outcomes) == list(range(1, 100))
    assert inserts(proxy) <= 15
    assert_true(tables, events, outcomes)


@pytest.mark.parametrize("on_duplicate", ["error", "return"])
def test_duplicates_are_told_at_their_places(
    write_many: WriteMany, tables: Tables, on_duplicate: str
) -> None:
    """Against the database, and of one call against itself."""
    stored, twice = uuid4(), uuid4()
    write_many([before := sold("C-1", event_id=stored)])
    events = [
        sold("C-2"),
        before,
        first := sold("C-1", event_id=twice),
        sold("C-9", event_id=twice),
        first,
        sold("C-7", event_id=stored),
        sold("C-1", event_id=stored),
    ]
    outcomes = write_many(events, on_duplicate=on_duplicate)
    assert all(isinstance(outcomes[n], Receipt) for n in (0, 2))
    assert [told(outcomes[n]) for n in (3, 5)] == ["other content"] * 2
    same = "receipt" if on_duplicate == "return" else "same content"
    assert [told(outcomes[n]) for n in (1, 4, 6)] == [same] * 3
    if on_duplicate == "return":
        assert outcomes[4].entities == outcomes[2].entities  # type: ignore[union-attr]
    tables.assert_consistent()
    assert len(tables.events()) == 4


def test_the_same_id_again_after_an_unknown_end_is_true(
    write_many: WriteMany, proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    """The first is lost with its answer and cannot look; the second meets what it stored."""
    event = sold("C-1")
    proxy.cut("after_commit")
    proxy.refuse(1, sqlstate="42501", message="denied", matching="WHERE id = ")
    first, second = write_many([event, event])
    assert isinstance(first, OutcomeUnknown)
    assert isinstance(second, DuplicateEvent)
    assert second.same_content
    assert len(tables.events(event.id)) == 1
    assert [f.status for f in facts.of(WriteEnded)] == ["unknown", "duplicate"]


def test_a_timeout_in_the_middle_leaves_the_rest_not_stored(
    write_many: WriteMany, proxy: PostgresProxy, tables: Tables
) -> None:
    """The first transaction gets no answer; the others are not begun."""
    events = [sold(f"C-{n}") for n in range(1_600)]
    proxy.stall()
    kinds: list[type] = []
    for timeout in (0.5, 5, 50):  # on a busy machine the time may be up before anything is sent
        outcomes = write_many(events, timeout=timeout)
        kinds = [type(outcome) for outcome in outcomes]
        if OutcomeUnknown in kinds:
            break
        assert inserts(proxy) == 0
        assert_true(tables, events, outcomes)
    assert kinds[:750] == [OutcomeUnknown] * 750
    assert kinds[750:] == [psycopg.OperationalError] * 850
    assert inserts(proxy) <= 1
    assert_true(tables, events, outcomes)


class Read(Mapping[str, Any]):
    """An event whose reading the test sees: `read` is called first."""

    def __init__(self, event: Event, read: Callable[[], object]) -> None:
        self._event = json.loads(event.to_json())
        self._read = read

    def __getitem__(self, key: str) -> Any:
        return self._event[key]

    def __iter__(self) -> Iterator[str]:
        self._read()
        return iter(self._event)

    def __len__(self) -> int:
        return len(self._event)


def test_the_next_events_are_read_while_the_server_works(
    write_many: WriteMany, facts: Facts, tables: Tables
) -> None:
    """The answers of one transaction come after the events of the next were read."""
    seen: list[int] = []
    events = [sold(f"C-{n % 7}") for n in range(1_600)]
    outcomes = write_many(
        [Read(event, lambda: seen.append(len(facts.of(AttemptEnded)))) for event in events]
    )
    assert seen == [0] * 1_501 + [750] * 99
    assert_true(tables, events, outcomes)


@pytest.mark.parametrize("misfortune", ["conflict", "lost", "one event"])
def test_a_transaction_that_fails_leaves_the_next_one_unsent(
    write_many: WriteMany, proxy: PostgresProxy, tables: Tables, misfortune: str
) -> None:
    """The events of a subject in both of them keep their order."""
    refuse_faulty(tables)
    names = ["Car Sold"] * 1_200
    match misfortune:
        case "conflict":
            proxy.refuse(2)
        case "lost":
            proxy.cut("after_sent")
        case _:
            names[700] = "faulty"
    events = [sold(f"C-{n % 3}", name=name) for n, name in enumerate(names)]
    outcomes = write_many(events)
    for car in range(3):
        found = versions(outcomes[car::3])
        assert found == list(range(1, 1 + len(found)))
    failed = [outcome for outcome in outcomes if not isinstance(outcome, Receipt)]
    assert len(failed) == names.count("faulty")
    assert_true(tables, events, outcomes)


def test_an_event_that_cannot_be_read_fails_alone(write_many: WriteMany) -> None:
    """Even if it is no invalid one, and is read while the server works."""

    def fail() -> None:
        raise ZeroDivisionError

    events: list[EventSource] = [sold("C-1") for _ in range(1_000)]
    events[900] = Read(sold("C-1"), fail)
    outcomes = write_many(events)
    assert isinstance(outcomes[900], ZeroDivisionError)
    assert versions(outcomes) == list(range(1, 1_000))


def test_an_interrupt_while_the_next_events_are_read_ends_the_call(
    write_many: WriteMany, proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    """What was sent is unknown. Of the rest, what was begun has failed, and nothing is sent."""

    def interrupt() -> None:
        raise CancelledError

    events: list[EventSource] = [sold(f"C-{n}") for n in range(1_600)]
    events[900] = Read(sold("C-1"), interrupt)
    with pytest.raises((CancelledError, futures.CancelledError)):
        write_many(events)
    assert inserts(proxy) <= 1
    ended = Counter(fact.status for fact in facts.of(WriteEnded))
    assert ended == {"unknown": 750, "failed": 150}
    assert versions(write_many([sold("C-1700")])) == [1]
    tables.assert_consistent()


def test_a_call_that_is_late_sends_nothing(
    write_many: WriteMany, proxy: PostgresProxy, tables: Tables
) -> None:
    """A kept connection is no reason to send what could only be in doubt."""
    (outcome,) = write_many([event := sold("C-1")], timeout=0.0)
    assert isinstance(outcome, psycopg.OperationalError)
    assert proxy.statements == []
    assert_true(tables, [event], [outcome])


def test_a_conflict_of_the_whole_batch_ends_in_receipts(
    write_many: WriteMany, proxy: PostgresProxy, tables: Tables
) -> None:
    proxy.refuse(3)
    events = [sold(f"C-{n}") for n in range(20)]
    outcomes = write_many(events)
    assert all(isinstance(outcome, Receipt) for outcome in outcomes)
    assert_true(tables, events, outcomes)


@pytest.mark.parametrize("where", ["before", "after_sent", "after_commit", "mid_answer"])
def test_a_connection_lost_around_the_commit_ends_in_receipts(
    write_many: WriteMany, proxy: PostgresProxy, tables: Tables, where: str
) -> None:
    proxy.cut(where)  # type: ignore[arg-type]
    events = [sold(f"C-{n % 3}") for n in range(30)]
    outcomes = write_many(events)
    assert [o.status for o in outcomes if isinstance(o, Receipt)] == ["committed"] * 30
    assert_true(tables, events, outcomes)
