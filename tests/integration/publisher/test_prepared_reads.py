"""What the relay runs often is planned once, and that plan stays right when the tables change."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Literal
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.sql.plans import nodes

from dsql_outbox.outbox import Database
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.outbox.database.exchange import PREPARE_AFTER
from dsql_outbox.publisher import PublisherSettings
from dsql_outbox.publisher.leases.table import SqlLeaseTable
from dsql_outbox.publisher.relay.sql_store import SqlStore, read_parameters
from dsql_outbox.publisher.relay.store import HEAD, PassedOver, Range, Reading, SubjectName
from dsql_outbox.schema.named_statements import numbered_statement

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.postgres_only("DSQL has a planner of its own, and no settings for it"),
]

SHARDS, ROWS, VISITS = 16, 20_000, 30
PASSED = PassedOver({SubjectName("Car", "C-3"): 0}, ["nobody"])

FILL = """
INSERT INTO outbox.outbox
SELECT n %% 16, n, gen_random_uuid(), greatest(n - 16, 0), 'Car', 'C-' || n %% 16, n, 't', '{}',
  CASE WHEN n %% 3 > 0 THEN 'ab' END, 2, now()
FROM generate_series(1, %s) AS n
"""
"""Rows with predecessors, some without a payload of their own."""

READ = "AS end_position"
SETTINGS = "set_config"


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[SqlStore]:
    store = SqlStore(database)
    try:
        yield store
    finally:
        await store.close()


async def read(store: SqlStore, times: int = 1) -> Reading:
    ranges = [Range(shard, HEAD, VISITS, 1 << 20, VISITS) for shard in range(SHARDS)]
    for _ in range(times):
        found = await store.read(ranges, PASSED)
    return found


def session_of(used: Any) -> AsyncConnection:
    current: AsyncConnection = used._connection.current
    return current


async def plans(session: AsyncConnection) -> dict[str, tuple[int, int]]:
    """The prepared statements of a session, each with its executions by a plan of either kind."""
    cursor = await session.execute(
        "SELECT name, generic_plans, custom_plans FROM pg_prepared_statements"
    )
    return {name[: -len("_") - 16]: counts for name, *counts in await cursor.fetchall()}


async def looked_at(session: AsyncConnection, sql: psycopg.Connection) -> Sequence[int]:
    """Scans of the whole outbox so far, and the rows that they and those of an index returned."""
    for _ in range(2):  # the first is counted by the second at the latest
        await session.execute("SELECT pg_stat_force_next_flush()")
        sql.execute("SELECT pg_stat_force_next_flush()")
    return sql.execute(
        "SELECT seq_scan, seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables"
        " WHERE relid = 'outbox.outbox'::regclass"
    ).fetchall()[0]


@pytest.mark.parametrize("rows", [ROWS, pytest.param(200_000, marks=pytest.mark.slow)])
async def test_a_plan_that_was_made_on_an_empty_table_reads_a_full_one_by_its_key(
    database: Database, sql: psycopg.Connection, rows: int
) -> None:
    """Also after VACUUM has emptied the table, which makes the server plan once more."""
    sql.execute("ALTER TABLE outbox.outbox SET (autovacuum_enabled = off)")
    async with opened(database) as store:
        for executions in (1, 3):
            sql.execute("VACUUM ANALYZE outbox.outbox")
            await read(store, PREPARE_AFTER + 1 if executions == 1 else 1)
            session = session_of(store._reads)
            assert (await plans(session))["outbox_read"] == [executions, 0]
            before = await looked_at(session, sql)
            sql.execute(FILL, [rows])
            found = await read(store)
            scans, scanned, fetched = await looked_at(session, sql)
            assert (scans, scanned) == tuple(before[:2])
            # The ends, the rows, their predecessors and their payloads: each by its key.
            assert 0 < fetched - before[2] <= 4 * SHARDS * VISITS
            sql.execute("DELETE FROM outbox.outbox")
    assert sum(len(each.rows) for each in found.ranges) == (SHARDS - 1) * VISITS


async def test_what_is_prepared_reads_the_same_rows(
    database: Database, outbox_url: str, sql: psycopg.Connection
) -> None:
    sql.execute(FILL, [300])
    async with opened(database) as one, opened(Database(outbox_url, prepare=False)) as other:
        prepared = await read(one, PREPARE_AFTER + 2)
        assert prepared.ranges == (await read(other, PREPARE_AFTER + 2)).ranges
        assert await plans(session_of(other._reads)) == {}


async def test_a_read_and_a_beat_are_parsed_once_and_take_a_round_trip_each(
    database_proxy: PostgresProxy, folder: Path
) -> None:
    database = Database(database_proxy.url)
    leases = SqlLeaseTable(database, PublisherSettings())

    async def beat(times: int = 1) -> None:
        for _ in range(times):
            assert await leases.renew_and_look("me", {0: 1}) is not None

    async with opened(database) as store:
        for used, run, statements in ((store._reads, read, 2), (leases, beat, 1)):
            of_store: tuple[Any, ...] = (store,) if run is read else ()
            await run(*of_store, PREPARE_AFTER)  # type: ignore[operator]
            pgconn = session_of(used).pgconn
            with (folder / run.__name__).open("w+") as trace:
                pgconn.trace(trace.fileno())
                for expected in (1 + statements, 1, 1):
                    database_proxy.reset_counts()
                    await run(*of_store)  # type: ignore[operator]
                    assert database_proxy.round_trips == expected
                pgconn.untrace()
                trace.seek(0)
                parsed = [line for line in trace if "\tParse\t" in line]
            assert len(parsed) == statements
    leases.drop()


async def test_a_session_that_forgets_its_statements_is_read_all_the_same(
    database: Database, sql: psycopg.Connection
) -> None:
    """As behind a pooler, or after DISCARD ALL."""
    sql.execute(FILL, [300])
    async with opened(database) as store:
        expected = await read(store, PREPARE_AFTER + 1)
        await session_of(store._reads).execute("DISCARD ALL")
        found = await read(store)
        assert found.ranges == expected.ranges
        assert await plans(session_of(store._reads)) == {}
        await read(store, PREPARE_AFTER)
        assert (await plans(session_of(store._reads)))["outbox_read"] == [1, 0]


async def test_a_change_of_a_column_changes_no_form(
    database_proxy: PostgresProxy, sql: psycopg.Connection
) -> None:
    """Else 0A000, `cached plan must not change result type`, would be taken for a refusal."""
    sql.execute(FILL, [300])
    async with opened(Database(database_proxy.url)) as store:
        expected = await read(store, PREPARE_AFTER + 1)
        session = session_of(store._reads)
        sql.execute("ALTER TABLE outbox.outbox ALTER subject_version TYPE numeric")
        found = [(await read(store)).ranges for _ in range(PREPARE_AFTER + 2)]
        assert found == [expected.ranges] * len(found)
        assert session_of(store._reads) is session
        assert (await plans(session))["outbox_read"] == [1, 0]
    sent = 2 * PREPARE_AFTER + 4  # one of them twice
    assert sum(READ in text for text in database_proxy.statements) == sent


async def test_a_server_that_refuses_the_settings_plans_each_read(
    database_proxy: PostgresProxy,
) -> None:
    database_proxy.refuse(None, sqlstate="0A000", message="not supported", matching=SETTINGS)
    async with opened(Database(database_proxy.url)) as store:
        await read(store, PREPARE_AFTER + 3)
        assert await plans(session_of(store._reads)) == {}
    assert sum(SETTINGS in text for text in database_proxy.statements) == 1
    assert sum(READ in text for text in database_proxy.statements) == PREPARE_AFTER + 4


async def test_what_a_read_passes_over_is_parsed_once_and_not_for_each_row(
    sql: psycopg.Connection, database: Database
) -> None:
    """A plan for all values computes no value in advance: 1,000 subjects took seconds a read."""
    query = numbered_statement("outbox_read", database.schema)
    asked = read_parameters([Range(0, HEAD, 9, 1 << 20, 9)], PASSED)
    values = SQL(", ").join([Literal(asked[name]) for name in query.parameters])
    sql.execute("SET plan_cache_mode = force_generic_plan")
    sql.execute(b"PREPARE page AS " + query.text)
    explain = SQL("EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE page ({})").format(values)
    ((found,),) = sql.execute(explain).fetchall()
    parsed = [node for node in nodes(found[0]["Plan"]) if "::jsonb" in _expressions(node)]
    assert {node["Parent Relationship"] for node in parsed} == {"InitPlan"}


def _expressions(node: Mapping[str, Any]) -> str:
    return str({name: value for name, value in node.items() if name != "Plans"})
