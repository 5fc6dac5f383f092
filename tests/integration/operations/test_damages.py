"""Each column of each table is changed once: `verify` names it, or a list here says why not."""

import re
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any, Final, LiteralString, NamedTuple
from uuid import UUID

import anyio
import psycopg
import pytest
from psycopg import sql
from tests.support.operations.forgotten_events import forget
from tests.support.outbox_databases import OutboxDatabases
from tests.support.publisher.given_up_messages import gathered, relay_all

from dsql_outbox.operations import Erasures, Messages, Selection, Targets, Verifier
from dsql_outbox.operations import fills as fills_module
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.schema.named_statements import names, read_sql
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.postgres_only("a row is changed by its place in the table's file"),
]

TABLES: Final = [
    found[1]
    for name in names("migrations")
    if (
        found := re.search(
            r"CREATE TABLE IF NOT EXISTS \{schema\}\.(\w+)", read_sql("migrations", name)
        )
    )
]


KINDS: Final[dict[str, LiteralString]] = {
    # SQL of a row `t`: what it is, if `verify` knows more of some rows than of others.
    "business_events": """CASE WHEN EXISTS (
          SELECT FROM outbox.outbox o WHERE o.event_id = t.id) THEN 'waiting'
        WHEN EXISTS (SELECT FROM outbox.dead_letters d WHERE d.event_id = t.id) THEN 'dead'
        ELSE 'sent' END""",
    "entities": """CASE WHEN position = 0 THEN 'never a subject' WHEN EXISTS (
          SELECT FROM outbox.event_headers h WHERE h.entity_type = t.entity_type
            AND h.entity_id = t.entity_id AND h.entity_version = 1)
        THEN 'subject' ELSE 'subject of forgotten events' END""",
    "outbox": """CASE WHEN headers::text LIKE '%"replay"%' THEN 'replay'
        WHEN EXISTS (SELECT FROM outbox.outbox_erasures e WHERE e.event_id = t.event_id)
          THEN 'notice'
        WHEN shard < 1024 THEN 'written' WHEN shard < 2048 THEN 'written for a second target'
        ELSE 'of a fill' END""",
    "outbox_replays": """CASE WHEN EXISTS (SELECT FROM outbox.outbox o
        WHERE o.event_id = t.event_id AND o.position = t.position)
        THEN 'waiting' ELSE 'sent' END""",
    "outbox_targets": "state",
}

_SENT = "no other row has it, once the message is sent"
_DATE = "a time by the clock, and nothing is ordered by it"
_SEEN = "an observation"
_RELAY = "says which publisher relays a shard, and until when"
_RECORD = "a record of what an operator did"
_SET = "an operator's decision: any value is one"
_CONSUMER = "the consumer's: the outbox does not know what it has handled"
_JOB = "the state of a job, which the next one begins with; `status` shows it"
_FILL = "how far a fill is; the messages that it has inserted are compared"
_REPLAY = "who has replayed it, when and why"

NOT_NAMED: Final[dict[str, str]] = {
    "business_events.saved_date": "no bytes have it",
    "business_events.topic sent": _SENT,
    "business_events.headers sent": _SENT,
    "business_events.write_id": "random: it tells the event of one call from that of another",
    "dead_letters.attempts": _SEEN,
    "dead_letters.created_at": _DATE,
    "dead_letters.died_at": _DATE,
    "dead_letters.error": _SEEN,
    "dead_letters.error_pattern": _SEEN,
    "entities.created_at": _DATE,
    "entities.previous_position": "the next write replaces it by `position`, and nothing reads it",
    "entities.shard never a subject": "it has no message yet, and any shard is right",
    "entities.updated_at": "by the clock; it says whether its last event may be forgotten",
    "event_headers.saved_date": "by the clock; it says whether the next event may be forgotten",
    "inbox.consumer": _CONSUMER,
    "inbox.dedupe_id": _CONSUMER,
    "inbox.run_id": _CONSUMER,
    "inbox.seen_at": _CONSUMER,
    "inbox.source": _CONSUMER,
    "inbox_subjects.consumer": _CONSUMER,
    "inbox_subjects.position": _CONSUMER,
    "inbox_subjects.previous_position": _CONSUMER,
    "inbox_subjects.seen_at": _CONSUMER,
    "inbox_subjects.source": _CONSUMER,
    "inbox_subjects.subject_id": _CONSUMER,
    "inbox_subjects.subject_type": _CONSUMER,
    "outbox.created_at": _DATE,
    "outbox_erasures.database_role": _RECORD,
    "outbox_erasures.finished_at": _DATE,
    "outbox_erasures.reason": _RECORD,
    "outbox_erasures.user_name": _RECORD,
    "outbox_failures.attempts": "says when a message is given up, not what or in which order",
    "outbox_failures.event_id": "a failure without its message is deleted; that is sent sooner",
    "outbox_failures.last_error": _SEEN,
    "outbox_failures.position": "as event_id",
    "outbox_failures.retry_at": "says when a message is tried again; later ones wait for it",
    "outbox_failures.shard": "as event_id",
    "outbox_fills.epoch": _FILL,
    "outbox_fills.event_id": _FILL,
    "outbox_fills.events": _FILL,
    "outbox_fills.expires_at": _FILL,
    "outbox_fills.forgotten": _SEEN,
    "outbox_fills.messages": _FILL,
    "outbox_fills.source": "the source of the writers is stored nowhere else",
    "outbox_fills.state": _FILL,
    "outbox_fills.target": _FILL,
    "outbox_jobs.epoch": _JOB,
    "outbox_jobs.erased": _SEEN,
    "outbox_jobs.expires_at": _JOB,
    "outbox_jobs.forgotten": _SEEN,
    "outbox_jobs.forgotten_at": _SEEN,
    "outbox_jobs.forgotten_before": "an operator's date, up to which events may be missing",
    "outbox_jobs.owner": _JOB,
    "outbox_jobs.verb": _JOB,
    "outbox_leases.epoch": _RELAY,
    "outbox_leases.expires_at": _RELAY,
    "outbox_leases.owner": _RELAY,
    "outbox_leases.shard": "messages in a shard without a lease wait, and `status` names it",
    "outbox_operations.database_role": _RECORD,
    "outbox_operations.id": _RECORD,
    "outbox_operations.object": _RECORD,
    "outbox_operations.operated_at": _RECORD,
    "outbox_operations.reason": _RECORD,
    "outbox_operations.user_name": _RECORD,
    "outbox_operations.verb": _RECORD,
    "outbox_publishers.lease_seconds": _RELAY,
    "outbox_publishers.owner": _RELAY,
    "outbox_publishers.paused": _SEEN,
    "outbox_publishers.seen_at": _RELAY,
    "outbox_publishers.target": _RELAY,
    "outbox_publishers.waiting_since": _RELAY,
    "outbox_replays.position sent": "the message is gone; the next one only has to be behind it",
    "outbox_replays.reason": _REPLAY,
    "outbox_replays.replayed_at": _REPLAY,
    "outbox_replays.replayed_by": _REPLAY,
    "outbox_targets.kind": _SET,
    "outbox_targets.name": _SET,
    "outbox_targets.state": _SET,
    "outbox_topics.paused_at": _SET,
    "outbox_topics.paused_by": _SET,
    "outbox_topics.reason": _SET,
    "outbox_topics.target": _SET,
    "outbox_topics.topic": _SET,
    "schema_migrations.applied_at": "`schema check` compares the schema",
    "schema_migrations.checksum": "`schema check` compares the schema",
    "schema_migrations.name": "`schema check` compares the schema",
    "schema_migrations.version": "`schema check` compares the schema",
}
"""Why `verify` does not name a column that was changed, of all rows or of those of a kind."""


class Damage(NamedTuple):
    """A column of a row of a kind, whose value was changed, and what `verify` found."""

    column: str
    kind: str
    faults: tuple[str, ...]

    def reason(self, table: str) -> str | None:
        """Why it is not named, by the list."""
        for key, reason in NOT_NAMED.items():
            place, _, words = key.partition(" ")
            if place == f"{table}.{self.column}" and words in self.kind:
                return reason
        return None


def new(n: int, *keys: str, **more: Any) -> Event:
    pairs = (key.split("/") for key in keys)
    entities = [Entity(kind, name, {"id": name, "name": f"n{n}"}) for kind, name in pairs]
    return Event.new("CarSold", entities, id=UUID(int=n << 96), **more)


def now(on: psycopg.Connection[Any]) -> Any:
    ((time,),) = on.execute("SELECT clock_timestamp()")
    return time


async def live(database: Database, on: psycopg.Connection[Any]) -> None:
    """Write, relay, forget, replay, erase and fill, so that every kind of row is there."""
    with Writer(database) as writer:
        writer.write(new(1, "Car/1"))
        writer.write(new(2, "Car/1"))
        await relay_all(database, MemorySink())
        first = now(on)
        await forget(database, before=first)
        writer.write(new(3, "Car/1", "Person/ann"))
        writer.write_many([new(4, "Car/1"), new(5, "Car/5", "Person/ann", headers={"a": "b"})])
        await relay_all(database, MemorySink())
        writer.write_many([new(6, "Car/1"), new(7, "Car/1", headers={"a": "b"}, topic="t")])
        writer.write_many([new(8, "Person/eve"), new(9, "Person/ida", "Car/9"), new(10, "Car/9")])
        async with Targets(database) as targets:
            await targets.add("cars", types=["Car"])
        await relay_all(database, MemorySink(), refused=[UUID(int=10 << 96)])
        async with Messages(database) as tool:
            for again in ((3, 6), (3, 4, 6, 7)):
                ids = Selection(ids=tuple(UUID(int=n << 96) for n in again))
                await relay_all(database, MemorySink())
                await gathered(tool.replay(ids))
        writer.write(new(11, "Car/1", "Person/ann", headers={"a": "b"}, topic="t"))
        writer.write_many([new(12, "Car/9"), new(13, "Car/9")])
    async with Erasures(database) as erasures:
        await erasures.erase("Person/eve", reason="for a test")
        await erasures.erase("Person/ida", reason="for a test")
    async with Targets(database) as targets:
        run = targets.add("lake", from_start=True)
        async for each in run:
            if each.fill is not None and each.fill.read:
                run.stop()
    for rows in ROWS:
        on.execute(f"INSERT INTO outbox.{rows}".encode())


ROWS: Final[list[LiteralString]] = [
    """outbox_failures SELECT shard, position, event_id, 1, 'no', 'infinity' FROM outbox.outbox
        ORDER BY position DESC LIMIT 1""",
    "outbox_publishers VALUES ('one', now(), 5, '[]', 'default', NULL)",
    "outbox_topics VALUES ('default', 't', '', 'me', now())",
    "inbox VALUES ('one', '', 'a', '00000000-0000-0000-0000-000000000001', now())",
    "inbox_subjects VALUES ('one', '', 'Car', '1', 2, 1, now())",
]


class Lived(NamedTuple):
    """A database as `live` leaves it."""

    database: Database
    sql: psycopg.Connection[Any]


@pytest.fixture(scope="module")
def lived(outbox_databases: OutboxDatabases) -> Iterator[Lived]:
    """A database with every kind of row. A test that changes a row restores it."""
    with (
        outbox_databases.lent(4) as url,
        psycopg.connect(url, autocommit=True) as on,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(fills_module, "PAGE_ROWS", 6)
        anyio.run(live, Database(url), on)
        yield Lived(Database(url), on)


def columns_of(on: psycopg.Connection[Any], table: str) -> dict[str, LiteralString]:
    """The columns of a table with their types."""
    return dict(
        on.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (f"outbox.{table}",),
        ).fetchall()
    )


def changed(value: str | None, kind: str) -> str:
    """Another value of the same type; of texts one of the same length."""
    match kind:
        case "integer" | "bigint" | "double precision":
            return str(int(value or 0) + 1)
        case "uuid":
            return str(UUID(int=UUID(value or "0" * 32).int ^ 1))
        case "json":
            return '{"damaged": "yes"}'
        case "bytea":
            return f"{value}00"
        case "timestamp with time zone":
            return "2100-01-01Z"
        case _:
            return f"{'y' if value and value[0] == 'x' else 'x'}{(value or '')[1:]}"


async def findings_of(tool: Verifier) -> list[Any]:
    async with aclosing(tool.verify()) as run:
        return [each async for each in run]


async def damages(lived: Lived, tool: Verifier, table: str, *, every_kind: bool) -> list[Damage]:
    """Change each column of a row of each kind, one after the other, and put it back.

    Without `every_kind`, of each column that of one row: of another kind than the column before.
    """
    on = lived.sql
    name = sql.Identifier("outbox", table)
    found: list[Damage] = []
    for number, (column, column_type) in enumerate(columns_of(on, table).items()):
        each = sql.Identifier(column)
        rows = on.execute(
            sql.SQL("SELECT ctid::text, {}::text, {} FROM {} t ORDER BY ctid").format(
                each, sql.SQL(KINDS.get(table, "''")), name
            )
        ).fetchall()
        put = sql.SQL("UPDATE {} SET {} = %s::text::{} WHERE ctid = %s::tid RETURNING ctid::text")
        put = put.format(name, each, sql.SQL(column_type))
        kinds = [*{row[2]: row for row in rows}.values()]
        for place, value, kind in kinds if every_kind else [kinds[number % len(kinds)]]:
            other = changed(value, column_type)
            if column == "types":
                other = '{"Bus"}'  # its CHECK accepts arrays only
            try:
                ((moved,),) = on.execute(put, (other, place))
            except psycopg.errors.UniqueViolation:  # of a row that is there
                ((moved,),) = on.execute(put, (str(int(other) + 1_000), place))
            faults = tuple(sorted({each.fault for each in await findings_of(tool)}))
            on.execute(put, (value, moved))
            found.append(Damage(column, kind, faults))
    return found


async def test_what_was_done_has_no_fault(lived: Lived) -> None:
    async with Verifier(lived.database) as tool:
        assert await findings_of(tool) == []


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("every_kind", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_a_changed_column_is_named_or_listed(
    lived: Lived, table: str, *, every_kind: bool
) -> None:
    async with Verifier(lived.database) as tool:
        found = await damages(lived, tool, table, every_kind=every_kind)
    lines = {
        f"{table}.{each.column} {each.kind}".rstrip(): ", ".join(each.faults)
        or f"not named: {each.reason(table)}"
        for each in found
    }
    print(*(f"{place}: {told}" for place, told in lines.items()), sep="\n")  # noqa: T201 - the list
    assert {each for each in found if not each.faults and each.reason(table) is None} == set()
    assert {each for each in found if each.faults and each.reason(table) is not None} == set()


def test_the_list_has_columns_that_exist(lived: Lived) -> None:
    columns = {f"{table}.{each}" for table in TABLES for each in columns_of(lived.sql, table)}
    assert {key.partition(" ")[0] for key in NOT_NAMED} <= columns
