"""An idle cluster of Aurora DSQL ends its sessions, and wakes up some time after a connection."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from time import monotonic

import psycopg
import pytest
from click.testing import CliRunner
from tests.support.dsql.governed import GovernedPostgres
from tests.support.publisher.running_relays import until
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, TIMEOUT, OpenWriter, formed, in_background
from tests.support.writer.checked_tables import Tables
from tests.support.writer.fixtures import open_writer

from dsql_outbox.cli.main import main
from dsql_outbox.observability.facts import Fact, ShardsChanged
from dsql_outbox.outbox import Database, Receipt
from dsql_outbox.outbox.database import database as connecting
from dsql_outbox.publisher import Publisher
from dsql_outbox.schema import apply
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import AsyncWriter, Writer

__all__ = ["open_writer"]

ONE_TRY = replace(QUICK, max_retries=0, max_outage=0.0)
"""Waking up is no attempt, so no retry is needed for it."""

WAKING = "waking up cluster, please retry later"


@pytest.fixture
def cluster(url: str) -> Iterator[GovernedPostgres]:
    """A cluster that wakes up 1.2 s after the first connection, by the real clock."""
    with GovernedPostgres(url) as proxy:
        proxy.sleeps.fall_asleep(wakes_up=1.2)
        yield proxy


def write_in_thread(url: str) -> Receipt:
    with Writer(Database(url), formed(ONE_TRY)) as writer:
        return writer.write(workload_s.car_created())


def write_in_task(url: str) -> Receipt:
    async def write() -> Receipt:
        async with AsyncWriter(Database(url), formed(ONE_TRY)) as writer:
            return await writer.write(workload_s.car_created())

    return asyncio.run(write())


def transact(url: str) -> Receipt:
    event = workload_s.car_created()
    with Writer(Database(url), formed(ONE_TRY)) as writer:
        return writer.transact(lambda transaction: transaction.append(event))


@pytest.mark.parametrize("write", [write_in_thread, write_in_task, transact])
def test_a_write_waits_for_the_cluster(
    cluster: GovernedPostgres,
    tables: Tables,
    write: Callable[[str], Receipt],
    caplog: pytest.LogCaptureFixture,
) -> None:
    began = monotonic()
    receipt = write(cluster.url)
    assert monotonic() - began >= 1.2
    assert receipt.attempts == 1
    assert [row["id"] for row in tables.events()] == [receipt.event_id]
    (line,) = [record for record in caplog.records if "waking up" in record.getMessage()]
    assert line.levelno == logging.WARNING
    assert "its connections wait for up to 60 s" in line.getMessage()


def test_the_time_of_a_call_ends_its_wait_and_the_connection_serves_the_next_call(
    cluster: GovernedPostgres, open_writer: OpenWriter
) -> None:
    caller = open_writer(cluster.url, ONE_TRY)
    with pytest.raises(psycopg.OperationalError, match="are being opened"):
        caller.write(workload_s.car_created(), timeout=0.3)
    assert isinstance(caller.write(workload_s.car_created()), Receipt)
    assert cluster.opened - cluster.closed == 1


def test_after_its_time_the_database_says_that_the_cluster_sleeps(
    cluster: GovernedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "WAKING_PATIENCE", 0.6)
    cluster.sleeps.fall_asleep(wakes_up=3_600.0)
    with pytest.raises(psycopg.OperationalError, match=WAKING):
        write_in_thread(cluster.url)
    done = CliRunner().invoke(main, ["status", "--database", cluster.url])
    assert (done.exit_code, WAKING in done.stderr) == (69, True)


@pytest.mark.anyio
async def test_a_publisher_waits_for_the_cluster(
    cluster: GovernedPostgres, url: str, tables: Tables
) -> None:
    receipt = await asyncio.to_thread(write_in_thread, url)
    sink = MemorySink()
    await Publisher(Database(cluster.url), sink).run(until_empty=True)
    assert [message.event_id for message in sink.messages] == [receipt.event_id]
    assert tables.messages() == []


@pytest.mark.anyio
@pytest.mark.parametrize("state", ["before its start", "while it runs"])
async def test_a_publisher_is_stopped_while_the_cluster_sleeps(
    cluster: GovernedPostgres, state: str
) -> None:
    owned: list[Fact] = []
    publisher = Publisher(Database(cluster.url), MemorySink(), hooks=[owned.append])
    if state == "while it runs":
        running = asyncio.create_task(publisher.run())
        await until(lambda: any(isinstance(fact, ShardsChanged) for fact in owned))
    cluster.sleeps.fall_asleep(wakes_up=3_600.0)
    if state == "before its start":
        running = asyncio.create_task(publisher.run())
    await until(lambda: cluster.sleeps.is_waking_up)
    began = monotonic()
    publisher.stop()
    await asyncio.wait_for(running, 20)
    assert monotonic() - began < 10


@pytest.mark.parametrize("words", [["status"], ["schema", "check"], ["doctor"]])
def test_a_command_waits_for_the_cluster(cluster: GovernedPostgres, words: list[str]) -> None:
    done = CliRunner().invoke(main, [*words, "--database", cluster.url])
    assert done.exit_code in {0, 1}, done.output
    assert WAKING not in done.stdout


def test_a_migration_waits_for_the_cluster(cluster: GovernedPostgres) -> None:
    apply(Database(cluster.url))


def test_many_calls_wait_for_one_cluster_within_its_openings(
    cluster: GovernedPostgres, open_writer: OpenWriter, tables: Tables
) -> None:
    caller = open_writer(cluster.url, replace(ONE_TRY, max_connections=3))
    events = [workload_s.car_created(f"CAR-{n}") for n in range(9)]
    calls = [in_background(partial(caller.write, event)) for event in events]
    receipts = [call.result(TIMEOUT) for call in calls]
    assert {receipt.attempts for receipt in receipts} == {1}
    wait_until(lambda: cluster.opened - cluster.closed <= 3)
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})
