"""Replays on real PostgreSQL: from the dead letters, and from what is stored."""

from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.support.brokers.readable_brokers import NatsBroker
from tests.support.publisher.given_up_messages import event, gathered, relay_all
from tests.support.publisher.running_relays import count, relayed

from dsql_outbox.operations import Messages, Selection
from dsql_outbox.operations.requeue import MessageResult
from dsql_outbox.outbox import Database, Entity, Event, SchemaError
from dsql_outbox.outbox.message import RESERVED_HEADERS
from dsql_outbox.publisher import Rejected
from dsql_outbox.testing import MemorySink, NatsServer
from dsql_outbox.writer import Writer, WriterSettings

pytestmark = pytest.mark.anyio


async def replay(database: Database, *event_ids: UUID, **settings: object) -> list[MessageResult]:
    async with Messages(database) as tool:
        selected = Selection(ids=event_ids)
        return await gathered(tool.replay(selected, **settings))  # type: ignore[arg-type]


def written(writer: Writer, *events: Event) -> list[UUID]:
    return [writer.write(each).event_id for each in events]


# --- what a replayed message is --------------------------------------------------------


async def test_a_replayed_message_is_the_one_before_but_for_place_and_dedupe_id(
    database: Database,
) -> None:
    sink = MemorySink()
    entities = [Entity("Loan", "L 1/é"), Entity("Car", "C@1,2")]
    source = Event.new("LoanCreated", entities)
    with Writer(database, WriterSettings(source="/shop")) as writer:
        writer.write(source)
        older = writer.write(
            b'{"eventHeader": {"uuid": "%b", "eventName": "Old"},\n "entities": [{"entityHeader":'
            b' {"entityType": "Car", "entityId": "c"}, "a": 1, "a": 1e200000}]}'
            % str(uuid4()).encode()
        )
    await relay_all(database, sink)
    before = {message.event_id: message for message in sink.messages}
    await replay(database, source.id, older.event_id, source="/shop")
    await relay_all(database, sink)

    for again in sink.messages[2:]:
        first = before[again.event_id]
        assert again.headers.pop("replay") == "1"
        assert int(again.headers.pop("leaseepoch")) > int(first.headers.pop("leaseepoch"))
        assert int(again.headers.pop("position")) > int(first.headers.pop("position"))
        assert again.headers == first.headers
        assert again.payload == first.payload
        assert (again.topic, again.key) == (first.topic, first.key)
        assert again.dedupe_id == f"{first.event_id}/r1"
        assert again.committed_ns > first.committed_ns


async def test_a_replay_goes_through_the_shard_of_its_subject(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    ids = written(writer, *(event(f"car-{n}") for n in range(8)))
    sql.execute("DELETE FROM outbox.outbox")
    await replay(database, *ids)
    stray = sql.execute(
        "SELECT o.event_id FROM outbox.outbox o JOIN outbox.business_events b ON b.id = o.event_id"
        " WHERE o.shard <> b.shard"
    ).fetchall()
    assert stray == []
    assert sql.execute("SELECT count(DISTINCT shard) FROM outbox.outbox").fetchone() == (4,)


async def test_each_replay_of_an_event_counts_up_and_its_reason_is_recorded(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    (event_id,) = written(writer, event())
    sink = MemorySink()
    await relay_all(database, sink)
    for n in range(3):
        done = await replay(database, event_id, reason=f"reason {n}")
        assert [(each.status, each.replay) for each in done] == [("replayed", n + 1)]
        await relay_all(database, sink)
    assert [m.dedupe_id for m in sink.messages] == [
        str(event_id),
        *(f"{event_id}/r{n}" for n in (1, 2, 3)),
    ]
    recorded = sql.execute(
        "SELECT number, reason, replayed_by = current_user FROM outbox.outbox_replays"
    ).fetchall()
    assert recorded == [(n + 1, f"reason {n}", True) for n in range(3)]


# --- order -----------------------------------------------------------------------------


async def test_replays_of_a_subject_wait_for_each_other_and_for_a_failure_before_them(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsql_outbox.operations.requeue.MAX_ROWS", 2)
    ids = written(writer, *(event("a", n) for n in range(6)))
    sink = MemorySink()
    await relay_all(database, sink)
    await replay(database, *ids)
    rows = sql.execute(
        "SELECT event_id, position, previous_position FROM outbox.outbox ORDER BY position"
    ).fetchall()
    assert [row[0] for row in rows] == ids
    assert [row[2] for row in rows] == [0, *(row[1] for row in rows[:-1])]
    sink.fail(ids[2], Rejected("no"))
    await relay_all(database, sink, on_dead_letter="block")
    assert sink.ids == ids + ids[:2]


async def test_a_replay_comes_behind_a_subject_whose_clock_ran_ahead(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    (event_id,) = written(writer, event())
    sql.execute("DELETE FROM outbox.outbox")
    ahead = int((datetime.now(UTC) + timedelta(days=1)).timestamp() * 1e6)
    sql.execute("UPDATE outbox.entities SET position = %s", [ahead])
    (done,) = await replay(database, event_id)
    assert done.position == ahead + 1


# --- what is left alone ----------------------------------------------------------------


async def test_an_event_that_waits_as_written_or_as_a_replay_is_left_alone(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    (event_id,) = written(writer, event())
    (first,) = await replay(database, event_id)
    assert (first.status, first.subject, first.replay) == ("waiting", "Car/a", None)
    sql.execute("DELETE FROM outbox.outbox")
    (second, twice) = await replay(database, event_id, event_id)
    assert {second.status, twice.status} == {"replayed", "waiting"}
    (third,) = await replay(database, event_id)
    assert third.status == "waiting"
    assert count(sql, "outbox") == count(sql, "outbox_replays") == 1


async def test_an_event_that_is_not_stored_is_told_and_the_others_go(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    (event_id,) = written(writer, event())
    sql.execute("DELETE FROM outbox.outbox")
    stranger = uuid4()
    done = await replay(database, stranger, event_id)
    assert {each.event_id: each.status for each in done} == {
        stranger: "missing",
        event_id: "replayed",
    }


async def test_a_dry_run_says_the_same_and_changes_nothing(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    ids = written(writer, event("a", 1), event("b", 2))
    await relay_all(database, MemorySink(), refused=[ids[1]])
    done = await replay(database, *ids, dry_run=True)
    assert [(each.event_id, each.status, each.replay) for each in done] == [
        (ids[0], "planned", 1),
        (ids[1], "planned", 1),
    ]
    async with Messages(database) as letters:
        (letter,) = await gathered(letters.retry(dry_run=True))
        assert letter.status == "planned"
    assert [count(sql, t) for t in ("outbox", "outbox_replays", "dead_letters")] == [0, 0, 1]


# --- how fast, how much ----------------------------------------------------------------


async def test_a_rate_is_kept(database: Database, writer: Writer, sql: psycopg.Connection) -> None:
    ids = written(writer, *(event("a", n) for n in range(4)))
    sql.execute("DELETE FROM outbox.outbox")
    begun = monotonic()
    await replay(database, *ids, rate=10)
    assert monotonic() - begun < 2, "4 events fit the first second's worth"
    sql.execute("DELETE FROM outbox.outbox")
    begun = monotonic()
    await replay(database, *ids, rate=3)
    assert monotonic() - begun >= 1, "3 events, a second, 1 event"


async def test_a_transaction_holds_4_mib_of_payload_at_most(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    big = [Event.new("Big", [Entity("Car", "a", {"t": "x" * 1_000_000})]) for _ in range(7)]
    ids = written(writer, *big)
    sql.execute("DELETE FROM outbox.outbox")
    done = await replay(database, *ids)
    assert [each.event_id for each in done] == ids
    sizes = sql.execute("SELECT count(*) FROM outbox.outbox GROUP BY xmin::text").fetchall()
    assert sorted(sizes) == [(3,), (4,)]


# --- a real broker ---------------------------------------------------------------------


async def test_a_replay_has_the_topic_and_the_headers_of_its_event(
    database: Database, writer: Writer
) -> None:
    """An event without headers, as older writers store it, is replayed as it was."""
    own = {"tenant": "Zoë & 車", "correlationid": "c-1"}
    entities = [Entity("Loan", "L-1")]
    ours = Event.new("LoanPaid", entities, topic="events.vip", headers=own)
    ids = written(writer, ours, Event.new("LoanPaid", entities))
    with NatsServer() as server:
        broker = NatsBroker(server)
        async with broker.open() as sink:
            assert (await relayed(database, sink)).delivered == 2
            assert {each.topic for each in await replay(database, *ids)} == {
                "events.vip",
                "events.LoanPaid",
            }
            assert (await relayed(database, sink)).delivered == 2
        stored = await broker.stored()
    for first, again in zip(stored[:2], stored[2:], strict=True):
        for moved in ("leaseepoch", "position", "previousposition"):
            del first.headers[moved], again.headers[moved]
        assert again.headers == first.headers | {"replay": "1"}
    assert {name: stored[2].headers[name] for name in own} == own
    assert own.keys().isdisjoint(stored[3].headers)
    assert stored[3].headers.keys() <= RESERVED_HEADERS


@pytest.mark.parametrize(
    ("stored", "status"),
    [
        ('{"id": "x", "type": "y", "position": "7", "tenant": "a"}', "replayed"),
        ("[7]", "unreadable"),
    ],
)
async def test_stored_headers_that_no_writer_of_ours_made_change_nothing_of_ours(
    database: Database, writer: Writer, sql: psycopg.Connection, stored: str, status: str
) -> None:
    (event_id,) = written(writer, event())
    sql.execute("DELETE FROM outbox.outbox")
    sql.execute("UPDATE outbox.business_events SET headers = %s", [stored])
    (done,) = await replay(database, event_id)
    assert done.status == status
    sink = MemorySink()
    await relay_all(database, sink)
    for message in sink.messages:
        assert message.headers["id"] == str(event_id)
        assert message.headers["type"] == "CarMoved"
        assert message.headers["position"] == str(done.position)
        assert message.headers["tenant"] == "a"


@pytest.mark.parametrize("from_letters", [True, False])
async def test_a_replay_inside_the_brokers_window_is_stored_again(
    database: Database, writer: Writer, sql: psycopg.Connection, from_letters: bool
) -> None:
    """JetStream swallows what it was sent within the window, and acknowledges it."""
    (event_id,) = written(writer, event())
    sql.execute("CREATE TABLE kept AS SELECT * FROM outbox.outbox")
    with NatsServer() as server:
        broker = NatsBroker(server)
        async with broker.open() as sink:
            await relayed(database, sink)
            sql.execute("INSERT INTO outbox.outbox SELECT * FROM kept")
            assert (await relayed(database, sink)).delivered == 1
            assert len(await broker.stored()) == 1, "the same dedupe id is swallowed"
            if from_letters:
                sql.execute(
                    "INSERT INTO outbox.dead_letters SELECT event_id, now(), shard, position,"
                    " previous_position, subject_type, subject_id, subject_version, topic, headers,"
                    " payload_size, created_at, 'answer lost', 10, 0 FROM kept"
                )
                async with Messages(database) as letters:
                    await gathered(letters.retry())
            else:
                await replay(database, event_id)
            assert (await relayed(database, sink)).delivered == 1
        first, again = await broker.stored()
        async with broker.jetstream() as jetstream:
            info = await jetstream.stream_info("EVENTS")
            raw = [await jetstream.get_msg("EVENTS", sequence) for sequence in (1, 2)]
    assert info.config.duplicate_window == 120, "seconds, the server's default"
    sent_as = [message.headers["Nats-Msg-Id"] for message in raw if message.headers]
    assert sent_as == [str(event_id), f"{event_id}/r1"]
    assert again.headers["id"] == first.headers["id"]
    assert again.headers["replay"] == "1"
    assert again.payload == first.payload


async def test_missing_tables_are_said_to_be_missing(database_url: str) -> None:
    with pytest.raises(SchemaError, match="run `dsql-outbox schema apply`"):
        await replay(Database(database_url), uuid4())
