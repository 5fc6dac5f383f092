"""Behind a transaction pooler, which gives each transaction any session: `make test-pooler`."""

from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import anyio
import asyncpg
import psycopg
import pytest
from anyio.from_thread import BlockingPortal
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from tests.support.driver_sessions import engine_url
from tests.support.pgbouncer import PROGRAM, PgBouncer
from tests.support.writer.callers import QUICK, make_caller, with_workers

from dsql_outbox.operations import Messages
from dsql_outbox.outbox import Database, Entity, Event, Receipt
from dsql_outbox.outbox.database.address import Isolation
from dsql_outbox.publisher import Publisher, PublisherSettings, Rejected
from dsql_outbox.publisher.leases.table import SqlLeaseTable
from dsql_outbox.publisher.relay.sql_store import SqlStore
from dsql_outbox.publisher.relay.store import HEAD, PassedOver, Range
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres, MemorySink
from dsql_outbox.writer import AsyncWriter, Transaction, Writer

pytestmark = [
    pytest.mark.pooler,
    pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed"),
    pytest.mark.postgres_only("pgbouncer stands in front of PostgreSQL"),
]

CALLS = 120
SCHEMAS = ("outbox", "second")


@pytest.fixture(scope="module")
def pooler(postgres: EmbeddedPostgres) -> Iterator[PgBouncer]:
    with PgBouncer(postgres.url) as pooler:
        yield pooler


@pytest.fixture
def url(pooler: PgBouncer, database_url: str) -> str:
    """A database with the tables of two schemas, by way of the pooler."""
    for schema in SCHEMAS:
        apply(Database(database_url, schema=schema), shards=4)
    return pooler.url(database_url.rpartition("/")[2])


@pytest.fixture
def direct(url: str, database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:  # noqa: ARG001 - the tables
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def stored(
    direct: psycopg.Connection[tuple[object, ...]], schema: str
) -> dict[str, tuple[object, object]]:
    rows = direct.execute(
        f"SELECT id::text, position, subject_version FROM {schema}.business_events"  # type: ignore[arg-type]
    )
    return {str(row[0]): (row[1], row[2]) for row in rows}


@pytest.mark.parametrize("isolation", [None, "read committed", "repeatable read"])
@pytest.mark.parametrize("form", ["auto", "plain"])
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_each_receipt_has_its_rows_in_its_own_schema(
    portal: BlockingPortal,
    url: str,
    direct: psycopg.Connection[tuple[object, ...]],
    isolation: Isolation | None,
    form: str,
    kind: str,
) -> None:
    settings = replace(QUICK, form=form)  # type: ignore[arg-type]
    databases = [Database(url, schema=schema, isolation=isolation) for schema in SCHEMAS]
    callers = [make_caller(portal, kind, database, settings) for database in databases]

    def write(number: int) -> Receipt:
        entities = [Entity("Car", f"C-{number}-{uuid4()}")]
        return callers[number % 2].write(Event.new("CarSold", entities))

    receipts = with_workers(8, write, range(CALLS))
    for place, (schema, caller) in enumerate(zip(SCHEMAS, callers, strict=True)):
        told = {
            str(one.event_id): (one.position, one.entities[0].version) for one in receipts[place::2]
        }
        assert told == stored(direct, schema), f"schema {schema}"
        caller.close()


@pytest.mark.parametrize("prepare", [True, False])
def test_everything_that_a_writer_offers_works(
    url: str, direct: psycopg.Connection[tuple[object, ...]], prepare: bool
) -> None:
    database = Database(url, isolation="repeatable read", prepare=prepare)
    car = [Entity("Car", "C-1")]

    def function(transaction: Transaction) -> str:
        transaction.append(Event.new("CarSold", car))
        row = transaction.connection.execute("SHOW transaction_isolation").fetchone()
        return str(row[0]) if row else ""

    with Writer(database, QUICK) as writer:
        for _ in range(12):
            writer.write(Event.new("CarSold", car))
            assert writer.transact(function) == "repeatable read"
        outcomes = writer.write_many([Event.new("CarSold", car) for _ in range(8)])
        assert all(isinstance(outcome, Receipt) for outcome in outcomes)
        versions = [event.version for event in writer.stream("Car", "C-1")]
    assert versions == list(range(1, 33))
    assert len(stored(direct, "outbox")) == 32


def test_a_pooler_adds_a_statement_only_when_a_session_goes_to_a_part_with_another_name(
    url: str, direct: psycopg.Connection[tuple[object, ...]], postgres: EmbeddedPostgres
) -> None:
    direct.execute(f"ALTER DATABASE {direct.info.dbname} SET log_statement = 'all'")  # type: ignore[arg-type]
    before = postgres.log.stat().st_size
    with Writer(Database(url), QUICK) as writer:
        for number in range(7):
            writer.write(Event.new("CarSold", [Entity("Car", f"C-{number}")]))
    log = postgres.log.read_bytes()[before:]
    assert log.count(b"event_write_one") + log.count(b"Write one event") >= 7
    sent = {line for line in log.splitlines() if b" statement: SET " in line}
    assert len(sent) <= 3, sent  # the pooler's sessions, each of which gets the name once


@pytest.mark.anyio
async def test_the_prepared_reads_and_beats_of_two_schemas_meet_in_the_same_sessions(
    url: str, direct: psycopg.Connection[tuple[object, ...]]
) -> None:
    ranges = [Range(shard, HEAD, 99, 1 << 20, 99) for shard in range(4)]
    for number, schema in enumerate(SCHEMAS, start=1):
        with Writer(Database(url, schema=schema), QUICK) as writer:
            writer.write_many([Event.new("CarSold", [Entity("Car", "C")]) for _ in range(number)])

    async def read(number: int, schema: str) -> None:
        database = Database(url, schema=schema)
        store, leases = SqlStore(database), SqlLeaseTable(database, PublisherSettings())
        for _ in range(30):
            found = await store.read(ranges, PassedOver({}, ()))
            assert sum(len(each.rows) for each in found.ranges) == number
            assert await leases.renew_and_look(f"{schema} {number}", {0: 1}) is not None
        assert not store._is_refused
        leases.drop()
        await store.close()

    async with anyio.create_task_group() as group:
        for number, schema in enumerate([*SCHEMAS] * 3):
            group.start_soon(read, 1 + number % 2, schema)
    for schema in SCHEMAS:
        found = direct.execute(f"SELECT owner FROM {schema}.outbox_publishers").fetchall()  # type: ignore[arg-type]
        assert {owner.split()[0] for (owner,) in found} == {schema}  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_the_relay_and_an_operator_work(
    url: str, direct: psycopg.Connection[tuple[object, ...]]
) -> None:
    database = Database(url)
    sink = MemorySink()
    async with AsyncWriter(database, replace(QUICK, coalesce=2)) as writer:
        cars = [[Entity("Car", f"C-{number % 5}")] for number in range(60)]
        events = [Event.new("CarSold", car) for car in cars]
        sink.fail(events[7].id, Rejected("no"))
        async with anyio.create_task_group() as group:
            for event in events:
                group.start_soon(writer.write, event)
    await Publisher(database, sink, TunedSettings(batch_rows=10)).run(until_empty=True)
    async with Messages(database) as letters:
        replayed = [each async for each in letters.retry()]
    assert len(replayed) == 1
    await Publisher(database, sink).run(until_empty=True)
    assert set(sink.ids) == {event.id for event in events}
    assert stored(direct, "outbox").keys() == {str(event.id) for event in events}


@pytest.mark.anyio
@pytest.mark.parametrize("through", ["asyncpg", "SQLAlchemy"])
async def test_callers_on_asyncpg_append_in_their_own_transactions(
    url: str, direct: psycopg.Connection[tuple[object, ...]], through: str
) -> None:
    """As asyncpg's manual says: without its cache of prepared statements."""
    options = {"statement_cache_size": 0}
    if through == "SQLAlchemy":
        options["prepared_statement_cache_size"] = 0
    engine = create_async_engine(engine_url(url, "asyncpg"), connect_args=options)

    async def append(writer: AsyncWriter, event: Event) -> None:
        if through == "SQLAlchemy":
            async with AsyncSession(engine) as session, session.begin():
                await writer.append_to(session, event)
        else:
            mine = await asyncpg.connect(url, **options)
            async with mine.transaction():
                await writer.append_to(mine, event)
            await mine.close()

    events = [Event.new("CarSold", [Entity("Car", f"C-{number}")]) for number in range(12)]
    async with AsyncWriter(Database(url), QUICK) as writer:
        # A first use asks on a connection of the writer. The transactions of the callers that wait
        # for its answer would hold all sessions that the pooler has.
        await append(writer, events[0])
        async with anyio.create_task_group() as group:
            for event in events[1:]:
                group.start_soon(append, writer, event)
    await engine.dispose()
    assert stored(direct, "outbox").keys() == {str(event.id) for event in events}


@pytest.mark.anyio
async def test_the_doorbell_is_heard_past_the_pooler(
    url: str, database_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LISTEN succeeds through it, but no notification arrives. Writers ring through it."""
    monkeypatch.setattr("dsql_outbox.publisher.doorbell._PATIENCE", 0.2)
    monkeypatch.setattr("dsql_outbox.publisher.relay.reader._FIRST_WAIT", 3_600.0)
    settings = PublisherSettings(doorbell=True, idle_max=3_600.0)
    async with Publisher(Database(url), MemorySink(), settings):
        with anyio.fail_after(30):
            while "a URL of the server itself" not in caplog.text:  # noqa: ASYNC110 - a log is no event
                await anyio.sleep(0.01)
    sink = MemorySink()
    direct = Database(database_url)
    async with (
        Publisher(direct, sink, settings),
        AsyncWriter(Database(url), replace(QUICK, doorbell=True)) as writer,
    ):
        with anyio.fail_after(30):
            for n in range(3):
                await writer.write(Event.new("CarCreated", [Entity("Car", f"CAR-{n}")]))
                while len(sink.messages) <= n:  # noqa: ASYNC110 - as above
                    await anyio.sleep(0.01)


def test_callers_on_psycopg_append_often_without_prepared_statements(
    url: str, direct: psycopg.Connection[tuple[object, ...]]
) -> None:
    """psycopg prepares at the sixth execution, in a session that the next call may not have."""
    events = [Event.new("CarSold", [Entity("Car", f"C-{number}")]) for number in range(24)]
    options = {"prepare_threshold": None}
    engine = create_engine(engine_url(url, "psycopg"), connect_args=options)
    with (
        Writer(Database(url), QUICK) as writer,
        Session(engine) as mine,
        Session(engine) as other,
    ):
        for n, event in enumerate(events):
            writer.append_to((mine, other)[n % 2], event)
            if n % 3:
                mine.commit()
                other.commit()
        mine.commit()
        other.commit()
    engine.dispose()
    assert stored(direct, "outbox").keys() == {str(event.id) for event in events}
