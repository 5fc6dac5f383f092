"""Old events that are forgotten again and again, through outages and other jobs."""

from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID

import anyio
import psycopg
import pytest
from tests.support.operations.small_jobs import small_pages
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.given_up_messages import event, gathered, relay_all
from tests.support.publisher.running_relays import count

from dsql_outbox.operations import Operations, Retention
from dsql_outbox.operations.life import job
from dsql_outbox.operations.life.keep import KeepRun, Pass
from dsql_outbox.outbox import Database
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

QUICK = timedelta(milliseconds=20)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


async def stored(database: Database, writer: Writer, sql: psycopg.Connection) -> UUID:
    """Store an event of two days ago, which was delivered."""
    event_id = writer.write(event()).event_id
    await relay_all(database, MemorySink())
    old = datetime.now(UTC) - 2 * DAY
    sql.execute("UPDATE outbox.business_events SET saved_date = %s WHERE id = %s", (old, event_id))
    return event_id


async def until_complete(run: KeepRun) -> list[Pass]:
    """The passes until one that has forgotten something, with it."""
    passes: list[Pass] = []
    with anyio.fail_after(60):
        async for each in run:
            passes.append(each)
            if each.done.events:
                break
    return passes


async def test_what_grows_old_between_two_passes_goes_with_the_next(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    async with Retention(database) as tool:
        run = tool.keep(DAY, QUICK, reason="a day")
        for _ in range(2):
            young = writer.write(event()).event_id
            await stored(database, writer, sql)
            assert (await until_complete(run))[-1].done.events == 1
            assert run.next_at is not None
            left = sql.execute("SELECT id FROM outbox.business_events").fetchall()
            assert (young,) in left
        run.stop()
        assert [each async for each in run] == []
    assert sql.execute("SELECT forgotten, owner FROM outbox.outbox_jobs").fetchall() == [(2, None)]
    async with Operations(database) as operations:
        found = await gathered(operations.list())
    assert [each.reason for each in found if each.verb == "forget"] == ["a day"]


async def test_it_is_stopped_between_two_passes_at_once_and_in_a_pass_after_a_transaction(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    for _ in range(6):
        await stored(database, writer, sql)
    with small_pages():
        async with Retention(database) as tool:
            run = tool.keep(DAY, HOUR, rate=1_000_000)
            async with anyio.create_task_group() as group:

                async def stop() -> None:
                    while count(sql, "business_events") == 6:
                        await anyio.lowlevel.checkpoint()
                    run.stop()

                group.start_soon(stop)
                passes = [each async for each in run]
            assert [each.error for each in passes] == [None]
            assert 0 < passes[0].done.events < 6
            assert count(sql, "business_events") == 6 - passes[0].done.events

            run = tool.keep(DAY, HOUR)
            await anext(run)
            began = monotonic()
            run.stop()
            assert [each async for each in run] == []
            assert monotonic() - began < HOUR.total_seconds()


async def test_it_goes_on_after_an_outage_and_beside_another_job_and_says_so(
    database: Database,
    database_proxy: PostgresProxy,
    writer: Writer,
    sql: psycopg.Connection,
) -> None:
    await stored(database, writer, sql)
    database_proxy.cut("before", None, matching="")
    async with Retention(Database(database_proxy.url)) as tool:
        run = tool.keep(DAY, QUICK)
        lost = await anext(run)
        assert lost.error is not None
        assert lost.done.events == 0
        database_proxy.heal()
        sql.execute(
            "INSERT INTO outbox.outbox_jobs (name, owner, epoch, expires_at, verb, erased,"
            " forgotten) VALUES ('life', 'host:7', 1, now() + interval '1 h', 'erase', 0, 0)"
        )
        with anyio.fail_after(60):
            async for each in run:
                if "the job erase of host:7 runs" in (each.error or ""):
                    break
        sql.execute("UPDATE outbox.outbox_jobs SET owner = NULL")
        assert (await until_complete(run))[-1].error is None
        await run.aclose()
    assert count(sql, "business_events") == 0


@pytest.mark.parametrize("sqlstate", ["57014", "XX000", "40001"])
async def test_it_goes_on_after_an_error_of_the_database_that_passes(
    database: Database,
    database_proxy: PostgresProxy,
    writer: Writer,
    sql: psycopg.Connection,
    sqlstate: str,
) -> None:
    await stored(database, writer, sql)
    database_proxy.refuse(None, sqlstate=sqlstate, matching="business_events")
    async with Retention(Database(database_proxy.url)) as tool:
        run = tool.keep(DAY, QUICK)
        assert (await anext(run)).error is not None
        database_proxy.heal()
        assert (await until_complete(run))[-1].error is None
        await run.aclose()


async def test_a_scan_that_takes_longer_than_the_lease_keeps_it(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No page of it has an old event, so no transaction renews it."""
    monkeypatch.setattr("dsql_outbox.operations.life.old_events._PAGE", 1)
    for _ in range(3):
        writer.write(event())
    ends: set[datetime] = set()
    renew = job.LifeJob.renew

    async def renewed(self: job.LifeJob, **given: datetime | None) -> None:
        await renew(self, **given)
        ends.update(row[0] for row in sql.execute("SELECT expires_at FROM outbox.outbox_jobs"))

    monkeypatch.setattr(job.LifeJob, "renew", renewed)
    async with Retention(database) as tool:
        await tool.forget(datetime.now(UTC) - DAY)
    assert len(ends) >= 4, "once before the first page, and after each"
