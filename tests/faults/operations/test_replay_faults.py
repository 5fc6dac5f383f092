"""Replays when the database answers with conflicts, loses an answer, or the process is killed."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import psycopg
import pytest
from tests.support.commands import Command, run
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.given_up_messages import event, gathered, relay_all
from tests.support.publisher.running_relays import running, until
from tests.support.waiting import wait_until
from tests.support.writer.checked_tables import Tables

from dsql_outbox.operations import Messages, Selection
from dsql_outbox.operations.requeue import MessageResult
from dsql_outbox.outbox import Database
from dsql_outbox.outbox.database.address import Isolation
from dsql_outbox.publisher import Publisher, Rejected
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

_Way = Callable[[Database, list[UUID]], AsyncGenerator[MessageResult]]


async def from_letters(database: Database, ids: list[UUID]) -> AsyncGenerator[MessageResult]:
    async with Messages(database) as messages:
        async for each in messages.retry(Selection(state="dead", ids=tuple(ids))):
            yield each


async def from_events(database: Database, ids: list[UUID]) -> AsyncGenerator[MessageResult]:
    async with Messages(database) as messages:
        async for each in messages.replay(Selection(ids=tuple(ids))):
            yield each


DONE = {from_letters: "retried", from_events: "replayed"}
WAYS = pytest.mark.parametrize("way", [from_letters, from_events])


async def given_up(url: str, count: int) -> list[UUID]:
    """Events in the dead letters."""
    database = Database(url)
    with Writer(database) as writer:
        ids = [writer.write(event(f"c{n}")).event_id for n in range(count)]
    await relay_all(database, MemorySink(), refused=ids)
    return ids


def counts(tables: Tables) -> tuple[int, ...]:
    """Rows of the outbox, of dead letters and of replays."""
    names = ("outbox", "dead_letters", "outbox_replays")
    rows: list[dict[str, Any]] = tables.execute(
        "SELECT (SELECT count(*) FROM outbox.outbox) AS outbox,"
        " (SELECT count(*) FROM outbox.dead_letters) AS dead_letters,"
        " (SELECT count(*) FROM outbox.outbox_replays) AS outbox_replays"
    )
    return tuple(rows[0][name] for name in names)


@WAYS
@pytest.mark.parametrize("at", ["statement", "commit"])
async def test_a_conflict_is_tried_again_and_nothing_is_done_twice(
    url: str, tables: Tables, proxy: PostgresProxy, way: _Way, at: Any
) -> None:
    ids = await given_up(url, 5)
    proxy.refuse(2, at=at, matching='INTO "outbox".outbox_replays')
    done = await gathered(way(Database(proxy.url), ids))
    assert [each.status for each in done] == [DONE[way]] * 5
    assert {each.replay for each in done} == {1}
    assert counts(tables) == (5, 0 if way is from_letters else 5, 5)


@WAYS
async def test_conflicts_without_end_are_raised_and_nothing_is_changed(
    url: str, tables: Tables, proxy: PostgresProxy, way: _Way
) -> None:
    ids = await given_up(url, 3)
    proxy.refuse(None, at="commit", matching="INSERT")
    with pytest.raises(psycopg.errors.SerializationFailure):
        await gathered(way(Database(proxy.url), ids))
    assert counts(tables) == (0, 3, 0)


@WAYS
async def test_after_a_lost_commit_the_same_run_again_doubles_nothing(
    url: str, tables: Tables, proxy: PostgresProxy, way: _Way
) -> None:
    ids = await given_up(url, 3)
    proxy.cut("after_commit", matching="COMMIT")
    with pytest.raises(psycopg.OperationalError):
        await gathered(way(Database(proxy.url), ids))
    proxy.heal()
    assert counts(tables)[0] == 3, "it was committed"
    again = await gathered(way(Database(proxy.url), ids))
    assert [each.status for each in again] == ([] if way is from_letters else ["waiting"] * 3)
    assert counts(tables)[0] == counts(tables)[2] == 3


@WAYS
@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
async def test_three_at_once_do_each_event_once(
    url: str, tables: Tables, way: _Way, isolation: Isolation
) -> None:
    ids = await given_up(url, 40)
    done: list[MessageResult] = []

    async def one() -> None:
        done.extend(await gathered(way(Database(url, isolation=isolation), ids)))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(one)
    assert sorted(each.event_id for each in done if each.status == DONE[way]) == sorted(ids)
    assert counts(tables) == (40, 0 if way is from_letters else 40, 40)


@WAYS
async def test_a_late_delete_of_one_replay_leaves_the_next_one_alone(
    url: str, tables: Tables, proxy: PostgresProxy, way: _Way, tmp_path: Path
) -> None:
    """A publisher dies with its DELETE on the wire, and its shard has gone to another meanwhile."""
    ids = await given_up(url, 1)
    tables.execute("UPDATE outbox.entities SET position = position + 86400000000")
    await gathered(way(Database(url), ids))
    held = proxy.hold(matching='DELETE FROM "outbox".outbox o')
    words = ("--database", proxy.url, "--sink", f"jsonl:{tmp_path / 'a'}")
    with Command("publish", *words):
        await anyio.to_thread.run_sync(held.arrived, 20.0)
    tables.execute("UPDATE outbox.outbox_leases SET owner = NULL, epoch = epoch + 1")
    sink = MemorySink()
    if way is from_letters:  # else there would be nothing to replay
        sink.fail(ids[0], Rejected("not now"), stored=True)
    async with running(Publisher(Database(url), sink)):
        await sink.published(1)
        await until(lambda: counts(tables)[0] == 0)

    (again,) = await gathered(way(Database(url), ids))
    held.release()
    assert counts(tables)[0] == 1, "the second replay waits to be sent"
    await relay_all(Database(url), sink)
    assert [message.dedupe_id for message in sink.messages] == [f"{ids[0]}/r1", f"{ids[0]}/r2"]
    assert again.replay == 2


async def test_a_killed_replay_is_run_again_and_doubles_nothing(url: str, tables: Tables) -> None:
    ids = await given_up(url, 60)
    tables.execute("DELETE FROM outbox.dead_letters")
    words = ("messages", "replay", *ids, "--database", url)
    with Command(*words, "--rate", 20) as killed:
        wait_until(lambda: counts(tables)[0] > 0)
        assert killed
    assert 0 < counts(tables)[0] < 60
    left = 60 - counts(tables)[0]
    done = run(*words)
    assert done.err.startswith(f"{left} replayed; {60 - left} left alone")
    assert counts(tables) == (60, 0, 60)
