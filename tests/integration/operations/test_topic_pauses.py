"""Topics that an operator pauses, on the real tables."""

from datetime import UTC, datetime

import anyio
import psycopg
import pytest
from tests.support.publisher.given_up_messages import gathered
from tests.support.publisher.running_relays import event, in_order, quick_settings

from dsql_outbox.operations import Targets, Topics
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.outbox import Database, Entity, Event, SchemaError
from dsql_outbox.publisher import Publisher
from dsql_outbox.publisher.relay import reader
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio


async def test_paused_topics_are_listed_by_name_with_reason_role_and_time(
    database: Database, sql: psycopg.Connection
) -> None:
    began = datetime.now(UTC)
    async with Topics(database) as topics:
        await topics.pause("events.B", "ticket 77")
        await topics.pause("events.A")
        found = await gathered(topics.list())
    ((role,),) = sql.execute("SELECT current_user::text").fetchall()
    assert [(each.topic, each.reason, each.paused_by) for each in found] == [
        ("events.A", "", role),
        ("events.B", "ticket 77", role),
    ]
    assert all(each.paused_at >= began and each.paused_seconds < 60 for each in found)


async def test_the_relay_reads_topics_and_reasons(
    database: Database, sql: psycopg.Connection
) -> None:
    async with Topics(database) as topics:
        await topics.pause("events.B", "ticket 77")
    assert sql.execute(statement("topic_list", "outbox"), {"target": "default"}).fetchall() == [
        ("events.B", "ticket 77")
    ]


async def test_messages_of_a_paused_topic_wait_and_all_others_pass(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_REFRESH", 0.05)
    sink = MemorySink()
    async with Topics(database) as topics:
        await topics.pause("events.CarCreated")
        writer.write_many([event("a", n) for n in range(3)])
        other = Event.new("LoanCreated", [Entity("Loan", "1")])
        writer.write(other)
        async with Publisher(database, sink, quick_settings()):
            await sink.published(1)
            assert sink.ids == [other.id]
            await topics.resume("events.CarCreated")
            await sink.published(4)
    assert in_order(sink.messages)


async def test_until_empty_does_not_wait_for_a_topic_that_an_operator_paused(
    database: Database, writer: Writer
) -> None:
    async with Topics(database) as topics:
        await topics.pause("events.CarCreated")
    writer.write(event("a"))
    writer.write(Event.new("CarSold", [Entity("Car", "a")]))  # it waits behind that
    sink = MemorySink()
    with anyio.fail_after(60):
        done = await Publisher(database, sink, quick_settings()).run(until_empty=True)
    assert (done.delivered, sink.messages) == (0, [])


async def test_a_topic_that_is_paused_again_has_the_new_reason(database: Database) -> None:
    async with Topics(database) as topics:
        await topics.pause("a", "first")
        (first,) = await gathered(topics.list())
        await topics.pause("a", "second")
        (second,) = await gathered(topics.list())
    assert (second.topic, second.reason) == ("a", "second")
    assert second.paused_at > first.paused_at


async def test_resuming_says_whether_the_topic_was_paused_and_leaves_all_others_so(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)
    async with Targets(database) as targets:
        await targets.add("lake")
    async with Topics(database) as topics, Topics(database, "lake") as of_lake:
        await topics.pause("a")
        await topics.pause("b")
        await of_lake.pause("a")
        assert [await topics.resume("a"), await topics.resume("a")] == [True, False]
        assert [each.topic for each in await gathered(topics.list())] == ["b"]
        assert [each.topic for each in await gathered(of_lake.list())] == ["a"]


async def test_the_list_is_read_page_by_page(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsql_outbox.operations.topic_pauses._PAGE_ROWS", 2)
    names = [f"t{n}" for n in range(5)]
    async with Topics(database) as topics:
        for name in names:
            await topics.pause(name)
        assert [each.topic for each in await gathered(topics.list())] == names


async def test_missing_tables_are_named_with_the_remedy(database_url: str) -> None:
    async with Topics(Database(database_url)) as topics:
        with pytest.raises(SchemaError, match="dsql-outbox schema apply"):
            await topics.pause("a")
