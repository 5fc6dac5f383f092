"""The read of the failures of gained shards, in pages."""

from math import inf
from uuid import UUID

import psycopg
import pytest

from dsql_outbox.outbox import Database
from dsql_outbox.publisher.relay import sql_store
from dsql_outbox.publisher.relay.sql_store import SqlStore

pytestmark = pytest.mark.anyio

FAILED = 24


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
    found = await store.failures([0, 2])
    await store.close()
    assert store.statements == statements
    expected = [(s, p, str(i)) for s, i, p in keys if s != 1 and p != 5]
    assert sorted(tuple(each.row) for each in found) == sorted(expected)
    assert {(each.attempts, each.seconds, each.size) for each in found} == {(3, inf, 2)}
    assert {each.subject.id for each in found} == {str(p) for _, p, _ in expected}
