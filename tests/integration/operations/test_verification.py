"""`Verifier` on a real database: what it accepts, and each fault that it names."""

from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import anyio
import psycopg
import pytest
from anyio import to_thread
from tests.support.operations.forgotten_events import forget
from tests.support.outbox_databases import OutboxDatabases
from tests.support.publisher.given_up_messages import gathered, relay_all

from dsql_outbox.operations import Messages, Selection, Verifier
from dsql_outbox.operations.verification import verifier
from dsql_outbox.operations.verification.finding import Finding
from dsql_outbox.operations.verification.verifier import VerifyProgress
from dsql_outbox.outbox import Database, Entity, Event, JsonEvent
from dsql_outbox.publisher import Rejected
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer
from dsql_outbox.writer.tuned_settings import TunedSettings

pytestmark = pytest.mark.anyio

IDS = [UUID(int=0), *(UUID(int=n << 100) for n in range(1, 12)), UUID(int=(1 << 128) - 1)]
IDS[3] = UUID(int=IDS[2].int + 1)
OLDER = (
    b'{"eventHeader": {"uuid": "%b", "eventName": "Old", "savedDate": 5, "eventName": "Old"},\n \
"eventBody": {"entities": [{"entityType": "Car", "entityId": "C/\\u00e9", \
"updatedAttributes": {"a": 1, "a": 1e200000}}]}}'
)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of few rows, so that each test crosses their ends."""
    for name, rows in (("EVENT", 3), ("TOUCH", 2), ("HEADER", 2), ("OTHER", 2)):
        monkeypatch.setattr(verifier, f"{name}_ROWS", rows)


async def found(database: Database, **given: Any) -> tuple[list[Finding], VerifyProgress]:
    async with Verifier(database) as tool, aclosing(tool.verify(**given)) as run:
        return [finding async for finding in run], run.progress


def new(event_id: UUID, *keys: str, **attributes: object) -> Event:
    pairs = (key.split("/", 1) for key in keys)
    entities = [Entity(entity_type, name, attributes) for entity_type, name in pairs]
    return Event.new("CarSold", entities, id=event_id)


async def fill(database: Database, sql: psycopg.Connection[Any]) -> None:
    """Thirteen events of eight entities, in every kind of write.

    There are replays, a dead letter and an erasure, too.
    """
    with Writer(database, TunedSettings(form="single")) as writer:
        writer.write(new(IDS[0], "Car/1", km=1))
        writer.write(new(IDS[1], "Car/1", "Person/ann", "Person/bob", km=2))
        writer.write_many([new(each, "Car/1", "Person/ann", km=3) for each in IDS[2:6]])
        writer.write(JsonEvent(OLDER % str(IDS[6]).encode(), headers={"tenant": "7"}))
        writer.transact(lambda work: [work.append(new(each, "Car/2")) for each in IDS[7:9]])
    with Writer(database, TunedSettings(form="plain")) as writer:
        writer.write_many(
            [
                new(IDS[9], "Car/2", "Car/1"),
                new(IDS[10], "Person/ann", "Car/ann", "Person/\u00e9", km=4),
            ]
        )
    sink = MemorySink()
    sink.fail(IDS[3], Rejected("never"))
    await relay_all(database, sink)
    async with Messages(database) as tool:
        await gathered(tool.replay(Selection(ids=(IDS[0], IDS[6]))))
    with Writer(database) as writer:
        writer.write_many([new(IDS[11], "Person/bob", km=5), new(IDS[12], "Car/3", km=6)])
    sql.execute(
        "INSERT INTO outbox.outbox_erasures SELECT '2100-01-01', subject_type, subject_id,"
        " id, 1, '', '', '', now() FROM outbox.business_events WHERE id = %s",
        (IDS[6],),
    )


class Stored:
    """All rows of the outbox in a database, which a test may change: they come back."""

    def __init__(self, url: str, sql: psycopg.Connection[Any]) -> None:
        self.database = Database(url)
        self.sql = sql
        self._rows: dict[str, list[str]] = {}
        """As text, since JSON is to come back byte for byte."""
        tables = sql.execute(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n"
            " ON n.oid = c.relnamespace WHERE n.nspname = 'outbox' AND c.relkind = 'r'"
        )
        for (table,) in tables.fetchall():
            rows = sql.execute(f"SELECT t::text FROM {table} t".encode())
            self._rows[table] = [row for (row,) in rows]

    def put_back(self) -> None:
        """Have the rows of the beginning, and no others."""
        with self.sql.transaction():
            for table, rows in self._rows.items():
                self.sql.execute(f"DELETE FROM {table}".encode())
                put = f"INSERT INTO {table} SELECT (t::{table}).* FROM unnest(%s::text[]) AS t"
                self.sql.execute(put.encode(), (rows,))


@pytest.fixture(scope="module")
def filled(outbox_databases: OutboxDatabases) -> Iterator[Stored]:
    """A database as `fill` leaves it."""
    with outbox_databases.lent(16) as url, psycopg.connect(url, autocommit=True) as sql:
        anyio.run(fill, Database(url), sql)
        yield Stored(url, sql)


@pytest.fixture
def stored(filled: Stored) -> Iterator[Stored]:
    """A database as `fill` leaves it, which a test may change."""
    yield filled
    filled.put_back()


async def test_what_the_library_writes_has_no_fault(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "EVENT_BYTES", 1)  # less than any event has
    findings, read = await found(stored.database)
    assert findings == []
    assert read.events == 13
    assert (read.headers, read.entities, read.messages, read.dead_letters, read.replays) == (
        *(22, 8, 4),
        *(1, 2),
    )


FAULTS: dict[str, tuple[str, set[tuple[str, str, str]]]] = {
    "a changed byte": (
        (
            "UPDATE {s}.business_events SET event_data = replace(event_data::text, '\"km\":4', "
            "'\"km\":5')::json WHERE id = '{10}'"
        ),
        {("changed-bytes", "business_events", "{10}")},
    ),
    "bytes that are no event": (
        "UPDATE {s}.business_events SET event_data = '[]' WHERE id = '{4}'",
        {("unreadable", "business_events", "{4}")},
    ),
    "bytes of another event": (
        (
            "UPDATE {s}.business_events SET (event_data, fingerprint) = (SELECT event_data, "
            "fingerprint FROM {s}.business_events WHERE id = '{4}') WHERE id = '{5}'"
        ),
        {
            ("other-content", "business_events", "{5}"),
            ("other-content", "event_headers", "Car/1@6"),
            ("other-content", "event_headers", "Person/ann@5"),
        },
    ),
    "another subject": (
        "UPDATE {s}.business_events SET subject_id = '2' WHERE id = '{12}'",
        {
            ("other-content", "business_events", "{12}"),
            ("other-position", "entities", "Car/3"),
            ("other-entity", "outbox", "{12}"),
        },
    ),
    "an erasure that is not listed": (
        "UPDATE {s}.business_events SET erased_at = now() WHERE id = '{4}'",
        {("unlisted-erasure", "business_events", "{4}")},
    ),
    "another size": (
        "UPDATE {s}.business_events SET event_size = event_size + 1 WHERE id = '{5}'",
        {("other-content", "business_events", "{5}")},
    ),
    "another name": (
        (
            "UPDATE {s}.business_events SET event_name = 'Car Lost' WHERE id = '{5}';"
            "UPDATE {s}.business_events SET event_type = 'CarLost' WHERE id = '{4}'"
        ),
        {
            ("other-content", "business_events", "{5}"),
            ("other-content", "business_events", "{4}"),
            # Bytes or not, the rows contradict each other.
            ("other-content", "event_headers", "Car/1@5"),
            ("other-content", "event_headers", "Person/ann@4"),
            ("other-content", "event_headers", "Car/1@6"),
            ("other-content", "event_headers", "Person/ann@5"),
        },
    ),
    "another shard": (
        "UPDATE {s}.business_events SET shard = shard + 1 WHERE id = '{5}'",
        {("other-content", "business_events", "{5}")},
    ),
    "touches that cannot be read": (
        "UPDATE {s}.business_events SET touches = '7' WHERE id = '{1}'",
        {("other-content", "business_events", "{1}")},
    ),
    "a missing header": (
        "DELETE FROM {s}.event_headers WHERE entity_id = 'ann' AND entity_version = 2",
        {
            ("missing-header", "business_events", "{2}"),
            ("gap", "event_headers", "Person/ann@3"),
        },
    ),
    "a missing last header": (
        (
            "DELETE FROM {s}.event_headers WHERE entity_id = '3'"
            " OR entity_id = '2' AND entity_version = 3"
        ),
        {
            ("missing-header", "business_events", "{12}"),
            ("missing-header", "business_events", "{9}"),
            ("entity-ahead", "entities", "Car/3"),
            ("entity-ahead", "entities", "Car/2"),
        },
    ),
    "another header": (
        "UPDATE {s}.event_headers SET header_data = '{{}}' WHERE entity_id = '3'",
        {("other-content", "event_headers", "Car/3@1")},
    ),
    "another size of a header": (
        "UPDATE {s}.event_headers SET header_size = header_size + 1 WHERE entity_id = '3'",
        {("other-content", "event_headers", "Car/3@1")},
    ),
    "a gap": (
        (
            "UPDATE {s}.event_headers SET entity_version = 9 WHERE entity_id = '3';"
            "UPDATE {s}.business_events SET subject_version = 9, touches = replace(touches::text, "
            "':1}}', ':9}}')::json WHERE id = '{12}'; UPDATE {s}.outbox SET subject_version = 9,"
            " headers = replace(headers::text, '3@1\"', '3@9\"')::json"
            " WHERE event_id = '{12}'; UPDATE {s}.entities SET version = 9 WHERE entity_id = '3'"
        ),
        {("gap", "event_headers", "Car/3@9")},
    ),
    "a doubled version": (
        (
            "UPDATE {s}.business_events SET subject_version = 3, touches = replace(touches::text, "
            '\'"1","version":4\', \'"1","version":3\')::json WHERE id = \'{3}\''
        ),
        {
            ("doubled-version", "business_events", "{3}"),
            ("other-event", "event_headers", "Car/1@4"),
            ("other-entity", "dead_letters", "{3}"),
        },
    ),
    "an event that lost its touch of an entity": (
        (
            "UPDATE {s}.business_events SET touches = replace(touches::text, 'bob', 'eve')::json"
            " WHERE id = '{1}'; UPDATE {s}.business_events SET touches = replace(touches::text, "
            "'Person', 'Robot')::json WHERE id = '{2}'"
        ),
        {
            ("other-content", "business_events", "{1}"),
            ("missing-header", "business_events", "{1}"),
            ("other-event", "event_headers", "Person/bob@1"),
            ("other-content", "business_events", "{2}"),
            ("missing-header", "business_events", "{2}"),
            ("other-event", "event_headers", "Person/ann@2"),
        },
    ),
    "a missing event": (
        "DELETE FROM {s}.business_events WHERE id IN ('{11}', '{3}', '{0}', '{6}')",
        {
            ("missing-event", "event_headers", "Car/C/\u00e9@1"),
            ("missing-event", "outbox", "{6}"),
            ("missing-event", "outbox_replays", "{6}"),
            ("missing-event", "event_headers", "Person/bob@2"),
            ("missing-event", "event_headers", "Car/1@1"),
            ("missing-event", "event_headers", "Car/1@4"),
            ("missing-event", "event_headers", "Person/ann@3"),
            ("missing-event", "outbox", "{11}"),
            ("missing-event", "outbox", "{0}"),
            ("missing-event", "dead_letters", "{3}"),
            ("missing-event", "outbox_replays", "{0}"),
            ("missing-event", "outbox_erasures", "2100-01-01 00:00:00+00/{6}"),
        },
    ),
    "an entity ahead": (
        "UPDATE {s}.entities SET version = version + 1 WHERE entity_id = '2'",
        {("entity-ahead", "entities", "Car/2")},
    ),
    "an entity behind": (
        "UPDATE {s}.entities SET version = version - 1 WHERE entity_id = '2'",
        {("entity-behind", "entities", "Car/2"), ("other-event", "entities", "Car/2")},
    ),
    "a missing entity": (
        "DELETE FROM {s}.entities WHERE entity_id IN ('2', '\u00e9')",
        {
            ("missing-entity", "event_headers", "Car/2@3"),
            ("missing-entity", "event_headers", "Person/\u00e9@1"),
        },
    ),
    "an entity without events": (
        (
            "INSERT INTO {s}.entities SELECT 'Car', '0', version, shard, position, "
            "previous_position, entity_data, event_id, created_at, updated_at FROM {s}.entities"
            " WHERE entity_id = '3'"
        ),
        {("entity-ahead", "entities", "Car/0")},
    ),
    "another state": (
        "UPDATE {s}.entities SET entity_data = '{{}}' WHERE entity_id = 'bob'",
        {("other-state", "entities", "Person/bob")},
    ),
    "a position that does not rise": (
        "UPDATE {s}.business_events SET position = previous_position WHERE id = '{4}'",
        {
            ("other-position", "business_events", "{4}"),
            ("other-position", "business_events", "{5}"),
        },
    ),
    "an entity at another position": (
        "UPDATE {s}.entities SET position = position + 1 WHERE entity_id = '2'",
        {("other-position", "entities", "Car/2")},
    ),
    "another payload": (
        "UPDATE {s}.outbox SET payload = payload || ' ' WHERE event_id = '{12}'",
        {("other-payload", "outbox", "{12}")},
    ),
    "a message of another subject": (
        (
            "UPDATE {s}.outbox SET subject_id = '4' WHERE event_id = '{12}';"
            "UPDATE {s}.outbox SET subject_type = 'Bus' WHERE event_id = '{11}';"
            "UPDATE {s}.outbox SET subject_version = 9 WHERE event_id = '{0}'"
        ),
        {
            ("other-entity", "outbox", "{12}"),
            ("other-entity", "outbox", "{11}"),
            ("other-entity", "outbox", "{0}"),
        },
    ),
    "the message that tells of an erasure is of another subject": (
        "UPDATE {s}.outbox SET subject_id = '4' WHERE event_id = '{6}'",
        {("other-entity", "outbox", "{6}")},
    ),
    "a message at another position": (
        (
            "UPDATE {s}.outbox SET position = position + 1 WHERE event_id = '{0}';"
            "UPDATE {s}.outbox SET position = (SELECT position FROM {s}.outbox_replays"
            " WHERE event_id = '{0}') WHERE event_id = '{12}'"
        ),
        {("other-position", "outbox", "{12}"), ("other-position", "outbox", "{0}")},
    ),
    "a message in another shard": (
        "UPDATE {s}.outbox SET shard = (shard + 5) % 16 WHERE event_id = '{12}'",
        {("other-position", "outbox", "{12}")},
    ),
    "messages behind others": (
        (
            "UPDATE {s}.outbox SET previous_position = 7 WHERE event_id = '{0}';"
            "UPDATE {s}.outbox SET previous_position = position - 1 WHERE event_id = '{12}'"
        ),
        {("other-position", "outbox", "{0}"), ("other-position", "outbox", "{12}")},
    ),
    "a message behind none": (
        (
            "UPDATE {s}.business_events SET previous_position = position - 1 WHERE id = '{12}';"
            "UPDATE {s}.entities SET previous_position = position - 1 WHERE entity_id = '3'"
        ),
        {("other-position", "outbox", "{12}"), ("other-position", "business_events", "{12}")},
    ),
    "messages of other topics": (
        "UPDATE {s}.outbox SET topic = 'events.Elsewhere' WHERE event_id IN ('{0}', '{12}')",
        {("other-content", "outbox", "{0}"), ("other-content", "outbox", "{12}")},
    ),
    "messages with other headers": (
        (
            "UPDATE {s}.outbox SET headers = replace(headers::text, '{12}', '{11}')::json"
            " WHERE event_id = '{12}';"
            "UPDATE {s}.outbox SET headers = replace(headers::text, 'CarSold', 'CarLost')::json"
            " WHERE event_id = '{11}';"
            "UPDATE {s}.outbox SET headers = replace(headers::text, 'replay\":\"1', "
            "'replay\":\"2')::json WHERE event_id = '{0}';"
            "UPDATE {s}.outbox SET headers = replace(headers::text, 'tenant\":\"7', "
            "'tenant\":\"8')::json WHERE event_id = '{6}'"
        ),
        {("other-content", "outbox", f"{{{n}}}") for n in (0, 6, 11, 12)},
    ),
    "headers that cannot be read": (
        "UPDATE {s}.outbox SET headers = '[7]' WHERE event_id = '{12}'",
        {("other-content", "outbox", "{12}")},
    ),
    "a message of another size": (
        "UPDATE {s}.outbox SET payload_size = payload_size - 1 WHERE event_id = '{12}'",
        {("other-content", "outbox", "{12}")},
    ),
    "another letter": (
        (
            "UPDATE {s}.dead_letters SET subject_id = '3' WHERE event_id = '{3}';"
            "UPDATE {s}.dead_letters SET topic = 'a', replays = 1 WHERE event_id = '{3}';"
            "UPDATE {s}.dead_letters SET position = position + 9 WHERE event_id = '{3}'"
        ),
        {
            ("other-entity", "dead_letters", "{3}"),
            ("other-content", "dead_letters", "{3}"),
            ("other-position", "dead_letters", "{3}"),
        },
    ),
    "replays that were not made": (
        (
            "UPDATE {s}.outbox_replays SET number = 2 WHERE event_id = '{0}';"
            "UPDATE {s}.outbox SET headers = replace(headers::text, 'replay\":\"1', "
            "'replay\":\"2')::json WHERE event_id = '{0}';"
            "INSERT INTO {s}.outbox_replays SELECT id, 1, position, '', '', now()"
            " FROM {s}.business_events WHERE id = '{4}'"
        ),
        {("gap", "outbox_replays", "{0}"), ("other-position", "outbox_replays", "{4}")},
    ),
    "headers of events of another name": (
        (
            "UPDATE {s}.event_headers SET event_name = 'Car Lost' WHERE entity_id = '3';"
            "UPDATE {s}.event_headers SET created_date = now() + '1s'::interval"
            " WHERE entity_id = '2' AND entity_version = 1"
        ),
        {
            ("other-content", "event_headers", "Car/3@1"),
            ("other-content", "event_headers", "Car/2@1"),
        },
    ),
    "an erasure of another version": (
        "UPDATE {s}.outbox_erasures SET version = 2",
        {("other-event", "outbox_erasures", "2100-01-01 00:00:00+00/{6}")},
    ),
}


@pytest.mark.client
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_named_and_nothing_else(stored: Stored, name: str) -> None:
    planted, wanted = FAULTS[name]
    for each in planted.split(";"):
        changed = stored.sql.execute(each.format(*IDS, s="outbox").encode())
        assert changed.rowcount > 0
    findings, read = await found(stored.database)
    assert read.findings == len(findings)
    assert {(each.fault, each.table, _key(each)) for each in findings} == {
        (fault, table, key.format(*IDS)) for fault, table, key in wanted
    }
    assert not any('"km"' in each.text for each in findings)


def _key(finding: Finding) -> str:
    """The key; of a message, a letter or a replay only the event, as the rest varies."""
    if finding.table == "outbox":
        return finding.key.split("/")[-1]
    return finding.key if "@" in finding.key else _first_id(finding.key)


def _first_id(key: str) -> str:
    first = key.split("/", maxsplit=1)[0]
    return first if len(first) == 36 else key


async def test_bytes_of_events_that_were_saved_earlier_are_not_read(stored: Stored) -> None:
    stored.sql.execute(
        "UPDATE outbox.business_events SET event_data = '1', saved_date = '2020-01-02Z'"
        " WHERE id = %s",
        (IDS[4],),
    )
    findings, read = await found(stored.database, since=datetime(2020, 1, 3, tzinfo=UTC))
    assert (findings, read.skipped) == ([], 1)
    findings, _ = await found(stored.database, since=datetime(2020, 1, 2))  # noqa: DTZ001
    assert [each.fault for each in findings] == ["unreadable"]


@pytest.mark.parametrize(
    ("verb", "owner", "seconds", "is_named"),
    [
        ("erase", "a", 60, False),
        ("erase", "a", -60, True),
        ("erase", None, 60, True),
        ("forget", "a", 60, True),
    ],
)
async def test_an_erasure_is_unfinished_unless_its_job_runs(
    stored: Stored, verb: str, owner: str | None, seconds: int, *, is_named: bool
) -> None:
    stored.sql.execute("UPDATE outbox.outbox_erasures SET finished_at = NULL")
    stored.sql.execute(
        "INSERT INTO outbox.outbox_jobs (name, verb, owner, expires_at, epoch, erased, forgotten)"
        " VALUES ('life', %s, %s, now() + %s, 1, 0, 0)",
        (verb, owner, timedelta(seconds=seconds)),
    )
    findings, _ = await found(stored.database)
    assert [each.fault for each in findings] == ["unfinished-erasure"] * is_named


@pytest.mark.client
async def test_events_that_were_forgotten_are_not_missed_and_others_are(stored: Stored) -> None:
    """Of some entities the first events are forgotten, or some in between, or the last."""
    old = [*IDS[:6], *IDS[7:10]]
    for change in (
        "business_events SET saved_date = '2020-01-01' WHERE id",
        "event_headers SET saved_date = '2020-01-01' WHERE event_id",
        "entities SET updated_at = '2020-01-01' WHERE event_id",
    ):
        stored.sql.execute(f"UPDATE outbox.{change} = ANY(%s)".encode(), (old,))
    before = datetime(2021, 1, 1, tzinfo=UTC)
    done = await forget(stored.database, before=before)
    assert (done.events, done.kept) == (7, 2)
    findings, read = await found(stored.database)
    assert (findings, read.events) == ([], 6)

    stored.sql.execute(
        "UPDATE outbox.event_headers SET saved_date = now() WHERE event_id = %s", (IDS[3],)
    )
    stored.sql.execute("UPDATE outbox.entities SET updated_at = now() WHERE entity_id = '2'")
    findings, _ = await found(stored.database)
    assert {(each.fault, each.table, each.key) for each in findings} == {
        ("gap", "event_headers", "Person/ann@6"),
        ("entity-ahead", "entities", "Car/2"),
    }


async def test_beside_writers_and_a_publisher_nothing_is_reported(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few entities in many pages: most of them grow while they are read."""
    for name, rows in (("EVENT", 40), ("TOUCH", 30), ("HEADER", 60), ("OTHER", 3)):
        monkeypatch.setattr(verifier, f"{name}_ROWS", rows)
    random = Random(7)
    writing = {"single", "plain"}

    def write(form: Any) -> None:
        with Writer(database, TunedSettings(form=form)) as writer:
            for n in range(60):
                keys = random.sample([f"Car/{car}" for car in range(6)], 3)
                some = [UUID(int=random.getrandbits(128)) for _ in range(9)]
                writer.write(new(some[0], keys[0], km=n))
                writer.write_many([new(each, *keys[: 1 + n % 3], km=n) for each in some[1:]])

    async def written(form: str) -> None:
        await to_thread.run_sync(write, form)
        writing.remove(form)

    async def relayed() -> None:
        while writing:
            await relay_all(database, MemorySink())

    beside: list[int] = []
    async with anyio.create_task_group() as group:
        for form in [*writing]:
            group.start_soon(written, form)
        group.start_soon(relayed)
        while writing:
            findings, read = await found(database)
            assert findings == []
            beside.append(read.events)
    findings, read = await found(database)
    assert (findings, read.events) == ([], 1080)
    assert beside
