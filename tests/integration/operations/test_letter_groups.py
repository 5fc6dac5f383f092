"""Dead letters in an incident: newest first, counted by kind of error, and found by subject."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.integration.operations.test_messages import nodes
from tests.support.publisher.given_up_messages import event, gathered, relay_all

from dsql_outbox.operations import Messages, Selection, Targets
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.operations.letter_groups import LetterGroup
from dsql_outbox.outbox import Database, SettingsError
from dsql_outbox.publisher import Rejected
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

if TYPE_CHECKING:
    from uuid import UUID

pytestmark = pytest.mark.anyio

ALL_DEAD = Selection(state="dead")

LETTERS = """
INSERT INTO outbox.dead_letters
SELECT md5(%(name)s || n)::uuid, clock_timestamp() + n * interval '1 ms', n %% 4 + %(first)s, n, 0,
  'Car', 'c' || n, 1, 'events.CarMoved', '{}', 2, clock_timestamp(),
  replace(%(error)s, '#', n::text), 1, 0, %(pattern)s
FROM generate_series(1, %(count)s) AS n
"""


def bury(
    sql: psycopg.Connection,
    count: int,
    error: str,
    *,
    pattern: str | None = None,
    first: int = 0,
) -> None:
    """Store dead letters; ``#`` in the error is their number."""
    values = {"count": count, "error": error, "pattern": pattern, "first": first}
    sql.execute(LETTERS, values | {"name": f"{error}{first}"})


@pytest.mark.parametrize("rows", [1, 7, 50])
async def test_dead_letters_come_newest_first_whatever_their_time(
    database: Database, sql: psycopg.Connection, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsql_outbox.operations.undelivered.PAGE_ROWS", rows)
    bury(sql, 20, "no")
    sql.execute("UPDATE outbox.dead_letters SET died_at = '2026-01-02' WHERE position <= 9")
    sql.execute("UPDATE outbox.dead_letters SET died_at = 'infinity' WHERE position = 12")
    sql.execute("UPDATE outbox.dead_letters SET died_at = '0044-03-15 BC' WHERE position = 3")
    wanted = sql.execute(
        "SELECT event_id FROM outbox.dead_letters ORDER BY died_at DESC, event_id DESC"
    )
    ids = [each for (each,) in wanted.fetchall()]
    seen: list[UUID] = []
    after: str | None = None
    async with Messages(database) as messages:
        while not seen or after:
            page = await messages.page(ALL_DEAD, after, rows=rows)
            seen += [each.event_id for each in page.found]
            after = page.after
        assert [each.event_id async for each in messages.find(ALL_DEAD)] == ids
        until = Selection(state="dead", until=datetime(2026, 1, 3, tzinfo=UTC))
        assert [each.event_id async for each in messages.find(until)] == ids[-9:]
        assert (await messages.page(until)).read <= 9
    assert seen == ids


async def test_letters_are_counted_by_target_topic_and_kind_of_error(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The selection of a group selects its letters, and no others."""
    monkeypatch.setattr("dsql_outbox.operations.letter_groups._LONGEST", 60.0)
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)
    async with Targets(database) as targets:
        lake = await targets.add("lake")
    made = [event(f"car {n}", n) for n in range(12)]
    for each in made:
        writer.write(each)
    errors = ["nats: message {n} is over 1048576 bytes", "100% of x_{n}\n  'é\\{n}' \x1b[2J", "No"]
    sink = MemorySink()
    for n, each in enumerate(made):
        sink.fail(each.id, Rejected(errors[n % 3].format(n=10_000 + n)))
    await relay_all(database, sink)
    bury(sql, 5, "100% of # is no x", first=lake.first_shard)  # as another version, no pattern
    async with Messages(database) as messages:
        found = await messages.groups()
        assert (found.read, found.more) == (17, False)
        assert [(each.target, each.error, each.count) for each in found.groups[:3]] == [
            ("default", "* of *'*' *[*", 4),
            ("default", "No", 4),
            ("default", "nats: message * is over * bytes", 4),
        ]
        assert sum(each.count for each in found.groups) == 17
        for group in found.groups:
            which = of_group(group)
            letters = await gathered(messages.find(which))
            assert len(letters) == group.count, group
            assert {each.target for each in letters} == {group.target}
            assert group.newest == max(each.since for each in letters)
            assert group.oldest == min(each.since for each in letters)
        assert [e.count for e in found.groups if e.target == "lake"] == [1] * 5
        some = await messages.groups(Selection(error="nats: * bytes", subject="Car/car 0"))
        assert [each.count for each in some.groups] == [1]
        assert (await messages.groups(Selection(state="failing"))).groups == ()
        with pytest.raises(SettingsError, match="no target 'pond', there are default, lake"):
            await messages.page(Selection(target="pond"))


def of_group(group: LetterGroup) -> Selection:
    return Selection(state="dead", target=group.target, topic=group.topic, error=group.error)


async def test_the_groups_say_where_their_counts_end(
    database: Database, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsql_outbox.operations.letter_groups._LONGEST", 60.0)
    bury(sql, 90, "no #", pattern="no *")
    async with Messages(database) as messages:
        for rows, read, more in ((89, 89, True), (91, 90, False), (1, 1, True)):
            found = await messages.groups(rows=rows)
            assert (found.groups[0].count, found.read, found.more) == (read, read, more)
        monkeypatch.setattr("dsql_outbox.operations.letter_groups._LONGEST", 0.0)
        found = await messages.groups(rows=89)  # the first look was too slow for a second one
        assert (found.groups[0].count, found.read, found.more) == (8, 8, True)


async def test_a_message_is_found_by_its_subject_in_one_read(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    """However many other letters there are; a filter alone would read 5,000 of them."""
    made = [event("a", 0), event("a", 1, "b"), event("b", 2), event("a", 3)]
    for each in made:
        writer.write(each)
    await relay_all(database, MemorySink(), refused=[made[0].id], on_dead_letter="release")
    for each in (event("a", 4), event("a", 5)):
        writer.write(each)
    bury(sql, 6_000, "no", pattern="no")
    async with Messages(database) as messages:
        page = await messages.page(Selection(subject="Car/a"))
        assert [(each.state, each.subject_version) for each in page.found] == [
            ("dead", 1),
            ("waiting", 4),
            ("waiting", 5),
        ]
        assert (page.read, page.after) == (5, None)
        dead = await messages.page(Selection(subject="Car/a", state="dead"))
        assert [each.event_id for each in dead.found] == [made[0].id]
        assert (await messages.page(Selection(subject="Car/none"))).found == []
        with pytest.raises(SettingsError, match="malformed"):
            await messages.page(Selection(subject="Car/a"), "version/x")


async def test_an_older_event_of_a_subject_is_on_the_next_page(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsql_outbox.operations.undelivered.PAGE_ROWS", 3)
    for n in range(8):
        writer.write(event("a", n))
    async with Messages(database) as messages:
        seen: list[list[int]] = []
        after: str | None = None
        while not seen or after:
            page = await messages.page(Selection(subject="Car/a"), after)
            seen.append([each.subject_version for each in page.found])
            after = page.after
    assert seen == [[6, 7, 8], [3, 4, 5], [1, 2]]


@pytest.mark.parametrize("name", ["letter_page", "letter_groups"])
def test_a_page_of_letters_reads_its_rows_by_the_second_key(
    sql: psycopg.Connection, name: str
) -> None:
    bury(sql, 20_000, "no #", pattern="no *")
    sql.execute("ANALYZE outbox.dead_letters")
    shards = {"first_shard": 0, "last_shard": 3}
    key = shards | {"event_id": None, "died_at": "infinity", "rows": 500}
    query = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement(name, "outbox")
    row = sql.execute(query, ALL_DEAD.parameters() | key).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    assert "dead_letters" not in {table for node, table in nodes(plan) if node == "Seq Scan"}
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 600
