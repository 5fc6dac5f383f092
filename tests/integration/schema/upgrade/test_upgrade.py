"""This code takes over the rows of the kept version, runs beside it, and hands them back.

`tests/data/upgrade` has that version, as a wheel, and the rows that it left
(`tests/support/upgrade`). A subject is named after the state of its messages.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import psycopg
import pytest
from tests.support.publisher.given_up_messages import gathered
from tests.support.publisher.running_relays import relayed
from tests.support.upgrade.kept_pair import rows, table_columns
from tests.support.upgrade.left_rows import PAUSED_TOPIC, SECRET, car, person, received
from tests.support.verified import findings_in

from dsql_outbox.inbox import Inbox
from dsql_outbox.operations import Erasures, Messages, Selection, Targets, Topics
from dsql_outbox.operations.undelivered import State, UndeliveredMessage
from dsql_outbox.outbox import Database, Message
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.publisher import Publisher, Rejected, Retry
from dsql_outbox.schema import apply
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.tables import migrations
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.postgres_only("the kept dump is loaded as one text"),
]


@pytest.fixture
def database(dumped: str) -> Database:
    """These rows after an upgrade."""
    database = Database(dumped)
    apply(database)
    return database


def versions(messages: Iterable[Message]) -> dict[str, list[int]]:
    """The versions of each subject, in the order of arrival."""
    found: dict[str, list[int]] = defaultdict(list)
    for message in messages:
        found[message.key].append(int(message.headers["sequence"]))
    return found


async def faults(database: Database | str) -> list[str]:
    """What `Verifier` finds in the tables."""
    return [each.fault for each in await findings_in(database)]


async def undelivered(database: Database, state: State) -> dict[str, UndeliveredMessage]:
    """The messages in this state for the default target, by subject and version."""
    async with Messages(database) as tool:
        found = await gathered(tool.find(Selection(state=state, target="default")))
    return {f"{each.subject} {each.subject_version}": each for each in found}


async def test_the_migrator_adds_what_is_new_and_changes_no_row(
    dumped: str, sql: psycopg.Connection[Any]
) -> None:
    columns = table_columns(sql)
    before = rows(dumped, columns)
    recorded = {row[0] for row in before["schema_migrations"]}
    done = apply(Database(dumped))
    assert done.applied == tuple(m.label for m in migrations() if str(m.version) not in recorded)
    assert check(Database(dumped)) == []
    after = rows(dumped, columns)
    assert [row for row in after.pop("schema_migrations") if row[0] in recorded] == before.pop(
        "schema_migrations"
    )
    assert after == before
    assert await faults(dumped) == ["unfinished-erasure"]


async def test_what_waited_is_relayed_once_and_in_order(database: Database) -> None:
    sink = MemorySink()
    await relayed(database, sink)
    assert versions(sink.messages) == {
        "Car/failing": [2, 3],
        "Car/new": [1],
        "Car/replaying": [1],
        "Car/retried": [2],
        "Car/waiting": [2, 3],
    }
    replays = {each.key for each in sink.messages if each.dedupe_id != str(each.event_id)}
    assert replays == {"Car/replaying", "Car/retried"}
    assert {each.headers.get("tenant") for each in sink.messages} == {"7"}
    waiting = await undelivered(database, "waiting")
    assert [*waiting] == ["Loan/paused 2", "Loan/paused 3", "Car/blocked 3"]
    again = MemorySink()
    await relayed(database, again)
    assert again.messages == []


async def test_a_failing_message_keeps_its_attempts_and_holds_its_subject(
    database: Database,
) -> None:
    before = (await undelivered(database, "failing"))["Car/failing 2"]
    assert before.attempts > 0
    sink = MemorySink()
    sink.fail(before.event_id, Retry("not now, either"))
    await relayed(database, sink)
    assert "Car/failing" not in versions(sink.messages)
    after = (await undelivered(database, "failing"))["Car/failing 2"]
    assert (after.attempts, after.error) == (before.attempts + 1, "not now, either")
    assert (await undelivered(database, "waiting"))["Car/failing 3"].behind


async def test_a_blocked_message_waits_for_an_operator_and_then_leads_its_subject(
    database: Database,
) -> None:
    await relayed(database, MemorySink())
    (blocked,) = (await undelivered(database, "failing")).values()
    assert (blocked.subject, blocked.blocked, blocked.error) == ("Car/blocked", True, "not for me")
    async with Messages(database) as tool:
        await gathered(tool.retry(Selection(ids=(blocked.event_id,))))
    sink = MemorySink()
    await relayed(database, sink)
    assert versions(sink.messages) == {"Car/blocked": [2, 3]}


async def test_a_dead_letter_stays_until_it_is_retried(database: Database) -> None:
    await relayed(database, MemorySink())
    (dead,) = (await undelivered(database, "dead")).values()
    assert (dead.subject, dead.subject_version, dead.attempts) == ("Car/dead", 2, 1)
    async with Messages(database) as tool:
        await gathered(tool.retry(Selection(state="dead", ids=(dead.event_id,))))
    sink = MemorySink()
    await relayed(database, sink)
    assert [each.dedupe_id for each in sink.messages] == [f"{dead.event_id}/r1"]


async def test_a_message_dies_a_second_time_with_its_replay(database: Database) -> None:
    retried = (await undelivered(database, "waiting"))["Car/retried 2"]
    sink = MemorySink()
    sink.fail(retried.event_id, Rejected("not for me, either"))
    await relayed(database, sink)
    dead = (await undelivered(database, "dead"))["Car/retried 2"]
    assert (dead.replay, dead.error) == (1, "not for me, either")


async def test_a_paused_topic_waits_until_it_is_resumed(database: Database) -> None:
    await relayed(database, MemorySink())
    assert (await undelivered(database, "waiting"))["Loan/paused 2"].paused
    async with Topics(database) as topics:
        assert await topics.resume(PAUSED_TOPIC)
    sink = MemorySink()
    await relayed(database, sink)
    assert versions(sink.messages) == {"Loan/paused": [2, 3]}


async def test_a_topic_that_is_paused_for_a_target_waits_until_it_is_resumed(
    database: Database, sql: psycopg.Connection[Any]
) -> None:
    waiting = dict(
        sql.execute(
            "SELECT subject_type || '/' || subject_id, array_agg(subject_version ORDER BY position)"
            " FROM outbox.outbox"
            " WHERE shard BETWEEN 1024 AND 2047 AND topic = 'events.CarMoved' GROUP BY 1"
        ).fetchall()
    )
    assert len(waiting) > 5
    sink = MemorySink()
    await Publisher(database, sink, target="lake").run(until_empty=True, max_wait=0)
    assert not waiting.keys() & versions(sink.messages).keys()
    async with Topics(database, target="lake") as topics:
        assert await topics.resume("events.CarMoved")
    sink = MemorySink()
    await Publisher(database, sink, target="lake").run(until_empty=True)
    assert versions(sink.messages) == waiting


async def test_a_fill_goes_on_where_it_was(
    database: Database, sql: psycopg.Connection[Any]
) -> None:
    ((begun,),) = sql.execute("SELECT events FROM outbox.outbox_fills").fetchall()
    stored = dict(
        sql.execute(
            "SELECT subject_type || '/' || subject_id, array_agg(subject_version ORDER BY position)"
            " FROM outbox.business_events GROUP BY 1"
        ).fetchall()
    )
    total = sum(map(len, stored.values()))
    assert 0 < begun < total
    async with Targets(database) as targets:
        run = targets.add("moves", kind="model", from_start=True)
        read = [each.fill.read async for each in run if each.fill is not None]
    assert read[0] == begun
    assert total - 3 <= read[-1] <= total  # of three later events some may lie before its place
    assert run.progress.state == "running"
    applied: list[Message] = []

    async def keep(_connection: AsyncConnection, message: Message) -> None:
        applied.append(message)

    await Publisher(database, apply=keep, target="moves").run(until_empty=True)
    assert versions(applied) == stored


async def test_an_erased_person_stays_erased_and_a_begun_erasure_is_completed(
    database: Database, dumped: str, sql: psycopg.Connection[Any]
) -> None:
    begun = "SELECT finished_at IS NULL FROM outbox.outbox_erasures ORDER BY erased_at"
    assert sql.execute(begun).fetchall() == [(False,), (True,)]
    assert f"{SECRET}" in str(rows(dumped))
    async with Erasures(database) as tool:
        done = await tool.erase("Person/half", reason="ticket 8")
    assert 0 < done.events < done.total
    assert sql.execute(begun).fetchall() == [(False,), (False,)]
    sink = MemorySink()
    await Publisher(database, sink).run(until_empty=True, max_wait=0)
    found = str([rows(dumped), sink.messages])
    assert SECRET not in found
    with Writer(database) as writer:
        assert writer.write(person("erased", 4)).entities[0].version == 4
    assert await faults(database) == []


async def test_writers_go_on_with_the_versions_positions_and_ids(
    database: Database, sql: psycopg.Connection[Any]
) -> None:
    known = "SELECT id, subject_version FROM outbox.business_events WHERE subject_id = 'waiting'"
    by_version = {version: each for each, version in sql.execute(known)}
    with Writer(database) as writer:
        again = writer.write(car("waiting", 2, by_version[2]), on_duplicate="return")
        assert (again.status, again.entities[0].version) == ("duplicate", 2)
        for state in ("waiting", "failing", "dead", "forgotten"):
            event = car(state, 9)
            assert writer.write(event).status == "committed"
    sink = MemorySink()
    await relayed(database, sink)
    found = versions(sink.messages)
    assert found["Car/waiting"] == [2, 3, 4]
    assert found["Car/failing"] == [2, 3, 4]
    assert found["Car/dead"] == [4]
    assert found["Car/forgotten"] == [2]
    assert await faults(database) == ["unfinished-erasure"]


async def test_a_consumer_knows_what_it_has_handled(
    database: Database, sql: psycopg.Connection[Any]
) -> None:
    with Writer(database) as writer:
        writer.write(car("replayed", 3))
    handled = "SELECT id FROM outbox.business_events WHERE subject_id = 'replayed'"
    ids = tuple(each for (each,) in sql.execute(handled))
    async with Messages(database) as tool:
        await gathered(tool.replay(Selection(ids=ids)))
    sink = MemorySink()
    await relayed(database, sink)
    messages = [received(each) for each in sink.messages if each.key == "Car/replayed"]
    with Inbox(database, "mailer") as inbox:
        told = [inbox.once(each, lambda _: None) for each in messages]
    assert [(each.ran, each.order) for each in told] == [(True, "next"), *[(False, None)] * 2]
