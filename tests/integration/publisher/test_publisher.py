"""Rounds that overlap, brokers that fail, operators that act, and what an idle minute costs."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from time import monotonic
from uuid import UUID

import anyio
import anyio.lowlevel
import psycopg
import pytest
from tests.support.publisher.running_relays import event, running, until

from dsql_outbox.observability import Fact, RoundEnded, ShardsChanged, WriteEnded
from dsql_outbox.outbox import Database, Message, SinkUnavailable
from dsql_outbox.publisher import (
    FailureFilter,
    Failures,
    NotAttempted,
    Outcome,
    Publisher,
    PublisherSettings,
    Rejected,
    Retry,
)
from dsql_outbox.publisher import publisher as publisher_module
from dsql_outbox.publisher.relay import held_subjects
from dsql_outbox.schema import apply
from dsql_outbox.testing import MemorySink, PostgresProxy
from dsql_outbox.writer import AsyncWriter, Writer

pytestmark = pytest.mark.anyio

SHARDS = 4


@pytest.fixture
def database(database_url: str) -> Database:
    database = Database(database_url)
    apply(database, shards=SHARDS)
    return database


def settings(**others: object) -> PublisherSettings:
    return PublisherSettings(**({"idle_max": 0.05} | others))  # type: ignore[arg-type]


def in_order(messages: Sequence[Message]) -> bool:
    last: Counter[str] = Counter()
    for message in messages:
        version = int(message.headers["sequence"])
        if version != last[message.key] + 1:
            return False
        last[message.key] = version
    return True


@pytest.mark.usefixtures("database")
async def test_a_change_of_the_schema_while_it_opens_is_tried_again(database_url: str) -> None:
    with PostgresProxy(database_url) as proxy:
        proxy.refuse(1, message="(OC001)", matching='count(*) FROM "outbox".outbox_leases')
        async with Publisher(Database(proxy.url), MemorySink()) as publisher:
            await publisher.run_once()


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("matching", ["o.payload", "outbox_failures f", "DELETE FROM"])
async def test_a_server_that_is_unavailable_for_a_while_is_waited_for(
    database_url: str, matching: str
) -> None:
    with Writer(Database(database_url)) as writer:
        writer.write(event("car-1"))
    sink = MemorySink()
    with PostgresProxy(database_url) as proxy:
        proxy.refuse(2, sqlstate="XX000", message="server unavailable", matching=matching)
        await Publisher(Database(proxy.url), sink, settings()).run(until_empty=True)
    assert len(sink.messages) == 1


class FlakySink(MemorySink):
    """Cannot be reached while `down`; counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.down = True
        self.asked: list[int] = []

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Outcome]:
        self.asked.append(len(messages))
        if self.down:
            raise SinkUnavailable("nobody listens")
        return await super().publish(messages)


# --- rounds in a row -------------------------------------------------------------------


async def test_rounds_that_overlap_deliver_everything_once_and_in_order(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    events = [event(f"car-{n % 40}", n) for n in range(1_000)]
    writer.write_many(events)
    sink = MemorySink()
    done = await Publisher(database, sink, settings(batch_rows=50)).run(until_empty=True)
    assert [m.event_id for m in sink.messages if m.event_id == events[0].id] == [events[0].id]
    assert len(sink.messages) == done.delivered == done.deleted == 1_000
    assert in_order(sink.messages)
    assert sql.execute("SELECT count(*) FROM outbox.outbox").fetchone() == (0,)


async def test_a_batch_costs_a_read_and_a_delete(database_url: str, writer: Writer) -> None:
    """Counted at the wire, while there is more to read; leases are kept on another connection."""
    writer.write_many([event(f"car-{n % 100}", n) for n in range(2_000)])
    with PostgresProxy(database_url) as proxy:
        publisher = Publisher(Database(proxy.url), MemorySink(), settings(batch_rows=100))
        done = await publisher.run(until_empty=True)
        ran = Counter(statement.split("--")[0][:40] for statement in proxy.statements)
        reads = sum(count for text, count in ran.items() if "outbox_leases" not in text)
    assert done.delivered == 2_000
    rounds = 2_000 / 100
    assert done.statements <= 2 * rounds + 10
    assert reads >= done.statements - 10


async def test_the_database_fails_beside_the_publishing_and_nothing_is_sent_twice(
    database_url: str, writer: Writer
) -> None:
    events = [event(f"car-{n}", n) for n in range(400)]
    writer.write_many(events)
    sink = MemorySink()
    with PostgresProxy(database_url) as proxy:
        proxy.cut("after_sent", 3, matching="DELETE FROM")
        publisher = Publisher(Database(proxy.url), sink, settings(batch_rows=40))
        await publisher.run(until_empty=True)
    assert Counter(message.event_id for message in sink.messages) == Counter(e.id for e in events)


async def test_a_hot_subject_lets_the_others_in(database: Database, writer: Writer) -> None:
    """A round of waves ends after a while, so a new event of another subject is soon read."""

    class Slow(MemorySink):
        async def publish(self, messages: Sequence[Message], /) -> Sequence[Outcome]:
            await anyio.sleep(0.02)
            return await super().publish(messages)

    writer.write_many([event("hot", n) for n in range(200)])
    sink = Slow()
    async with running(Publisher(database, sink, settings())):
        await until(lambda: len(sink.messages) > 3)
        before = len(sink.messages)
        late = event("cold")
        await asyncio.to_thread(writer.write, late)
        await until(lambda: any(message.event_id == late.id for message in sink.messages))
        assert len(sink.messages) - before < 60
        await until(lambda: len(sink.messages) == 201)
    assert in_order(sink.messages)


# --- a broker that fails ---------------------------------------------------------------


async def test_an_outage_of_the_broker_burns_no_attempt_and_ends_with_one_probe(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write_many([event(f"car-{n}", n) for n in range(30)])
    sink = FlakySink()
    rounds: list[RoundEnded] = []
    quick = settings(breaker_failures=3, breaker_open=0.5, attempts=2)

    def watch(fact: Fact, /) -> None:
        if isinstance(fact, RoundEnded):
            rounds.append(fact)

    publisher = Publisher(database, sink, quick, hooks=[watch])
    async with running(publisher):
        await until(lambda: len(sink.asked) >= 4)
        publisher.doorbell(WriteEnded(UUID(int=1), "committed", 1, 0))
        await until(lambda: any(not r.sink_available and r.statements == 0 for r in rounds))
        await until(lambda: len(sink.asked) >= 6)
        assert sql.execute("SELECT count(*) FROM outbox.outbox_failures").fetchone() == (0,)
        sink.down = False
        await until(lambda: len(sink.messages) == 30)
    assert sink.asked[:3] == [30] * 3, "closed: all are tried"
    assert set(sink.asked[3:6]) == {1}, "half open: one is a probe"
    assert sql.execute("SELECT count(*) FROM outbox.dead_letters").fetchone() == (0,)
    assert [m.attempt for m in sink.messages] == [1] * 30


async def test_what_a_part_of_a_broker_leaves_unsent_is_not_asked_for_without_a_pause(
    database: Database, writer: Writer
) -> None:
    class Half(MemorySink):
        asked = 0

        async def publish(self, messages: Sequence[Message], /) -> Sequence[Outcome]:
            self.asked += 1
            return [NotAttempted() for _ in messages]

    writer.write(event("car"))
    sink = Half()
    async with running(Publisher(database, sink, settings(idle_min=0.05, idle_max=10.0))):
        await until(lambda: sink.asked >= 3)
        await anyio.lowlevel.checkpoint()
        assert sink.asked <= 4


async def test_a_failure_goes_on_with_the_new_owner(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    bad = event("car")
    writer.write(bad)
    sink = MemorySink()
    sink.fail(bad.id, Retry("no"), Retry("no"))
    for _ in range(2):
        async with Publisher(database, sink, settings(backoff_base=0.001)) as publisher:
            while not (await publisher.run_once()).failed:
                pass
        found = sql.execute("SELECT event_id, attempts FROM outbox.outbox_failures").fetchall()
    assert found == [(bad.id, 2)]


# --- order -----------------------------------------------------------------------------


async def test_a_poison_message_delays_its_own_subject_only(
    database: Database, writer: Writer
) -> None:
    poison = event("bad")
    rest = [event(f"car-{n % 50}", n) for n in range(1_000)]
    writer.write_many([poison, event("bad", 1), *rest])
    sink = MemorySink()
    sink.fail(poison.id, *[Retry("no")] * 100)
    async with running(Publisher(database, sink, settings(backoff_base=30.0, batch_rows=100))):
        await until(lambda: len(sink.messages) == 1_000)
    assert in_order(sink.messages)
    assert not any(message.key == "Car/bad" for message in sink.messages)


async def test_a_dead_letter_lets_the_rest_of_its_subject_go_in_the_next_round(
    database: Database, writer: Writer
) -> None:
    events = [event("car", n) for n in range(5)]
    writer.write_many(events)
    sink = MemorySink()
    sink.fail(events[0].id, Rejected("never"))
    done = await Publisher(database, sink, settings()).run(until_empty=True)
    assert (done.dead, done.delivered) == (1, 4)
    assert [m.event_id for m in sink.messages] == [e.id for e in events[1:]]


# --- what operators do -----------------------------------------------------------------


async def test_a_running_publisher_notices_that_an_operator_set_a_subject_free(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_subjects, "_REFRESH", 0.05)
    events = [event("car", n) for n in range(3)]
    writer.write_many(events)
    sink = MemorySink()
    sink.fail(events[0].id, Rejected("not yet"))
    blocking = settings(on_dead_letter="block")
    blocked: list[object] = []

    def watch(fact: Fact, /) -> None:
        if isinstance(fact, RoundEnded) and fact.failed:
            blocked.append(fact)

    async with running(Publisher(database, sink, blocking, hooks=[watch])):
        await until(lambda: bool(blocked))
        async with Failures(database) as failures:
            assert [f.event_id async for f in failures.retry(FailureFilter())] == [events[0].id]
        await until(lambda: len(sink.messages) == 3)
    assert in_order(sink.messages)


async def test_a_failed_message_that_an_operator_gave_up_is_not_looked_for_on_and_on(
    database: Database, writer: Writer
) -> None:
    bad = event("car")
    writer.write(bad)
    sink = MemorySink()
    sink.fail(bad.id, Retry("no"))
    rounds: list[RoundEnded] = []

    def watch(fact: Fact, /) -> None:
        if isinstance(fact, RoundEnded):
            rounds.append(fact)

    slow = settings(backoff_base=0.3, idle_max=10.0)
    publisher = Publisher(database, sink, slow, hooks=[watch])
    async with running(publisher):
        await until(lambda: any(fact.failed for fact in rounds))
        async with Failures(database) as failures:
            assert [f.event_id async for f in failures.bury(FailureFilter())] == [bad.id]
        await until(lambda: publisher._relay is not None and not publisher._relay._holds.by_key)
        assert sum(fact.statements or 0 for fact in rounds) < 30


async def test_until_empty_does_not_wait_for_an_operator(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    bad = [event("bad", n) for n in range(3)]
    writer.write_many([*bad, event("good")])
    sink = MemorySink()
    sink.fail(bad[0].id, Rejected("never"))
    with anyio.fail_after(10):
        await Publisher(database, sink, settings(on_dead_letter="block")).run(until_empty=True)
    assert [message.key for message in sink.messages] == ["Car/good"]
    assert sql.execute("SELECT count(*) FROM outbox.outbox").fetchone() == (3,)


async def test_failures_without_a_message_are_swept_away_by_one_publisher(
    database: Database, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "_SWEEP", 0.05)
    sql.execute(
        "INSERT INTO outbox.outbox_failures VALUES (%s, 1, 0, 1, 'late', 'infinity')", [UUID(int=1)]
    )

    def left() -> bool:
        return sql.execute("SELECT 1 FROM outbox.outbox_failures").fetchone() is not None

    async with running(Publisher(database, MemorySink(), settings())):
        await until(lambda: not left())


# --- waking, and what rest costs -------------------------------------------------------


async def test_the_doorbell_wakes_a_publisher_that_sleeps(database: Database) -> None:
    sink = MemorySink()
    publisher = Publisher(database, sink, settings(idle_min=30.0, idle_max=30.0))
    async with running(publisher), AsyncWriter(database, hooks=[publisher.doorbell]) as writer:
        await until(lambda: publisher._relay is not None)
        await writer.write(event("car"))
        await until(lambda: len(sink.messages) == 1)

        def from_a_thread() -> None:
            with Writer(database, hooks=[publisher.doorbell]) as other:
                other.write(event("car-2"))

        await asyncio.to_thread(from_a_thread)
        await until(lambda: len(sink.messages) == 2)


async def test_an_idle_second_costs_a_read_a_second_and_three_statements_a_renewal(
    database_url: str,
    database: Database,  # noqa: ARG001 - the tables
) -> None:
    """Counted at the wire over a time that passes twenty times as fast."""
    quick = PublisherSettings(
        idle_min=0.05, idle_max=0.05, lease=0.5, renew=0.15, margin=0.05, grace=0.1
    )
    with PostgresProxy(database_url) as proxy:
        publisher = Publisher(Database(proxy.url), MemorySink(), quick)
        async with running(publisher):
            await until(lambda: publisher._relay is not None)
            began = monotonic()
            proxy.reset_counts()

            def reads() -> int:
                return sum("AS predecessor" in text for text in proxy.statements)

            await until(lambda: reads() >= 25)
            found, all_of_them, took = reads(), len(proxy.statements), monotonic() - began
    # idle_max is shortened by up to a quarter of jitter.
    assert found <= took / (0.05 * 0.75) + 2
    assert all_of_them - found <= 3 * (took / 0.15 + 1)


async def test_more_shards_are_found_while_it_runs(
    database: Database, sql: psycopg.Connection
) -> None:
    changes: list[ShardsChanged] = []

    def watch(fact: Fact, /) -> None:
        if isinstance(fact, ShardsChanged):
            changes.append(fact)

    quick = settings(lease=1.0, renew=0.3, margin=0.1, grace=0.2)
    async with running(Publisher(database, MemorySink(), quick, hooks=[watch])):
        await until(lambda: bool(changes) and len(changes[-1].owned) == SHARDS)
        apply(database, shards=SHARDS + 3)
        await until(lambda: len(changes[-1].owned) == SHARDS + 3)
    assert changes[0].gained == frozenset(range(SHARDS))
    assert not any(change.lost for change in changes[:-1]), "only the stop gave any up"
    assert sql.execute("SELECT count(owner) FROM outbox.outbox_leases").fetchone() == (0,)
