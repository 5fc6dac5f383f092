"""A running publisher: what it opens with, what operators change, and what an idle minute costs."""

import asyncio
from collections.abc import Sequence
from time import monotonic
from uuid import UUID

import anyio
import anyio.lowlevel
import psycopg
import pytest
from tests.support.database_roles import as_role
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.running_relays import (
    count,
    event,
    in_order,
    quick_settings,
    relayed,
    until,
)

from dsql_outbox.observability.facts import Fact, RelayProgress, ShardsChanged
from dsql_outbox.operations import Messages, Selection
from dsql_outbox.outbox import Database, Message, MissingRight, SchemaError
from dsql_outbox.publisher import Answer, Publisher, PublisherSettings, Rejected, Retry
from dsql_outbox.publisher import publisher as publisher_module
from dsql_outbox.publisher.relay import reader
from dsql_outbox.schema import apply
from dsql_outbox.schema.roles import Roles
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import AsyncWriter, Writer

pytestmark = pytest.mark.anyio

SHARDS = 4


@pytest.mark.usefixtures("database")
async def test_a_change_of_the_schema_while_it_opens_is_tried_again(outbox_url: str) -> None:
    with PostgresProxy(outbox_url) as proxy:
        proxy.refuse(1, message="(OC001)", matching='count(*) FROM "outbox".outbox_leases')
        await relayed(Database(proxy.url), MemorySink())
        assert proxy.statements, "it was asked, and asked again"


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    "matching", ["o.payload", "outbox_failures f", "outbox_topics", "DELETE FROM"]
)
async def test_a_server_that_is_unavailable_for_a_while_is_waited_for(
    outbox_url: str, matching: str
) -> None:
    with Writer(Database(outbox_url)) as writer:
        writer.write(event("car-1"))
    sink = MemorySink()
    with PostgresProxy(outbox_url) as proxy:
        proxy.refuse(2, sqlstate="XX000", message="server unavailable", matching=matching)
        await Publisher(Database(proxy.url), sink, quick_settings()).run(until_empty=True)
    assert len(sink.messages) == 1


async def test_a_block_relays_and_what_it_sent_is_deleted_at_its_end(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    sink = MemorySink()
    async with Publisher(database, sink):
        writer.write_many([event(f"car-{n}") for n in range(100)])
        await sink.published(1)
    assert count(sql, "outbox") == 100 - len(sink.messages)
    assert sql.execute("SELECT count(owner) FROM outbox.outbox_leases").fetchone() == (0,)


async def test_an_error_of_the_publisher_ends_its_block_and_is_raised_in_its_place(
    database: Database, writer: Writer
) -> None:
    class Broken(MemorySink):
        async def publish(self, _messages: Sequence[Message], _answer: Answer, /) -> None:
            raise ZeroDivisionError

    writer.write(event("car"))
    with pytest.raises(ZeroDivisionError):
        async with Publisher(database, Broken()):
            await anyio.sleep_forever()


async def test_tables_that_are_missing_are_told_before_the_block(database_url: str) -> None:
    began: list[Publisher] = []
    with pytest.raises(SchemaError):
        async with Publisher(Database(database_url), MemorySink()) as publisher:
            began.append(publisher)
    assert began == []


@pytest.mark.parametrize(
    ("right", "at_the_start"),
    [
        ("UPDATE ON outbox.outbox_leases", True),
        ("SELECT ON outbox.outbox_payloads", True),
        ("DELETE ON outbox.outbox", False),
    ],
)
async def test_a_right_that_is_missing_ends_it_with_the_grant(
    url: str, roles: Roles, right: str, *, at_the_start: bool
) -> None:
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(f'REVOKE {right} FROM "{roles.publisher}"'.encode())
    sink = MemorySink()
    with Writer(Database(url)) as writer:
        writer.write(event("car"))
    with pytest.raises(MissingRight) as raised:
        await Publisher(Database(as_role(url, roles.publisher)), sink).run()
    assert f"`dsql-outbox schema grant --publisher {roles.publisher}`" in str(raised.value)
    assert bool(sink.messages) is not at_the_start


async def test_its_reports_add_up_to_what_it_relayed(database: Database, writer: Writer) -> None:
    told: list[RelayProgress] = []

    def watch(fact: Fact, /) -> None:
        if isinstance(fact, RelayProgress):
            told.append(fact)

    events = [event(f"car-{n % 10}", n) for n in range(300)]
    writer.write_many(events)
    sink = MemorySink()
    sink.fail(events[0].id, Retry("no"))
    sink.fail(events[1].id, Rejected("never"))
    quick = quick_settings(backoff_base=0.01)
    done = await Publisher(database, sink, quick, hooks=[watch]).run(until_empty=True)
    for field in ("read", "delivered", "deleted", "failed", "dead"):
        assert sum(getattr(fact, field) for fact in told) == getattr(done, field), field
    assert (done.delivered, done.failed, done.dead) == (299, 1, 1)


# --- what operators do -----------------------------------------------------------------


async def test_a_running_publisher_notices_that_an_operator_set_a_subject_free(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_REFRESH", 0.05)
    events = [event("car", n) for n in range(3)]
    writer.write_many(events)
    sink = MemorySink()
    sink.fail(events[0].id, Rejected("not yet"))
    blocking = quick_settings(on_dead_letter="block")
    async with Publisher(database, sink, blocking):
        await until(lambda: count(sql, "outbox_failures") == 1)
        async with Messages(database) as messages:
            assert [f.event_id async for f in messages.retry()] == [events[0].id]
        await until(lambda: len(sink.messages) == 3)
    assert in_order(sink.messages)


async def test_a_failed_message_that_an_operator_gave_up_is_not_looked_for_on_and_on(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    bad = event("car")
    writer.write(bad)
    sink = MemorySink()
    sink.fail(bad.id, *[Retry("no")] * 20)  # also if the operator comes late
    slow = quick_settings(backoff_base=0.3, idle_max=10.0)
    async with Publisher(database, sink, slow) as publisher:
        await until(lambda: count(sql, "outbox_failures") == 1)
        buried: list[UUID] = []
        async with Messages(database) as messages:
            while not buried:  # one that fails again at the same time is left alone
                buried = [f.event_id async for f in messages.drop(Selection(state="failing"))]
        assert buried == [bad.id]
        await until(lambda: publisher._relay is not None and not publisher._relay.held)
        assert publisher._store.statements < 30


async def test_until_empty_does_not_wait_for_an_operator(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    bad = [event("bad", n) for n in range(3)]
    writer.write_many([*bad, event("good")])
    sink = MemorySink()
    sink.fail(bad[0].id, Rejected("never"))
    with anyio.fail_after(60):
        await Publisher(database, sink, quick_settings(on_dead_letter="block")).run(
            until_empty=True
        )
    assert [message.key for message in sink.messages] == ["Car/good"]
    assert sql.execute("SELECT count(*) FROM outbox.outbox").fetchone() == (3,)


async def test_failures_without_a_message_are_swept_away_by_one_publisher(
    database: Database, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "_SWEEP", 0.05)
    sql.execute(
        "INSERT INTO outbox.outbox_failures VALUES (0, 1, %s, 1, 'late', 'infinity')", [UUID(int=1)]
    )

    async with Publisher(database, MemorySink(), quick_settings()):
        await until(lambda: count(sql, "outbox_failures") == 0)


# --- waking, and what rest costs -------------------------------------------------------


async def test_the_doorbell_wakes_a_publisher_that_sleeps(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_FIRST_WAIT", 30.0)
    sink = MemorySink()
    publisher = Publisher(database, sink, quick_settings(idle_max=30.0))
    async with publisher, AsyncWriter(database, hooks=[publisher.doorbell]) as writer:
        await writer.write(event("car"))
        await until(lambda: len(sink.messages) == 1)

        def from_a_thread() -> None:
            with Writer(database, hooks=[publisher.doorbell]) as other:
                other.write(event("car-2"))

        await asyncio.to_thread(from_a_thread)
        await until(lambda: len(sink.messages) == 2)


async def test_an_idle_second_costs_a_read_a_second_and_three_statements_a_renewal(
    outbox_url: str,
    database: Database,  # noqa: ARG001 - the tables
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted at the wire over a time that passes twenty times as fast."""
    monkeypatch.setattr(reader, "_FIRST_WAIT", 0.05)
    quick = PublisherSettings(idle_max=0.05, lease=2.0)
    with PostgresProxy(outbox_url) as proxy:
        async with Publisher(Database(proxy.url), MemorySink(), quick):
            began = monotonic()
            proxy.reset_counts()

            def reads() -> int:
                return sum("AS predecessor" in text for text in proxy.statements)

            await until(lambda: reads() >= 25)
            took = monotonic() - began
            found, settings = reads(), sum("set_config" in text for text in proxy.statements)
            others = len(proxy.statements) - found - settings
    # idle_max is shortened by up to a quarter of jitter.
    assert found <= took / (0.05 * 0.75) + 2
    assert settings <= found + 1  # in the round trip of a read
    assert others <= 3 * (took / quick.renew + 1)


async def test_more_shards_are_found_while_it_runs(
    database: Database, sql: psycopg.Connection
) -> None:
    changes: list[ShardsChanged] = []

    def watch(fact: Fact, /) -> None:
        if isinstance(fact, ShardsChanged):
            changes.append(fact)

    quick = quick_settings(lease=1.0)
    async with Publisher(database, MemorySink(), quick, hooks=[watch]):
        await until(lambda: bool(changes) and len(changes[-1].owned) == SHARDS)
        apply(database, shards=SHARDS + 3)
        await until(lambda: len(changes[-1].owned) == SHARDS + 3)
    assert changes[0].gained == frozenset(range(SHARDS))
    assert not any(change.lost for change in changes[:-1]), "only the stop gave any up"
    assert sql.execute("SELECT count(owner) FROM outbox.outbox_leases").fetchone() == (0,)
