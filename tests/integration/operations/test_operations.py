"""What operators did is recorded: who, when, what and why, from Python."""

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.support.publisher.given_up_messages import event, gathered, relay_all
from tests.support.publisher.running_relays import count

from dsql_outbox.operations import Messages, Operations, Selection, Topics
from dsql_outbox.outbox import Database, SettingsError
from dsql_outbox.schema import apply
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

if TYPE_CHECKING:
    from dsql_outbox.operations.operations import Operation

pytestmark = pytest.mark.anyio

DEAD, FAILING = Selection(state="dead"), Selection(state="failing")


async def recorded(database: Database) -> list[tuple[str, str, str, str]]:
    """Verb, object, reason and user, the oldest first."""
    async with Operations(database) as tool:
        found = await gathered(tool.list())
    return [(each.verb, each.object, each.reason, each.user_name) for each in reversed(found)]


@pytest.fixture
async def ids(database: Database, writer: Writer) -> list[Any]:
    """Three events: the first two are dead, the third is blocked."""
    ids = [writer.write(event(name)).event_id for name in "abc"]
    await relay_all(database, MemorySink(), refused=ids[:2])
    await relay_all(database, MemorySink(), refused=ids[2:], on_dead_letter="block")
    return ids


async def test_each_verb_records_its_call_once_however_many_messages_it_changes(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    dead = [writer.write(event(f"d-{n}")).event_id for n in range(7)]
    await relay_all(database, MemorySink(), refused=dead)
    blocked = [writer.write(event(f"b-{n}")).event_id for n in range(3)]
    await relay_all(database, MemorySink(), refused=blocked, on_dead_letter="block")
    async with Messages(database, user="ann") as messages:
        await gathered(messages.retry(DEAD, reason="broker mended", limit=6))
        await gathered(messages.drop(FAILING, reason="never valid"))
        await gathered(messages.drop(DEAD, reason="known"))
        await gathered(messages.replay(Selection(ids=tuple(blocked))))
    async with Topics(database, user="bob") as topics:
        await topics.pause("orders", "ticket 77")
        assert await topics.resume("orders", "done")
        assert not await topics.resume("orders", "again")
    assert await recorded(database) == [
        ("messages retry", "", "broker mended", "ann"),
        ("messages drop", "", "never valid", "ann"),
        ("messages drop", "", "known", "ann"),
        ("messages replay", "", "", "ann"),
        ("topics pause", "orders", "ticket 77", "bob"),
        ("topics resume", "orders", "done", "bob"),
    ]
    rows = sql.execute("SELECT DISTINCT database_role FROM outbox.outbox_operations").fetchall()
    assert rows == sql.execute("SELECT current_user::text").fetchall()


async def test_what_changes_nothing_is_not_recorded(
    database: Database, ids: list[Any], sql: psycopg.Connection
) -> None:
    async with Messages(database) as messages:
        await gathered(messages.find())
        await gathered(messages.retry(reason="only a look", dry_run=True))
        await gathered(messages.drop(FAILING, dry_run=True))
        await gathered(messages.replay(Selection(ids=tuple(ids)), dry_run=True))
        await gathered(messages.retry(Selection(state="dead", topic="no such topic")))
    assert count(sql, "outbox_operations") == 0


async def test_the_row_is_written_before_the_first_change(
    database: Database, ids: list[Any]
) -> None:
    """A run that is left early is recorded as well."""
    async with Messages(database) as messages:
        told = messages.retry(DEAD, reason="the first one only")
        assert (await anext(told)).event_id in ids
        await told.aclose()
    assert [found[2] for found in await recorded(database)] == ["the first one only"]


@pytest.mark.parametrize("verb", ["retry", "drop", "replay"])
async def test_a_reason_with_nul_is_refused_before_anything_is_changed(
    database: Database, ids: list[Any], sql: psycopg.Connection, verb: str
) -> None:
    selected = Selection(ids=tuple(ids)) if verb == "replay" else DEAD
    before = count(sql, "dead_letters")
    async with Messages(database) as messages:
        with pytest.raises(SettingsError, match="NUL"):
            await gathered(getattr(messages, verb)(selected, reason="a\0b"))
    assert (count(sql, "dead_letters"), count(sql, "outbox_operations")) == (before, 0)


async def test_more_shards_are_recorded_and_a_first_apply_is_not(
    database: Database, sql: psycopg.Connection
) -> None:
    assert count(sql, "outbox_operations") == 0
    apply(database, shards=40, reason="more publishers", user="ann")
    apply(database, shards=40, reason="again", user="ann")
    assert await recorded(database) == [("schema apply", "40 shards", "more publishers", "ann")]


async def test_all_pages_are_read_the_newest_first(
    database: Database, sql: psycopg.Connection
) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox_operations SELECT clock_timestamp() - n / 3 * interval '1 s',"
        " gen_random_uuid(), 'topics pause', n::text, '', 'me', 'ann'"
        " FROM generate_series(1, 2500) AS n"
    )
    async with Operations(database) as tool:
        found: list[Operation] = await gathered(tool.list())
    assert len({each.object for each in found}) == len(found) == 2500
    times = [each.operated_at for each in found]
    assert times == sorted(times, reverse=True)
