"""A write inserts a message for each target that takes its subject, in one round trip."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.support.dsql.server import CHOSEN
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer.callers import QUICK
from tests.support.writer.checked_tables import Tables

from dsql_outbox.outbox import (
    Database,
    Entity,
    Event,
    EventTooLarge,
    InvalidEvent,
    Receipt,
    SchemaError,
)
from dsql_outbox.writer import Writer

RANGE = 1_024
NO_TARGETS = "schema outbox has no targets: run `dsql-outbox schema apply`"
COPIES = """SELECT o.shard / 1024 AS range, o.subject_type AS type, count(*)::int AS n
    FROM outbox.outbox o GROUP BY 1, 2 ORDER BY 1, 2"""


def event(kind: str, n: int, *others: Entity, size: int = 1) -> Event:
    return Event.new(f"{kind}Sold", [Entity(kind, f"{n}", {"a": "x" * size}), *others])


def add(tables: Tables, *targets: tuple[str, str | None], kind: str = "sink") -> None:
    """Targets as they are in the table: of each, the state, and the types or None."""
    known = len(tables.execute("SELECT name FROM outbox.outbox_targets"))
    for number, (state, types) in enumerate(targets, start=known):
        tables.connection.execute(
            "INSERT INTO outbox.outbox_targets (name, kind, first_shard, types, state)"
            " VALUES (%s, %s, %s, %s, %s)",
            (f"target-{number}", kind, number * RANGE, types, state),
        )


@pytest.fixture(params=["single", "plain"])
def writer(request: pytest.FixtureRequest, proxy: PostgresProxy) -> Iterator[Writer]:
    settings = replace(QUICK, form=request.param)
    with Writer(Database(proxy.url), settings) as writer:
        writer.write(event("Warm", 0))
        proxy.reset_counts()
        yield writer


def test_each_target_gets_the_subjects_of_its_types_in_its_range(
    writer: Writer, tables: Tables
) -> None:
    tables.execute("DELETE FROM outbox.outbox")
    add(
        tables,
        ("running", '{"Car","Bus"}'),
        ("opening", None),
        ("dropped", None),
        ("filling", '{"A, \\"quoted\\" one"}'),
    )
    quoted = 'A, "quoted" one'
    writer.write(event("Car", 1))
    writer.write_many([event("Bus", 1), event("Loan", 1, Entity("Car", "1"), Entity("Bus", "7"))])
    odd = Event.new("Sold", [Entity(quoted, "1")])
    writer.transact(lambda transaction: transaction.append(odd))
    found = [(row["range"], row["type"], row["n"]) for row in tables.execute(COPIES)]
    every = {quoted, "Bus", "Car", "Loan"}
    wanted = {0: every, 1: {"Bus", "Car"}, 2: every, 4: {quoted}}
    assert {(number, kind, 1) for number, kinds in wanted.items() for kind in kinds} == set(found)
    copies = tables.execute(
        "SELECT count(DISTINCT (o.shard % 1024, o.position, o.previous_position, o.subject_version,"
        " o.topic, o.headers::text, o.payload)) AS n,"
        " bool_and(o.shard % 1024 = e.shard AND b.shard = e.shard) AS same_slot"
        " FROM outbox.outbox o JOIN outbox.business_events b ON b.id = o.event_id"
        " JOIN outbox.entities e ON e.entity_type = o.subject_type AND e.entity_id = o.subject_id"
    )
    assert copies == [{"n": 4, "same_slot": True}]


@pytest.mark.parametrize("targets", [1, 4])
def test_a_write_to_several_targets_is_one_round_trip(
    writer: Writer, proxy: PostgresProxy, tables: Tables, targets: int
) -> None:
    add(tables, *[("running", None)] * targets)
    writer.write(event("Car", 2))
    writer.write_many([event("Car", 2), event("Bus", 3, Entity("Car", "4"))])
    assert proxy.round_trips == 2
    assert tables.execute("SELECT count(*) AS n FROM outbox.outbox") == [
        {"n": 1 + 3 * (1 + targets)}
    ]


def test_write_many_is_cut_by_what_the_answers_say(writer: Writer, tables: Tables) -> None:
    """The first transaction is cut for the one target that the writer knew.

    DSQL refuses its 6,000 rows, and it is sent again in halves.
    """
    add(tables, *[("running", None)] * 4)
    outcomes = writer.write_many([event("Car", n) for n in range(100, 2_300)])
    assert {type(outcome) for outcome in outcomes} == {Receipt}
    sizes = tables.execute(
        "SELECT count(*) AS n FROM outbox.business_events WHERE subject_type = 'Car'"
        " GROUP BY xmin::text ORDER BY min(position)"
    )
    first = [375, 375] if CHOSEN.startswith("dsql") else [750]
    assert [row["n"] for row in sizes] == [*first, 375, 375, 375, 325]


def test_a_message_of_a_model_only_names_its_event(writer: Writer, tables: Tables) -> None:
    tables.execute("DELETE FROM outbox.outbox")
    add(tables, ("running", None))
    add(tables, ("running", None), ("running", '{"Car"}'), kind="model")
    writer.write(event("Car", 1))
    writer.write_many([event("Car", 2), event("Bus", 3, Entity("Car", "4"))])
    writer.transact(lambda transaction: transaction.append(event("Loan", 1)))
    assert tables.execute(
        "SELECT o.shard / 1024 AS range, count(*)::int AS n,"
        " count(o.payload)::int AS copies, bool_and(o.payload_size = b.event_size"
        " AND coalesce(o.payload, b.event_data::text) = b.event_data::text) AS same"
        " FROM outbox.outbox o JOIN outbox.business_events b ON b.id = o.event_id"
        " GROUP BY 1 ORDER BY 1"
    ) == [
        {"range": number, "n": n, "copies": copies, "same": True}
        for number, n, copies in ((0, 4, 4), (1, 4, 4), (2, 4, 0), (3, 2, 0))
    ]


def test_a_message_of_a_model_counts_no_bytes_of_its_event(writer: Writer, tables: Tables) -> None:
    """DSQL takes 10 MiB per transaction: these are 2 copies of each event, and not 11."""
    add(tables, *[("running", None)] * 9, kind="model")
    writer.write(event("Car", 3))
    receipt, _ = writer.write_many(event("Car", n, size=1_000_000) for n in (4, 5))
    assert isinstance(receipt, Receipt)
    assert tables.execute(
        "SELECT count(DISTINCT xmin::text)::int AS n FROM outbox.business_events"
        " WHERE event_size > 1000000"
    ) == [{"n": 1}]


def test_the_limits_of_an_event_count_the_copies(writer: Writer, tables: Tables) -> None:
    add(tables, *[("running", None)] * 9)
    writer.write(event("Car", 3))
    with pytest.raises(EventTooLarge, match="event with its messages for 10 targets of"):
        writer.write(event("Car", 4, size=1_000_000))
    with pytest.raises(
        InvalidEvent, match="1499 entities are over the limit of 1494 with 10 targets"
    ):
        writer.write(event("Car", 4, *[Entity("Bus", f"{n}") for n in range(1_498)]))


def test_a_table_without_targets_is_named(proxy: PostgresProxy, tables: Tables) -> None:
    tables.execute("DELETE FROM outbox.outbox_targets")
    with Writer(Database(proxy.url), QUICK) as writer, pytest.raises(SchemaError, match=NO_TARGETS):
        writer.write(event("Car", 1))
