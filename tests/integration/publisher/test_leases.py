"""Publishers share the shards of one real PostgreSQL, and take over from each other."""

from collections.abc import Sequence
from functools import partial

import anyio
import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.running_relays import count, event, relayed, running, until

from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import Answer, Publisher, Retry
from dsql_outbox.publisher.leases import ownership
from dsql_outbox.publisher.relay import reader
from dsql_outbox.publisher.relay.memory import breaker
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

SHARDS = 4
QUICK = {"lease": 1.0, "idle_max": 0.05}


def settings(**others: object) -> TunedSettings:
    return TunedSettings(**(QUICK | others))  # type: ignore[arg-type]


def owners(sql: psycopg.Connection) -> dict[str, int]:
    """How many shards each publisher owns."""
    found = sql.execute(
        "SELECT owner, count(*) FROM outbox.outbox_leases WHERE owner IS NOT NULL"
        " AND expires_at > clock_timestamp() GROUP BY owner"
    ).fetchall()
    return dict(found)


def ends(sql: psycopg.Connection) -> float:
    """When the first lease ends, by the database's clock."""
    ((at,),) = sql.execute(
        "SELECT extract(epoch FROM min(expires_at)) FROM outbox.outbox_leases"
    ).fetchall()
    return float(at)


def epochs(sql: psycopg.Connection) -> list[int]:
    """How often each shard was taken."""
    return [epoch for (epoch,) in sql.execute("SELECT epoch FROM outbox.outbox_leases")]


class Gate(MemorySink):
    """A sink whose calls wait until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = anyio.Event()
        self.opened = anyio.Event()
        self.was_cut = False

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        self.waiting.set()
        try:
            await self.opened.wait()
        except BaseException:
            self.was_cut = True
            raise
        await super().publish(messages, answer)


# --- many publishers -------------------------------------------------------------------


async def test_publishers_share_the_shards_and_a_newcomer_gets_its_share(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    sink = MemorySink()
    first, second, third = (Publisher(database, sink, settings()) for _ in range(3))
    async with running(first):
        await until(lambda: sorted(owners(sql).values()) == [4])
        async with running(second):
            await until(lambda: sorted(owners(sql).values()) == [2, 2])
            async with running(third):
                await until(lambda: count(sql, "outbox_publishers") == 3)
                for n in range(60):
                    writer.write(event(f"car-{n % 12}", n))
                await until(lambda: len(sink.messages) == 60)
        await until(lambda: sorted(owners(sql).values()) == [4])
    assert owners(sql) == {}
    assert count(sql, "outbox_publishers") == 0
    for key in {message.key for message in sink.messages}:
        mine = [int(m.headers["sequence"]) for m in sink.messages if m.key == key]
        assert mine == sorted(mine)


async def test_who_stops_releases_at_once(database: Database, sql: psycopg.Connection) -> None:
    slow = {"lease": 4.0}
    first, second = (Publisher(database, MemorySink(), settings(**slow)) for _ in range(2))
    async with running(first):
        async with running(second):
            await until(lambda: sorted(owners(sql).values()) == [2, 2])
        await until(lambda: list(owners(sql).values()) == [4], seconds=2)


async def test_who_gets_a_shard_looks_at_it_at_once(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = MemorySink()
    monkeypatch.setattr(reader, "_FIRST_WAIT", 60.0)
    sleepy = settings(idle_max=60.0)
    first, second = (Publisher(database, sink, sleepy) for _ in range(2))
    async with running(second):
        async with running(first):
            await until(lambda: sorted(owners(sql).values()) == [2, 2])
            for n in range(20):
                writer.write(event(f"car-{n}"))
        await until(lambda: sink.messages != [])


async def test_a_message_names_the_epoch_of_its_lease(database: Database, writer: Writer) -> None:
    sink = MemorySink()
    for n in range(2):
        writer.write(event("car", n))
        await Publisher(database, sink, settings()).run(until_empty=True)
    assert [message.headers["leaseepoch"] for message in sink.messages] == ["1", "2"]


async def test_shards_of_another_are_left_alone(database: Database, writer: Writer) -> None:
    sink, other = Gate(), MemorySink()
    async with Publisher(database, sink, settings(lease=60.0)):
        writer.write(event("car"))
        await sink.waiting.wait()
        with anyio.fail_after(5):
            assert (await relayed(database, other)).read == 0
        sink.opened.set()
        await sink.published(1)


async def test_until_empty_waits_for_the_shards_of_others(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    sink = Gate()
    writer.write(event("car"))
    owner = Publisher(database, sink, settings())
    async with running(owner), anyio.create_task_group() as group:
        await sink.waiting.wait()
        done: list[int] = []

        async def empty() -> None:
            total = await Publisher(database, MemorySink(), settings()).run(until_empty=True)
            done.append(total.delivered)

        group.start_soon(empty)
        await until(lambda: count(sql, "outbox_publishers") == 2)
        assert not done
        sink.opened.set()
        await until(lambda: done == [0])
    assert len(sink.messages) == 1


async def test_until_empty_asks_less_and_less_often(
    database: Database, writer: Writer, outbox_url: str
) -> None:
    def asked() -> int:
        return sum("WITH page AS" in text for text in proxy.statements)

    sink = Gate()
    writer.write(event("car"))
    with PostgresProxy(outbox_url) as proxy:
        async with Publisher(database, sink, settings()), anyio.create_task_group() as group:
            await sink.waiting.wait()
            other = Publisher(Database(proxy.url), MemorySink(), settings(idle_max=10.0))
            group.start_soon(partial(other.run, until_empty=True))
            await until(lambda: asked() >= 1)
            began = anyio.current_time()
            await until(lambda: asked() >= 5)
            assert anyio.current_time() - began > 0.2
            other.stop()
            sink.opened.set()


# --- slow brokers, and none ------------------------------------------------------------


async def test_a_slow_broker_does_not_stop_renewals(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    sink = Gate()
    writer.write(event("car"))
    lease = 3.0
    async with running(Publisher(database, sink, settings(lease=lease))):
        await sink.waiting.wait()
        first = ends(sql)
        await until(lambda: ends(sql) - first > lease)  # so it was renewed after `first`
        assert list(owners(sql).values()) == [SHARDS]
        sink.opened.set()
        await until(lambda: count(sql, "outbox") == 0)
    assert not sink.was_cut
    assert [message.attempt for message in sink.messages] == [1]


async def test_who_cannot_renew_ends_its_sending_and_another_takes_over(
    database: Database, writer: Writer, sql: psycopg.Connection, outbox_url: str
) -> None:
    sink, other = Gate(), MemorySink()
    writer.write(event("car"))
    with PostgresProxy(outbox_url) as proxy:
        async with running(Publisher(Database(proxy.url), sink, settings())):
            await sink.waiting.wait()
            proxy.stall(None, matching="outbox_leases")
            async with running(Publisher(database, other, settings())):
                await until(lambda: sink.was_cut)
                assert other.messages == [], "who takes over waits for the grace"
                await until(lambda: epochs(sql) == [2] * SHARDS)
                await until(lambda: len(other.messages) == 1)
                proxy.heal()
                await until(lambda: sorted(owners(sql).values()) == [2, 2])
    assert [message.attempt for message in other.messages] == [1]
    assert count(sql, "outbox_failures") == 0


async def test_a_failure_in_a_shard_that_was_lost_is_not_recorded(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    class Stubborn(Gate):
        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            with anyio.CancelScope(shield=True):
                await super().publish(messages, lambda index, _: answer(index, Retry("late")))

    sink = Stubborn()
    writer.write(event("car"))
    async with running(publisher := Publisher(database, sink, settings())):
        await sink.waiting.wait()
        sql.execute(
            "UPDATE outbox.outbox_leases SET owner = 'other', epoch = epoch + 1,"
            " expires_at = clock_timestamp() + interval '1 h'"
        )
        await until(lambda: not publisher._leases.usable())
        sink.opened.set()
        await until(lambda: len(sink.messages) == 1)
    assert count(sql, "outbox_failures") == 0
    assert count(sql, "outbox") == 1


async def test_a_wait_after_a_failure_is_forgotten_with_its_shard(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    bad, successor = event("car", 1), event("car", 2)
    writer.write(bad)
    sink = MemorySink()
    sink.fail(bad.id, Retry("no"))
    async with running(publisher := Publisher(database, sink, settings(backoff_base=300.0))):
        await until(lambda: count(sql, "outbox_failures") == 1)
        sql.execute("UPDATE outbox.outbox_leases SET owner = 'other', epoch = epoch + 1")
        await until(lambda: not publisher._leases.shards)
        for table in ("outbox", "outbox_failures"):  # as the other does when it has sent it
            sql.execute(f"DELETE FROM outbox.{table}")  # type: ignore[arg-type]
        writer.write(successor)
        sql.execute("UPDATE outbox.outbox_leases SET owner = NULL")
        await until(lambda: sink.ids == [successor.id])


async def test_when_only_ones_own_broker_fails_another_gets_the_shards(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, works = MemorySink(), MemorySink()
    broken.down = True
    for n in range(20):
        writer.write(event(f"car-{n}"))
    monkeypatch.setattr(breaker, "FAILURES", 1)
    monkeypatch.setattr(breaker, "OPEN_FOR", 0.1)
    monkeypatch.setattr(ownership, "REST", 1_000)
    patient = settings(broker_patience=0.5)
    async with running(Publisher(database, broken, patient)):
        await until(lambda: list(owners(sql).values()) == [SHARDS])
        (first,) = owners(sql)
        async with running(Publisher(database, works, patient)):
            await until(lambda: len(works.messages) == 20)
            await until(lambda: list(owners(sql).values()) == [SHARDS])
            assert first not in owners(sql)
            assert broken.messages == []
            broken.down = False  # it takes part again without a message to try the broker with
            await until(lambda: len(owners(sql)) == 2)
