"""The read of the failures of gained shards, in pages."""

from math import inf
from uuid import UUID

import psycopg
import pytest

from dsql_outbox.outbox import Database
from dsql_outbox.publisher.relay import sql_store
from dsql_outbox.publisher.relay.sql_store import SqlStore
from dsql_outbox.publisher.relay.store import Failure
from dsql_outbox.schema.outbox_rows import RowId

pytestmark = pytest.mark.anyio

FAILED = 24


@pytest.mark.parametrize("last", [2.0, None])
async def test_a_failure_that_is_recorded_late_gives_back_no_attempt(
    database: Database, last: float | None
) -> None:
    """The statement of a lost connection may run after that of a later attempt."""
    row = RowId(0, 7, str(UUID(int=7)))
    store = SqlStore(database)
    await store.record([Failure(row, "second", 2, last)])
    await store.record([Failure(row, "first", 1, 1.0)])
    with database.connect() as connection:
        found = connection.execute(
            "SELECT attempts, retry_at > now() + interval '1.5 s' FROM outbox.outbox_failures"
        ).fetchall()
    await store.close()
    assert found == [(2, True)]


@pytest.mark.parametrize(
    ("rows", "statements"), [(1, FAILED + 1), (7, 4), (8, 4), (FAILED, 2), (FAILED + 1, 1)]
)
async def test_no_statement_reads_more_failures_than_a_page(
    database: Database,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    statements: int,
) -> None:
    """Failures of three shards, two of one event; one whose message is gone."""
    keys = [(n % 3, UUID(int=n // 2 << 96), n - 2) for n in range(FAILED)]
    for shard, event_id, position in keys:
        if position != 5:
            sql.execute(
                "INSERT INTO outbox.outbox VALUES (%s, %s, %s, 0, 'Car', %s, 1, '', '{}', 'ab', 2,"
                " now())",
                (shard, position, event_id, str(position)),
            )
        sql.execute(
            "INSERT INTO outbox.outbox_failures VALUES (%s, %s, %s, 3, '', 'infinity')",
            (shard, position, event_id),
        )
    monkeypatch.setattr(sql_store, "FAILURES", rows)
    store = SqlStore(database)
    found = await store.stored_failures([0, 2])
    await store.close()
    assert store.statements == statements
    expected = [(s, p, str(i)) for s, i, p in keys if s != 1 and p != 5]
    assert sorted(tuple(each.row) for each in found) == sorted(expected)
    assert {(each.attempts, each.seconds, each.size) for each in found} == {(3, inf, 2)}
    assert {each.subject.id for each in found} == {str(p) for _, p, _ in expected}


async def test_a_take_over_reads_failures_up_to_a_limit(
    database: Database, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox SELECT n % 3, n, gen_random_uuid(), 0, 'Car', n::text, 1, '',"
        " '{}', 'ab', 2, now() FROM generate_series(1, 100) AS n"
    )
    sql.execute(
        "INSERT INTO outbox.outbox_failures"
        " SELECT shard, position, event_id, 3, '', 'infinity' FROM outbox.outbox"
    )
    monkeypatch.setattr(sql_store, "FAILURES", 10)
    monkeypatch.setattr(sql_store, "MAX_FAILURES", 25)
    store = SqlStore(database)
    found = await store.stored_failures([0, 1, 2])
    await store.close()
    assert (len(found), store.statements) == (30, 3)
