"""The plain form stores what the single form stores, in one round trip."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors
from psycopg.pq.abc import PGresult
from tests.support.dsql.server import ON_DSQL
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, OpenWriter, only_single, with_workers
from tests.support.writer.checked_tables import Row, Tables

from dsql_outbox.outbox import Database, Entity, Event, StaleVersion
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.exchange import (
    PREPARE_AFTER,
    NumberedQuery,
    pipeline,
    rows_of,
    unprepared,
)
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.writer import Writer
from dsql_outbox.writer.statement.parameters import PreparedEvent, batch_parameters, prepare
from dsql_outbox.writer.statement.plain import Plain

BATCH = statement("event_write_batch", "outbox")
PLAIN = Plain("outbox")
SHARDS = 16
COMMIT = (unprepared(b"COMMIT"), {})
AUTO, FORCED = replace(QUICK, form="auto"), replace(QUICK, form="plain")

Key = tuple[str, str]
HOT: list[Key] = [("Car", "C-1"), ("Car", 'C "2" \\ ⬡ {}, %s'), ("Loan", "C-1")]
a_batch = st.lists(
    st.lists(st.sampled_from(HOT), min_size=1, max_size=3, unique=True), min_size=1, max_size=8
)


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with Database(url).connect() as connection:
        yield connection


def prepared(keys: Sequence[Key], n: int) -> PreparedEvent:
    entities = [Entity(kind, name, {"number": n}) for kind, name in keys]
    event = Event.new("CarSold", entities, created_date=datetime.now(UTC))
    return prepare(
        parse_event(event), uuid4().hex, "events.CarSold", "/test", {"traceparent": "00"}
    )


def transaction_of(batch: Sequence[PreparedEvent]) -> list[tuple[NumberedQuery, Any]]:
    return [(unprepared(b"BEGIN"), {}), *PLAIN.statements(batch, SHARDS), COMMIT]


def run(connection: Connection, transaction: Sequence[tuple[NumberedQuery, Any]]) -> list[PGresult]:
    encoded = [(query, query.encode(values)) for query, values in transaction]
    results: list[PGresult] = connection.wait(pipeline(connection, encoded))
    return results


def plain(connection: Connection, batch: Sequence[PreparedEvent]) -> list[tuple[Any, ...]]:
    rows = rows_of(run(connection, transaction_of(batch))[-2])
    return [tuple(None if each is None else each.decode() for each in row) for row in rows]


def single(connection: Connection, batch: Sequence[PreparedEvent]) -> list[tuple[Any, ...]]:
    rows = connection.execute(BATCH, batch_parameters(batch, SHARDS)).fetchall()
    return [tuple(_text(each) for each in row) for row in rows]


def _text(value: object) -> str | None:
    """A value as the server writes it."""
    if isinstance(value, bool):
        return "t" if value else "f"
    return None if value is None else str(value)


def empty(tables: Tables) -> None:
    tables.execute(
        "DELETE FROM outbox.business_events; DELETE FROM outbox.event_headers;"
        "DELETE FROM outbox.entities; DELETE FROM outbox.outbox"
    )


def snapshot(tables: Tables) -> list[list[Row]]:
    """All but what the clock gave; `assert_consistent` has looked at the positions."""
    tables.assert_consistent()
    rows = [tables.events(), tables.headers(), tables.messages(), tables.entities()]
    clock = {"position", "previous_position"}
    kept = [[{k: v for k, v in row.items() if k not in clock} for row in table] for table in rows]
    return [sorted(table, key=repr) for table in kept]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches=st.lists(a_batch, min_size=1, max_size=4))
def test_both_forms_store_and_answer_the_same(
    connection: Connection, tables: Tables, batches: list[list[list[Key]]]
) -> None:
    whole = [[prepared(keys, n) for n, keys in enumerate(batch)] for batch in batches]
    found = []
    for write in (single, plain):
        empty(tables)
        answers = [write(connection, batch) for batch in whole]
        told = [
            [(ok, n, version, subj) for ok, n, version, _, subj, *_ in rows] for rows in answers
        ]
        stored = {row["id"]: row["position"] for row in tables.events()}
        subjects = [int(row[3]) for rows in answers for row in rows if row[4] == "t"]
        assert subjects == [stored[event.event.id] for batch in whole for event in batch]
        found.append((told, snapshot(tables)))
    assert found[0] == found[1]


def test_positions_rise_when_the_clock_stands_far_behind(
    connection: Connection, tables: Tables
) -> None:
    plain(connection, [prepared(HOT[:1], 0)])
    tables.execute("UPDATE outbox.entities SET position = 4000000000000000")
    rows = plain(connection, [prepared(HOT[:1], n) for n in range(3)])
    assert [int(row[3]) for row in rows] == [4000000000000000 + n for n in (1, 2, 3)]


@pytest.mark.parametrize("prepares", [False, True])
def test_it_runs_with_and_without_prepared_statements(
    connection: Connection, tables: Tables, *, prepares: bool
) -> None:
    connection.prepares = prepares
    for n in range(8):
        plain(connection, [prepared(HOT[:1], n)])
    tables.assert_consistent()
    assert len(tables.events()) == 8
    named = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert named == (len(PLAIN.statements([], SHARDS)) if prepares else 0,)


@pytest.mark.parametrize("prepares", [False, True])
def test_a_connection_serves_again_after_a_failure_at_any_time(
    connection: Connection, tables: Tables, *, prepares: bool
) -> None:
    """What the failure kept from being prepared must not count as prepared."""
    connection.prepares = prepares
    event = prepared(HOT[:1], 0)
    for n in range(8):
        if tables.events(event.event.id):
            with pytest.raises(errors.UniqueViolation):
                plain(connection, [event])
            connection.execute("ROLLBACK")
        plain(connection, [event if n == 0 else prepared(HOT[1:2], n)])
    tables.assert_consistent()
    assert len(tables.events()) == 8


def test_a_short_result_never_commits(connection: Connection, tables: Tables) -> None:
    transaction = transaction_of([prepared(HOT[:2], 0), prepared(HOT[2:], 1)])
    fewer = batch_parameters([prepared(HOT[:1], 0), prepared(HOT[2:], 1)], SHARDS)
    names = ("entity_type", "entity_id", "touches", "subjects", "shard", "attributes")
    short = {name: fewer[name] for name in (*names, "entity_event")}
    broken = [
        (query, parameters | short if parameters else parameters)
        for query, parameters in transaction
    ]
    with pytest.raises(errors.InvalidTextRepresentation, match="short write: 2 events, 2 touches"):
        run(connection, broken)
    assert tables.events() == tables.headers() == tables.entities() == tables.messages() == []


@pytest.mark.postgres_only("DSQL refuses PREPARE, and has no pooler in front")
@pytest.mark.usefixtures("tables")
def test_a_statement_that_somebody_prepared_stops_nothing(connection: Connection) -> None:
    """Behind a transaction pooler, another client may have prepared it in this session."""
    for n in range(PREPARE_AFTER):
        plain(connection, [prepared(HOT[:1], n)])
    for query, _ in PLAIN.statements([], SHARDS)[::2]:
        connection.execute(b'PREPARE "%b" AS SELECT 1' % query.name)
    with pytest.raises(errors.ProtocolViolation):  # it is another statement, which ours is not
        plain(connection, [prepared(HOT[:1], 8)])


def test_statements_that_were_deallocated_are_prepared_anew(
    connection: Connection, tables: Tables
) -> None:
    for n in range(PREPARE_AFTER + 2):
        plain(connection, [prepared(HOT[:1], n)])
    connection.execute("DEALLOCATE ALL")
    plain(connection, [prepared(HOT[:1], 9)])
    tables.assert_consistent()
    assert len(tables.events()) == PREPARE_AFTER + 3


def test_the_first_of_several_errors_is_raised_and_the_connection_serves_again(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    texts = (b"BEGIN", b"SELECT 1 / 0", b"SELECT 1", b"COMMIT")
    with pytest.raises(errors.DivisionByZero):
        run(connection, [(unprepared(text), {}) for text in texts])
    assert caplog.records == []
    assert connection.info.transaction_status is psycopg.pq.TransactionStatus.INERROR
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("event", [workload_s.car_created(), workload_s.three_entities()])
def test_a_write_is_one_round_trip(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, event: Event
) -> None:
    caller = open_writer(proxy.url, FORCED)
    first = caller.write(workload_s.car_created("CAR-9"))
    proxy.reset_counts()
    receipt = caller.write(event)
    assert proxy.round_trips == 1
    assert (proxy.statements[0], proxy.statements[-1]) == ("BEGIN", "COMMIT")
    tables.assert_true_to({first.event_id: first, event.id: receipt})


@pytest.mark.postgres_only("DSQL has one level, and no pooler in front")
@pytest.mark.parametrize("form", ["single", "plain"])
@pytest.mark.parametrize("event", [workload_s.car_created(), workload_s.three_entities()])
def test_behind_a_pooler_a_write_names_its_level_in_one_round_trip(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, form: str, event: Event
) -> None:
    """Such a pooler refuses the level as a setting of the session; `make test-pooler` has one."""
    database = Database(proxy.url, isolation="read committed")
    assert database._address.renew(psycopg.OperationalError("unsupported startup parameter"))
    caller = open_writer(database, replace(QUICK, form=form))  # type: ignore[arg-type]
    first = caller.write(workload_s.car_created("CAR-9"))
    proxy.reset_counts()
    receipt = caller.write(event)
    assert proxy.round_trips == 1
    begin = "BEGIN ISOLATION LEVEL READ COMMITTED"
    assert (proxy.statements[0], proxy.statements[-1]) == (begin, "COMMIT")
    tables.assert_true_to({first.event_id: first, event.id: receipt})


SHAPES = {"one": "WITH entity AS", "batch": "placed AS"}
"""What only one of the two statements of the single form has."""


@only_single("nothing is probed when the form is given")
@pytest.mark.parametrize("sqlstate", ["0A000", "42601", "42804"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_database_that_refuses_a_shape_of_the_write_gets_the_plain_form(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, sqlstate: str, shape: str
) -> None:
    proxy.refuse(None, sqlstate=sqlstate, message="not supported", matching=SHAPES[shape])
    caller = open_writer(proxy.url, AUTO)
    receipts = [caller.write(workload_s.car_created()) for _ in range(3)]
    receipts.append(caller.write(workload_s.three_entities()))
    assert {receipt.attempts for receipt in receipts} == {1}
    assert sum(SHAPES[shape].lower() in sql.lower() for sql in proxy.statements) == 1
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sqlstate", ["40001", "XX000"])
def test_a_probe_that_was_not_answered_decides_nothing_and_is_made_again(
    proxy: PostgresProxy, tables: Tables, shape: str, sqlstate: str
) -> None:
    proxy.refuse(1, sqlstate=sqlstate, message="server unavailable", matching=SHAPES[shape])
    with Writer(Database(proxy.url), AUTO) as writer:
        receipt = writer.write(workload_s.car_created())
        assert not writer._core.statements.is_plain
    assert receipt.attempts == 2
    tables.assert_true_to({receipt.event_id: receipt})


def test_the_probe_changes_nothing(proxy: PostgresProxy, tables: Tables) -> None:
    with Writer(Database(proxy.url), AUTO) as writer:
        writer.transact(lambda _: None)
    assert any(SHAPES["batch"].lower() in sql for sql in proxy.statements)
    assert tables.events() == tables.headers() == tables.entities() == tables.messages() == []


def test_postgresql_takes_the_single_form_for_one_round_trip_more(
    proxy: PostgresProxy, tables: Tables
) -> None:
    with Writer(Database(proxy.url), AUTO) as writer:
        receipts = [writer.write(workload_s.car_created()) for _ in range(2)]
        assert not writer._core.statements.is_plain
    assert proxy.round_trips == 3
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})


def test_a_plan_that_is_out_of_date_changes_no_form(proxy: PostgresProxy, tables: Tables) -> None:
    """After a change of the tables, the text of the statement is sent in its place."""
    proxy.refuse(1, sqlstate="0A000", message="cached plan must not change result type")
    with Writer(Database(proxy.url), AUTO) as writer:
        receipt = writer.write(workload_s.car_created())
    assert "COMMIT" not in proxy.statements
    tables.assert_true_to({receipt.event_id: receipt})


def test_versions_that_were_not_expected_and_duplicates_are_told_from_the_rest(
    url: str, tables: Tables
) -> None:
    taken, stale, good = (
        workload_s.car_created("A"),
        workload_s.car_created("B"),
        workload_s.hot()[0],
    )
    with Writer(Database(url), FORCED) as writer:
        first = writer.write(taken)
        outcomes = writer.write_many(
            [*good, stale, taken], expected_versions=[None] * len(good) + [7, None]
        )
        again = writer.write(taken, on_duplicate="return")
    *stored, version, duplicate = outcomes
    assert isinstance(version, StaleVersion)
    assert (version.expected, version.actual) == (7, 0)
    assert type(duplicate).__name__ == "DuplicateEvent"
    assert (again.status, again.position) == ("duplicate", first.position)
    tables.assert_true_to(dict(zip([event.id for event in good], stored, strict=True)))


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_batches_of_many_writers_never_deadlock(url: str, tables: Tables, isolation: str) -> None:
    database = Database(url, isolation=isolation)  # type: ignore[arg-type]

    def write(seed: int) -> int:
        random, conflicts = Random(seed), 0
        with database.connect() as connection:
            for _ in range(10):
                batch = [prepared(random.sample(HOT, 3), n) for n in range(5)]
                try:
                    plain(connection, batch)
                except errors.SerializationFailure:
                    connection.execute("ROLLBACK")
                    conflicts += 1
        return conflicts

    conflicts = sum(with_workers(4, write, range(4)))
    tables.assert_consistent()
    assert len(tables.events()) == 5 * (40 - conflicts)
    assert isolation == "repeatable read" or ON_DSQL or conflicts == 0
