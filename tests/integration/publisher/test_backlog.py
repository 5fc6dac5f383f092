"""Whether a message waits for the relay, or all that wait need an operator."""

from collections.abc import Sequence
from time import monotonic
from uuid import UUID

import anyio
import psycopg
import pytest
from tests.support.publisher.running_relays import until

from dsql_outbox.operations import Messages
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Publisher, PublisherSettings
from dsql_outbox.schema import backlog
from dsql_outbox.testing import MemorySink

pytestmark = pytest.mark.anyio

Row = tuple[str, int, int, str]
"""Subject, position, previous position, topic."""

FIRST: Row = ("a", 10, 0, "paused")
BEHIND: Row = ("a", 20, 10, "open")
OTHER: Row = ("b", 30, 0, "open")


def insert(sql: psycopg.Connection, rows: Sequence[Row], blocked: Sequence[int]) -> None:
    for subject, position, previous, topic in rows:
        key = {"id": UUID(int=position), "position": position}
        sql.execute(
            "INSERT INTO outbox.outbox VALUES (1, %(position)s, %(id)s, %(previous)s, 'Car',"
            " %(subject)s, 1, %(topic)s, '{}', '', 0, now())",
            {**key, "previous": previous, "subject": subject, "topic": topic},
        )
        if position in blocked:
            sql.execute(
                "INSERT INTO outbox.outbox_failures VALUES (1, %(position)s, %(id)s, 1, '',"
                " 'infinity')",
                key,
            )


def pause(sql: psycopg.Connection) -> None:
    sql.execute("INSERT INTO outbox.outbox_topics VALUES ('default', 'paused', '', 'me', now())")


async def can_be_sent(database: Database) -> bool:
    async with Messages(database) as messages:
        return await messages.can_be_sent()


@pytest.mark.parametrize("page", [500, 1])
@pytest.mark.parametrize(
    ("rows", "blocked", "expected"),
    [
        ([], [], False),
        ([FIRST], [], False),
        ([FIRST, BEHIND], [], False),
        ([FIRST, BEHIND, OTHER], [], True),
        ([OTHER], [30], False),
        ([OTHER, ("b", 40, 30, "open")], [30], False),
        ([OTHER, ("b", 40, 30, "open")], [40], True),
        ([OTHER, ("b", 40, 0, "open")], [30], False),  # a replay behind a blocked message
        ([("b", 40, 35, "open")], [], True),  # its predecessor is gone
        ([("b", 40, 40, "open")], [], True),  # it names itself
        ([("b", 40, 50, "open"), ("b", 50, 40, "paused")], [], True),  # it names a later one
        ([("c", 30, 0, "paused"), ("b", 40, 30, "open")], [], True),  # of another subject
    ],
)
async def test_a_message_waits_unless_its_subject_needs_an_operator(
    database: Database,
    sql: psycopg.Connection,
    rows: Sequence[Row],
    blocked: Sequence[int],
    expected: bool,
    page: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in "_FIRST_ROWS", "_ROWS":
        monkeypatch.setattr(backlog, name, page)
    pause(sql)
    insert(sql, rows, blocked)
    assert await can_be_sent(database) is expected


@pytest.mark.postgres_only("the endpoint carries 100,000 rows too slowly")
@pytest.mark.parametrize("kind", [pytest.param("paused", marks=pytest.mark.slow), "blocked"])
async def test_100_000_messages_that_need_an_operator_are_seen_through_in_short_statements(
    database: Database, sql: psycopg.Connection, kind: str
) -> None:
    """Before, one statement compared each of them with all: 32 s for 20,000 of a topic."""
    pause(sql)
    sql.execute(
        "INSERT INTO outbox.outbox SELECT n %% 4, n, md5(n::text)::uuid, 0, 'Car', n, 1, %s, '{}',"
        " '', 0, now() FROM generate_series(1, 100000) AS n",
        ["paused" if kind == "paused" else "open"],
    )
    if kind != "paused":
        sql.execute(
            "INSERT INTO outbox.outbox_failures SELECT shard, position, event_id, 1, '',"
            " 'infinity' FROM outbox.outbox"
        )
    with anyio.fail_after(20):  # 0.3 s on a quiet machine
        assert not await can_be_sent(database)


async def test_max_wait_holds_beside_100_000_messages_of_a_paused_topic(
    database: Database, sql: psycopg.Connection
) -> None:
    """Some of their own fail, so that the outbox is never empty."""
    pause(sql)
    sql.execute(
        "INSERT INTO outbox.outbox SELECT n % 4, n, md5(n::text)::uuid, 0, 'Car', n, 1,"
        " CASE WHEN n = 99999 THEN 'open' ELSE 'paused' END, '{}', '', 0, now()"
        " FROM generate_series(1, 100000) AS n"
    )
    sql.execute(
        "INSERT INTO outbox.outbox_failures SELECT shard, position, event_id, 1, '',"
        " now() + interval '1 hour' FROM outbox.outbox WHERE topic = 'open'"
    )
    began = monotonic()
    publisher = Publisher(database, MemorySink(), PublisherSettings())
    done = await publisher.run(until_empty=True, max_wait=1)
    assert done.delivered == 0
    assert 1 <= monotonic() - began < 8

    def none_is_active() -> bool:
        active = "state = 'active' AND pid <> pg_backend_pid() AND datname = current_database()"
        return not sql.execute(f"SELECT FROM pg_stat_activity WHERE {active}").fetchall()  # type: ignore[arg-type]

    await until(none_is_active, seconds=2.0)
