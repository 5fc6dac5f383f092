"""The relay reads in the form that the database takes, and both return the same."""

from collections.abc import Sequence
from random import Random
from uuid import UUID

import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.given_rows import rows_in

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher import Publisher
from dsql_outbox.publisher.relay.sql_store import SqlStore
from dsql_outbox.publisher.relay.store import (
    HEAD,
    LAST,
    PassedOver,
    Range,
    RangeRead,
    RowPlace,
    SubjectName,
)
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer, WriterSettings

pytestmark = pytest.mark.anyio

READ = "AS end_position"
"""Only the statement that reads several ranges has it."""

TOPICS = ("cars", "vans")


def written(database: Database) -> None:
    """60 messages of several subjects, topics and sizes, with a replayed position twice."""
    random = Random(24)
    for topic in TOPICS:
        with Writer(database, WriterSettings(topic=topic)) as writer:
            sizes = [random.choice([10, 400, 4_000]) for _ in range(30)]
            writer.write_many(
                Event.new("Sold", [Entity("Car", f"C-{n % 7}", {"text": "x" * size})])
                for n, size in enumerate(sizes)
            )


def asked(place: Sequence[RowPlace]) -> list[Range]:
    """Ranges from many places, with limits of each kind."""
    random = Random(7)
    limits = [
        (100, 1 << 20, 100),
        (100, 1 << 20, 9),
        (3, 1 << 20, 100),
        (100, 5_000, 100),
        (1, 1, 1),
    ]
    return [
        Range(
            shard,
            random.choice([HEAD, *place]),
            *random.choice(limits),
            until=random.choice([LAST, LAST, *place]).position,
        )
        for shard in (0, 1, 2, 3, 99)
        for _ in range(8)
    ]


@pytest.mark.parametrize(
    "passed",
    [
        PassedOver({}, ()),
        PassedOver({SubjectName("Car", "C-1"): 1, SubjectName("Car", "C-2"): 1 << 60}, ["vans"]),
        PassedOver({SubjectName("Car", "C-3"): 0}, [""]),
    ],
)
async def test_both_forms_return_the_same_rows_ends_and_cuts(
    database: Database, database_proxy: PostgresProxy, sql: psycopg.Connection, passed: PassedOver
) -> None:
    written(database)
    sql.execute("UPDATE outbox.outbox SET position = 5 WHERE subject_version = 2")
    keys = sql.execute("SELECT position, event_id::text FROM outbox.outbox").fetchall()
    ranges = asked([RowPlace(*key) for key in keys])
    stores = [SqlStore(database), SqlStore(Database(database_proxy.url))]
    database_proxy.refuse(None, sqlstate="0A000", message="not supported", matching=READ)
    single, plain = [(await store.read(ranges, passed)).ranges for store in stores]
    for store in stores:
        await store.close()
    assert [_comparable(each) for each in plain] == [_comparable(each) for each in single]
    assert {each.is_cut for each in single} == {True, False}
    for one, each in zip(ranges, single, strict=True):
        assert all(row.position <= one.until for row in rows_in(each))
    assert any(each.rows for each in single) == ("" not in passed.topics)


def _comparable(read: RangeRead) -> tuple[object, ...]:
    rows = rows_in(read)
    return (*(each.id for each in rows), *(each.waits for each in rows), *read[1:])


PREDECESSORS = [
    ("Car", "a", 10, 0, False),
    ("Car", "a", 20, 10, True),
    ("Car", "b", 30, 20, False),  # at 20 is a row of another subject
    ("Van", "a", 40, 20, False),
    ("Car", "a", 50, 15, False),  # its predecessor is gone
    ("Car", "a", 80, 20, True),
    ("Car", "c", 90, 70, False),  # its own row there is in another shard
]
"""Type and id of a subject, position, previous position, and whether the row waits."""


@pytest.mark.parametrize("sqlstate", [None, "0A000"])
async def test_in_both_forms_a_row_waits_for_a_row_of_its_own_subject_alone(
    database_proxy: PostgresProxy, sql: psycopg.Connection, sqlstate: str | None
) -> None:
    if sqlstate is not None:
        database_proxy.refuse(None, sqlstate=sqlstate, message="not supported", matching=READ)
    elsewhere = (2, "Car", "c", 70, 0, False)
    for shard, kind, subject, position, previous, _ in (
        *((1, *p) for p in PREDECESSORS),
        elsewhere,
    ):
        sql.execute(
            "INSERT INTO outbox.outbox VALUES (%s, %s, %s, %s, %s, %s, 1, 't', '{}', '{}', 2,"
            " now())",
            (shard, position, UUID(int=position), previous, kind, subject),
        )
    store = SqlStore(Database(database_proxy.url))
    reading = await store.read([Range(1, HEAD, 99, 1 << 20, 99)], PassedOver({}, ()))
    await store.close()
    found = [(row.position, row.predecessor) for row in rows_in(reading.ranges[0])]
    assert found == [(position, waits) for *_, position, _, waits in PREDECESSORS]


@pytest.mark.parametrize("sqlstate", ["0A000", "42601", "42804"])
async def test_a_refused_read_is_given_up_and_all_is_relayed_in_the_plain_form(
    database: Database, database_proxy: PostgresProxy, sqlstate: str
) -> None:
    written(database)
    database_proxy.refuse(None, sqlstate=sqlstate, message="not supported", matching=READ)
    sink = MemorySink()
    settings = TunedSettings(batch_rows=10)
    done = await Publisher(Database(database_proxy.url), sink, settings).run(until_empty=True)
    assert done.deleted == len(sink.messages) == 60
    tries = sum(READ in text for text in database_proxy.statements)
    assert 1 <= tries <= 2, "with its settings, which may be refused too, and without"


async def test_an_error_of_the_server_decides_nothing(
    database: Database, database_proxy: PostgresProxy
) -> None:
    written(database)
    database_proxy.refuse(1, sqlstate="XX000", message="server unavailable", matching=READ)
    done = await Publisher(Database(database_proxy.url), MemorySink()).run(until_empty=True)
    assert done.deleted == 60
    assert sum(READ in text for text in database_proxy.statements) > 1
