"""The statements themselves: versions, positions and chains, for any batch of events."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors
from tests.support.dsql.server import ON_DSQL
from tests.support.writer.callers import with_workers
from tests.support.writer.checked_tables import Row, Tables

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.writer.statement.parameters import (
    Parameters,
    PreparedEvent,
    batch_parameters,
    one_parameters,
    prepare,
)

ONE = statement("event_write_one", "outbox")
BATCH = statement("event_write_batch", "outbox")
SHARDS = 16

Key = tuple[str, str]
HOT: list[Key] = [("Car", "C-1"), ("Car", "C-2"), ("Loan", "C-1")]

an_event = st.lists(st.sampled_from(HOT), min_size=1, max_size=3, unique=True)
a_batch = st.lists(an_event, min_size=1, max_size=8)

numbers = count()

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def connection(url: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def prepared(
    keys: Sequence[Key], event_id: UUID | None = None, created: datetime | None = None
) -> PreparedEvent:
    entities = [Entity(kind, name, {"number": next(numbers)}) for kind, name in keys]
    event = Event.new("CarSold", entities, id=event_id, created_date=created)
    return prepare(parse_event(event), uuid4().hex, "events.CarSold", "/test", {})


def write_batch(connection: Connection, batch: Sequence[PreparedEvent]) -> list[tuple[Any, ...]]:
    return connection.execute(BATCH, batch_parameters(batch, SHARDS)).fetchall()


def empty(tables: Tables) -> None:
    tables.execute(
        "DELETE FROM outbox.business_events; DELETE FROM outbox.event_headers;"
        "DELETE FROM outbox.entities; DELETE FROM outbox.outbox"
    )


def assert_empty(tables: Tables) -> None:
    assert tables.events() == tables.headers() == tables.entities() == tables.messages() == []


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches=st.lists(a_batch, min_size=1, max_size=4))
def test_any_batches_leave_gapless_versions_and_unbroken_chains(
    connection: Connection, tables: Tables, batches: list[list[list[Key]]]
) -> None:
    """One entity is subject here and secondary there, in one batch and over several."""
    empty(tables)
    versions: Counter[Key] = Counter()
    last_data: dict[Key, str] = {}
    for keys_of_events in batches:
        batch = [prepared(keys) for keys in keys_of_events]
        expected: list[tuple[int, int, int, bool]] = []
        for event in batch:
            for n, touch in enumerate(event.event.touches):
                key = (touch.entity_type, touch.entity_id)
                versions[key] += 1
                expected.append((1, len(expected), versions[key], n == 0))
                last_data[key] = touch.attributes
        rows = write_batch(connection, batch)
        assert [
            (ok, ordinal, version, subj) for ok, ordinal, version, _, subj, *_ in rows
        ] == expected
        _assert_positions(rows, batch, tables)
    tables.assert_consistent()
    found = {(row["entity_type"], row["entity_id"]): row for row in tables.entities()}
    assert {key: row["version"] for key, row in found.items()} == versions
    assert {key: row["data"] for key, row in found.items()} == last_data


def _assert_positions(
    rows: Sequence[tuple[Any, ...]], batch: Sequence[PreparedEvent], tables: Tables
) -> None:
    """The rows of subjects say where their events went."""
    stored = {row["id"]: row["position"] for row in tables.events()}
    subjects = [position for _, _, _, position, subject, *_ in rows if subject]
    assert subjects == [stored[event.event.id] for event in batch]


def test_a_secondary_touch_moves_no_position(connection: Connection, tables: Tables) -> None:
    car, loan = ("Car", "C-1"), ("Loan", "L-1")
    write_batch(connection, [prepared([car])])
    (before,) = tables.entities()
    write_batch(connection, [prepared([loan, car]), prepared([loan, car])])
    (after,) = [row for row in tables.entities() if row["entity_type"] == "Car"]
    assert (before["version"], after["version"]) == (1, 3)
    assert after["position"] == before["position"]


def test_an_entity_that_was_never_a_subject_has_no_position(
    connection: Connection, tables: Tables
) -> None:
    car, loan = ("Car", "C-1"), ("Loan", "L-1")
    write_batch(connection, [prepared([loan, car])])
    write_batch(connection, [prepared([car, loan])])
    (first,) = [row for row in tables.messages() if row["subject_type"] == "Car"]
    assert first["previous_position"] == 0
    assert first["subject_version"] == 2


def test_positions_rise_even_when_the_clock_stands_far_behind(
    connection: Connection, tables: Tables
) -> None:
    """Hybrid logical: another server's clock may have been ahead."""
    write_batch(connection, [prepared(HOT[:1])])
    ahead = 4_000_000_000_000_000
    tables.execute("UPDATE outbox.entities SET position = 4000000000000000")
    batch = [prepared(HOT[:1]) for _ in range(3)]
    rows = write_batch(connection, batch)
    assert [row[3] for row in rows] == sorted({row[3] for row in rows})
    assert rows[0][3] > ahead
    (one,) = connection.execute(ONE, one_parameters(prepared(HOT[:1]), SHARDS)).fetchall()
    assert one == (5, rows[-1][3] + 1, 1, 1)
    chain = sorted(tables.messages(), key=lambda row: int(row["subject_version"]))
    assert [row["previous_position"] for row in chain[1:]] == [ahead, *(row[3] for row in rows)]


def test_a_large_batch_on_few_entities_is_complete(connection: Connection, tables: Tables) -> None:
    random = Random(7)
    for _ in range(3):
        keys = [random.sample(HOT, random.randint(1, 3)) for _ in range(200)]
        write_batch(connection, [prepared(k) for k in keys])
    tables.assert_consistent()
    assert len(tables.events()) == 600


NOT_COMPARED = {"position", "previous_position", "event_id", "id", "write_id"}


def snapshot(tables: Tables) -> list[list[Row]]:
    rows = [tables.events(), tables.headers(), tables.messages(), tables.entities()]
    return [
        [{k: v for k, v in row.items() if k not in NOT_COMPARED} for row in table] for table in rows
    ]


def test_both_statements_store_the_same_for_one_event(
    connection: Connection, tables: Tables
) -> None:
    created = datetime(2026, 7, 1, tzinfo=UTC)  # without it, each is of its own moment
    events = [prepared([("Car", 'C "1" \\ ⬡ {}, %s')], UUID(int=n), created) for n in range(3)]
    ones = [
        connection.execute(ONE, one_parameters(event, SHARDS)).fetchall()[0] for event in events
    ]
    tables.assert_consistent()
    after_ones = snapshot(tables)
    empty(tables)
    rows = [write_batch(connection, [event])[0] for event in events]
    tables.assert_consistent()
    assert snapshot(tables) == after_ones
    assert [version for version, *_ in ones] == [row[2] for row in rows] == [1, 2, 3]


def test_the_same_columns_are_filled_by_both_statements(
    connection: Connection, tables: Tables
) -> None:
    query = "SELECT * FROM outbox.business_events AS b JOIN outbox.outbox AS o ON b.id = o.event_id"
    connection.execute(ONE, one_parameters(prepared(HOT[:1]), SHARDS))
    write_batch(connection, [prepared(HOT[:1])])
    one, batch = tables.execute(query)
    later = ["erased_at"]
    assert [name for name, value in one.items() if value is None] == later
    assert [name for name, value in batch.items() if value is None] == later
    assert len(one["fingerprint"]) == len(batch["fingerprint"]) == 32


def without_an_entity(parameters: Parameters, other: Parameters) -> Parameters:
    columns = (
        "entity_type",
        "entity_id",
        "touches",
        "subjects",
        "shard",
        "attributes",
        "entity_event",
    )
    return parameters | {name: other[name] for name in columns}


def test_an_entity_that_is_missing_ends_the_statement_and_stores_nothing(
    connection: Connection, tables: Tables
) -> None:
    """A join that finds nothing must not be a write that stores half."""
    batch = [prepared([HOT[0], HOT[1]]), prepared([HOT[2]])]
    parameters = batch_parameters(batch, SHARDS)
    fewer = batch_parameters([prepared([HOT[0]]), prepared([HOT[2]])], SHARDS)
    with pytest.raises(errors.InvalidTextRepresentation, match="short write: 2 events, 2 touches"):
        connection.execute(BATCH, without_an_entity(parameters, fewer))
    assert_empty(tables)


def test_a_subject_that_is_missing_ends_the_statement_and_stores_nothing(
    connection: Connection, tables: Tables
) -> None:
    batch = [prepared([HOT[0], HOT[1]]), prepared([HOT[2]])]
    parameters = batch_parameters(batch, SHARDS)
    fewer = batch_parameters([prepared([HOT[0]]), prepared([HOT[1]])], SHARDS)
    with pytest.raises(errors.InvalidTextRepresentation, match="short write: 1 events, 2 touches"):
        connection.execute(BATCH, without_an_entity(parameters, fewer))
    assert_empty(tables)


@pytest.mark.parametrize("column", ["attributes", "entity_id", "shard", "touches"])
def test_a_column_that_is_short_ends_the_statement_and_stores_nothing(
    connection: Connection, tables: Tables, column: str
) -> None:
    """unnest pads with NULL; no column of an entity takes that."""
    parameters = batch_parameters([prepared([HOT[0], HOT[1]])], SHARDS)
    values = {"attributes": "{}", "entity_id": "C-1", "shard": 1, "touches": 1}
    with pytest.raises(errors.NotNullViolation):
        connection.execute(BATCH, parameters | {column: array_literal([values[column]])})
    assert_empty(tables)


def test_an_event_that_is_missing_ends_the_statement_and_stores_nothing(
    connection: Connection, tables: Tables
) -> None:
    batch = [prepared(HOT[:1]), prepared(HOT[1:2])]
    one, both = batch_parameters(batch[:1], SHARDS), batch_parameters(batch, SHARDS)
    columns = ("id", "name", "type", "created_date", "data", "fingerprint", "write_id", "topic")
    with pytest.raises(errors.InvalidTextRepresentation, match="short write: 1 events, 2 touches"):
        connection.execute(BATCH, both | {name: one[name] for name in (*columns, "headers")})
    assert_empty(tables)


def test_an_id_that_is_taken_refuses_the_whole_batch(
    connection: Connection, tables: Tables
) -> None:
    event_id = uuid4()
    write_batch(connection, [prepared(HOT[:1], event_id)])
    with pytest.raises(errors.UniqueViolation):
        write_batch(connection, [prepared(HOT[1:2]), prepared(HOT[2:], event_id)])
    tables.assert_consistent()
    assert len(tables.entities()) == 1


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_batches_of_many_writers_never_deadlock(url: str, tables: Tables, isolation: str) -> None:
    """Entities are written in the order of their keys, whatever the events' order."""
    database = Database(url, isolation=isolation)  # type: ignore[arg-type]
    conflict = errors.SerializationFailure

    def write(seed: int) -> int:
        random, conflicts = Random(seed), 0
        with database.connect() as connection:
            for _ in range(10):
                batch = [prepared(random.sample(HOT, 3)) for _ in range(5)]
                try:
                    write_batch(connection, batch)
                except conflict:
                    conflicts += 1
        return conflicts

    conflicts = sum(with_workers(4, write, range(4)))
    tables.assert_consistent()
    assert len(tables.events()) == 5 * (40 - conflicts)
    assert isolation == "repeatable read" or ON_DSQL or conflicts == 0


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    values=st.lists(
        st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    )
)
def test_an_array_literal_comes_back_as_it_was(
    connection: Connection, values: list[str | None]
) -> None:
    row = connection.execute("SELECT %s::text::text[]", [array_literal(values)]).fetchone()
    assert row == (values,)
