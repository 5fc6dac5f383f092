"""What a write stores, and what its receipt says."""

import json
from datetime import UTC, datetime
from functools import partial
from uuid import UUID, uuid4

import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.telemetry.skipping_hook import SkippingHook, TakingHook
from tests.support.writer import workload_s
from tests.support.writer.callers import (
    TIMEOUT,
    Facts,
    OpenWriter,
    formed,
    in_background,
    outcome_of,
)
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import (
    AttemptEnded,
    DatabaseServer,
    PoolCounts,
    RetryScheduled,
    TransactionEnded,
    TransactionStarted,
    WriteEnded,
    WritesStored,
    WriteStarted,
)
from dsql_outbox.outbox import Database, DuplicateEvent, Entity, Event, Receipt, Touched
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.schema import apply
from dsql_outbox.writer import Writer, WriterSettings, http_status
from dsql_outbox.writer.http_status import HttpAnswer

EVENT_ID = UUID("0b6f3c1e-7a52-4d0e-9c41-5f2f8d3a1101")
EXACT = """ {"eventHeader":{"uuid":"0b6f3c1e-7a52-4d0e-9c41-5f2f8d3a1101",
  "eventName":"Car Created", "eventType":"CarCreated",\t"createdDate":"2026-03-02T08:14:07.120Z"},
  "entities":[{"entityHeader":{"entityId":"CAR-1","entityType":"Car"}, "id":"CAR-1",
  "again":1, "again":2, "big":1e200000, "nul":"a\\u0000b", "owner":"Inês ⬡ {}"}]}
"""
OLDER = {
    "eventHeader": {"uuid": str(EVENT_ID), "eventName": "Car Created"},
    "eventBody": {
        "entities": [
            {"entityType": "Car", "entityId": "CAR-1", "updatedAttributes": {"mileage": 18}}
        ]
    },
}


def test_a_receipt_says_where_the_event_went(open_writer: OpenWriter, url: str) -> None:
    caller = open_writer(url)
    now = datetime.now(UTC).timestamp() * 1_000_000
    first = caller.write(event := workload_s.three_entities())
    second = caller.write(workload_s.three_entities())
    third = caller.write(workload_s.car_created())
    touched = [("Loan", "LOAN-1"), ("Car", "CAR-1"), ("Owner", "OWNER-1")]
    assert first == Receipt(
        event_id=event.id,
        status="committed",
        attempts=1,
        conflicts=0,
        position=first.position,
        entities=tuple(Touched(kind, name, 1) for kind, name in touched),
    )
    assert second.entities == tuple(Touched(kind, name, 2) for kind, name in touched)
    assert third.entities == (Touched("Car", "CAR-1", 3),)
    assert abs(first.position - now) < 60_000_000
    assert second.position > first.position


def test_events_of_all_kinds_fit_together(
    open_writer: OpenWriter, url: str, tables: Tables
) -> None:
    caller = open_writer(url)
    events = [*workload_s.distinct(), *[e for events in workload_s.hot() for e in events]]
    tables.assert_true_to({event.id: caller.write(event) for event in events})
    assert len(tables.events()) == 40


@pytest.mark.parametrize("source", [EXACT, EXACT.encode()], ids=["text", "bytes"])
def test_json_is_kept_to_the_last_blank(
    open_writer: OpenWriter, url: str, tables: Tables, source: EventSource
) -> None:
    receipt = open_writer(url).write(source)
    (event,) = tables.events(EVENT_ID)
    (message,) = tables.messages(EVENT_ID)
    assert event["data"] == message["payload"] == EXACT
    tables.assert_true_to({EVENT_ID: receipt})


def test_the_older_wire_form_is_stored_as_it_came(
    open_writer: OpenWriter, url: str, tables: Tables
) -> None:
    open_writer(url).write(OLDER)
    (event,) = tables.events(EVENT_ID)
    (entity,) = tables.entities()
    assert json.loads(event["data"]) == OLDER
    assert json.loads(entity["data"]) == {"mileage": 18}


def test_an_entitys_row_holds_its_attributes_and_its_stream_the_headers(
    open_writer: OpenWriter, url: str, tables: Tables
) -> None:
    event = workload_s.car_created()
    open_writer(url).write(event)
    (entity,) = tables.entities()
    (header,) = tables.headers()
    wire = json.loads(event.to_json())
    entity_header = wire["entities"][0].pop("entityHeader")
    assert json.loads(entity["data"]) == wire["entities"][0]
    assert json.loads(header["data"]) == {
        "eventHeader": wire["eventHeader"],
        "entityHeader": entity_header,
    }


def test_dates_are_the_senders_and_the_databases(
    open_writer: OpenWriter, url: str, tables: Tables
) -> None:
    """saved_date comes from the database: a sender's clock and a retry would falsify it."""
    created = datetime(2020, 3, 2, 8, 14, 7, 120_000, UTC)
    event = Event.new("CarCreated", [Entity("Car", "C")], created_date=created)
    open_writer(url).write(event)
    (row,) = tables.execute(
        "SELECT created_date, now() - saved_date < interval '1 minute' AS saved_now"
        " FROM outbox.business_events"
    )
    assert row["created_date"] == created
    assert row["saved_now"]


@pytest.mark.parametrize("entities", [1, 3])
def test_an_event_without_a_date_is_created_when_the_database_says(
    open_writer: OpenWriter, url: str, tables: Tables, entities: int
) -> None:
    """The tables and the message have the same date, the event's own text has none."""
    touched = [Entity("Car", f"C-{n}") for n in range(entities)]
    open_writer(url).write(event := Event.new("CarCreated", touched))
    rows = tables.execute(
        "SELECT b.created_date, h.created_date AS header, o.headers::jsonb ->> 'time' AS time,"
        " o.payload, b.saved_date - b.created_date < interval '1 second' AS now"
        " FROM outbox.business_events b JOIN outbox.outbox o ON o.event_id = b.id"
        " JOIN outbox.event_headers h ON h.event_id = b.id"
    )
    assert len(rows) == entities
    for row in rows:
        assert row["now"]
        assert row["header"] == row["created_date"]
        assert row["time"] == row["created_date"].astimezone(UTC).isoformat(timespec="microseconds")
        assert row["payload"].encode() == event.to_json()
    assert b"Date" not in event.to_json()


def test_a_call_that_is_repeated_with_its_id_is_told_that_it_is_stored(
    open_writer: OpenWriter, url: str
) -> None:
    """Each call makes its event anew, as a web handler does."""
    caller, event_id = open_writer(url), uuid4()

    def call() -> Receipt:
        loan = Entity("Loan", "LOAN-7", {"balance": "9000.00"})
        event = Event.new("LoanCreated", [loan], id=event_id)
        return caller.write(event, on_duplicate="return")

    first = call()
    assert all(call().position == first.position for _ in range(3))


def test_topic_and_source_are_set_by_the_writer(
    open_writer: OpenWriter, url: str, tables: Tables
) -> None:
    settings = WriterSettings(topic="cars.{entity_type}.{event_type}", source="/garage")
    open_writer(url, settings).write(workload_s.car_created())
    (message,) = tables.messages()
    assert message["topic"] == "cars.Car.CarCreated"
    assert json.loads(message["headers"])["source"] == "/garage"


def test_an_entity_keeps_its_shard_when_shards_are_added(
    open_writer: OpenWriter, url: str, tables: Tables
) -> None:
    events = [workload_s.car_created(f"CAR-{n}") for n in range(12)]
    before = open_writer(url)
    for event in events:
        before.write(event)
    placed = {row["entity_id"]: row["shard"] for row in tables.entities()}
    apply(Database(url), shards=64)
    after = open_writer(url)
    for n in range(12):
        after.write(workload_s.car_created(f"CAR-{n}"))
    for n in range(12, 48):
        after.write(workload_s.car_created(f"CAR-{n}"))
    shards = {row["entity_id"]: row["shard"] for row in tables.entities()}
    assert {name: shards[name] for name in placed} == placed
    assert max(shards.values()) > 15
    tables.assert_consistent()


def test_a_duplicate_is_refused_and_changes_nothing(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    """Fact 14, even though everything in the event reads like a conflict."""
    texts = {"note": "mutation conflicts", "state": "OC000 transaction conflict"}
    event = Event.new(
        "oc000",
        [Entity("OC000", "conflicts with another transaction", texts)],
        name="change conflicts",
        id=UUID("0c000000-0c00-40c0-80c0-0c0000c00010"),
    )
    caller = open_writer(proxy.url, hooks=[facts])
    receipt = caller.write(event)
    error = outcome_of(partial(caller.write, event))
    assert isinstance(error, DuplicateEvent)
    assert (error.event_id, error.same_content) == (event.id, True)
    assert http_status(error) == HttpAnswer(409)
    assert len(facts.of(AttemptEnded)) == 2
    assert facts.waits() == []
    assert facts.of(WriteEnded)[-1].status == "duplicate"
    tables.assert_true_to({event.id: receipt})
    assert [row["version"] for row in tables.entities()] == [1]


def test_a_duplicate_may_be_asked_for_as_a_receipt(open_writer: OpenWriter, url: str) -> None:
    """The receipt is that of the first write, but for the status."""
    caller = open_writer(url)
    event = workload_s.three_entities()
    first = caller.write(event)
    caller.write(workload_s.three_entities())
    again = caller.write(event, on_duplicate="return")
    assert again.status == "duplicate"
    assert (again.event_id, again.position, again.entities) == (
        first.event_id,
        first.position,
        first.entities,
    )


def same_but_saved_later(event: Event) -> bytes:
    wire = json.loads(event.to_json())
    wire["eventHeader"]["savedDate"] = "2030-01-01T00:00:00Z"
    return json.dumps(wire, separators=(",", ":")).encode()


def other(event: Event) -> Event:
    return workload_s.loan_created(id=event.id)


@pytest.mark.parametrize(("resend", "same"), [(same_but_saved_later, True), (other, False)])
def test_a_duplicate_tells_whether_it_says_the_same(
    open_writer: OpenWriter, url: str, resend: "type[Event]", *, same: bool
) -> None:
    caller = open_writer(url)
    event = workload_s.car_created()
    caller.write(event)
    with pytest.raises(DuplicateEvent) as raised:
        caller.write(resend(event))  # type: ignore[arg-type, call-arg]
    assert raised.value.same_content is same


def test_other_content_under_a_stored_id_gives_no_receipt(
    open_writer: OpenWriter, url: str, tables: Tables
) -> None:
    """It is stored nowhere; a later savedDate is no other content."""
    caller = open_writer(url)
    event = workload_s.three_entities()
    first = caller.write(event)
    again = caller.write(same_but_saved_later(event), on_duplicate="return")
    assert (again.status, again.position) == ("duplicate", first.position)
    with pytest.raises(DuplicateEvent) as raised:
        caller.write(workload_s.car_created(id=event.id), on_duplicate="return")
    assert (raised.value.event_id, raised.value.same_content) == (event.id, False)
    tables.assert_true_to({event.id: first})


@pytest.mark.parametrize("isolation", ["repeatable read", "read committed"])
def test_of_many_calls_with_one_id_one_is_committed(
    open_writer: OpenWriter, url: str, tables: Tables, isolation: str
) -> None:
    """The others are duplicates, however they met: by a conflict or by a taken key."""
    caller = open_writer(Database(url, isolation=isolation))  # type: ignore[arg-type]
    event = workload_s.car_created()
    pending = [in_background(partial(caller.write, event)) for _ in range(4)]
    outcomes = [future.result(TIMEOUT) for future in pending]
    (receipt,) = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
    assert sum(isinstance(outcome, DuplicateEvent) for outcome in outcomes) == 3
    tables.assert_true_to({event.id: receipt})


def test_a_conflict_on_another_row_is_retried_though_its_code_says_unique(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    """What two first inserts of one entity may answer is not settled for every database."""
    proxy.refuse(2, sqlstate="23505", message="duplicate key: entities_pkey")
    event = workload_s.car_created()
    receipt = open_writer(proxy.url, hooks=[facts]).write(event)
    assert (receipt.attempts, receipt.conflicts) == (3, 2)
    assert [fact.outcome for fact in facts.of(AttemptEnded)] == [
        "conflict",
        "conflict",
        "committed",
    ]
    tables.assert_true_to({event.id: receipt})


def test_the_facts_of_a_write_begin_and_end_with_it(
    open_writer: OpenWriter, url: str, facts: Facts
) -> None:
    event = workload_s.three_entities()
    open_writer(url, hooks=[facts]).write(event)
    host, port, dbname = Database(url).endpoint
    server = DatabaseServer(host, port, f"{dbname}.outbox")
    assert facts.all[0] == WriteStarted(
        event.id, "Loan Created", "LoanCreated", "events.LoanCreated", 3, server
    )
    kinds = [WriteStarted, TransactionStarted, AttemptEnded, WriteEnded, TransactionEnded]
    assert [type(fact) for fact in facts.all] == kinds


def test_a_transaction_is_told_once_for_all_its_events_with_the_connections(
    url: str, facts: Facts
) -> None:
    with Writer(Database(url), WriterSettings(max_connections=3), hooks=[facts]) as writer:
        writer.write_many([workload_s.car_created() for _ in range(3)])
        writer.transact(lambda transaction: transaction.append(workload_s.car_created()))
        told = facts.of(TransactionEnded)
        assert [(each.error, each.sqlstate) for each in told] == [(None, None)] * 2
        # `transact` has a connection of another kind, with the search path of its role.
        assert {each.pool.counts() for each in told} == {PoolCounts(2, 0, 0, 3)}


def test_hooks_that_all_skip_successes_are_told_of_failures_only(
    open_writer: OpenWriter, proxy: PostgresProxy
) -> None:
    skipping = SkippingHook()
    writer = open_writer(proxy.url, hooks=[skipping])
    writer.write(workload_s.car_created())
    assert skipping.facts == []
    proxy.refuse(1)
    event = workload_s.car_created()
    writer.write(event)
    assert [type(fact) for fact in skipping.facts] == [AttemptEnded, RetryScheduled]
    with pytest.raises(DuplicateEvent):
        writer.write(event)
    assert [type(fact) for fact in skipping.facts[2:]] == [AttemptEnded, WriteEnded]


def test_a_hook_that_takes_calls_is_told_once_of_what_a_transaction_has_stored(
    url: str,
) -> None:
    taking, facts = TakingHook(), Facts()
    settings = formed(WriterSettings())
    with (
        Writer(Database(url), settings, hooks=[taking]) as alone,
        Writer(Database(url), settings, hooks=[facts, taking]) as beside,
    ):
        event = alone.write(workload_s.car_created()).event_id
        alone.write_many([workload_s.car_created() for _ in range(5)])
        beside.write_many([workload_s.car_created() for _ in range(5)])
        stored = [fact for fact in taking.facts if not isinstance(fact, WriteStarted)]
        with pytest.raises(DuplicateEvent):
            alone.write(workload_s.car_created("CAR-2", id=event))
    assert [type(fact) for fact in stored] == [
        TransactionStarted,
        WritesStored,
        TransactionEnded,
    ] * 3
    assert [fact.events for fact in stored if isinstance(fact, WritesStored)] == [1, 5, 5]
    assert [len(fact.calls) for fact in stored if isinstance(fact, WritesStored)] == [1, 1, 1]
    assert len(facts.of(WriteEnded)) == 5
    assert [type(fact) for fact in taking.facts[-2:]] == [AttemptEnded, WriteEnded]


def test_one_hook_that_does_not_skip_successes_is_enough_for_all_facts(
    open_writer: OpenWriter, url: str, facts: Facts
) -> None:
    skipping = SkippingHook()
    open_writer(url, hooks=[skipping, facts]).write(workload_s.car_created())
    assert skipping.facts == facts.all != []
