"""The leases as a relay uses them, on one real PostgreSQL: a task, scopes, and what ends them."""

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from functools import partial

import anyio
import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.running_relays import count, until

from dsql_outbox.outbox import Database, OutboxError, SchemaError
from dsql_outbox.publisher.leases.keeper import Leases
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.liveness import Snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.client]

SHARDS = {0, 1, 2, 3}
QUICK = TunedSettings(lease=1.0, drain=0.4)
LONG = TunedSettings(lease=600.0)


class Relay:
    """What a relay answers to its leases."""

    def __init__(self, database: Database, settings: TunedSettings = QUICK) -> None:
        self.busy: set[int] = set()
        self.progresses = True
        self.changes: list[Collection[int]] = []
        self.leases = Leases(
            database,
            settings,
            self.note,
            busy=lambda: self.busy,
            progresses=lambda: self.progresses,
        )

    def note(self, after: frozenset[int], before: frozenset[int]) -> None:
        """As a hook does that the user gave."""
        assert after != before
        self.changes.append(after)

    def owns(self, shards: int) -> bool:
        """Whether it may send messages of so many shards."""
        return len(self.leases.usable()) == shards


@pytest.fixture
async def relay(database: Database) -> AsyncGenerator[Relay]:
    """A relay that owns all shards."""
    relay = Relay(database)
    async with opened(relay):
        yield relay


@asynccontextmanager
async def opened(*relays: Relay) -> AsyncGenerator[None]:
    """Open the leases, and close them in the end."""
    try:
        for relay in relays:
            await relay.leases.open()
        yield
    finally:
        for relay in relays:
            await relay.leases.close()


def owners(sql: psycopg.Connection) -> list[str | None]:
    """The owner of each shard."""
    found = sql.execute("SELECT owner FROM outbox.outbox_leases ORDER BY shard").fetchall()
    return [owner for (owner,) in found]


# --- what may be sent ------------------------------------------------------------------


async def test_what_is_owned_may_be_sent_under_its_epoch_alone(relay: Relay) -> None:
    assert relay.leases.usable() == dict.fromkeys(SHARDS, 1)
    assert relay.leases.may_send(0, 1)
    assert not relay.leases.may_send(0, 2)
    assert not relay.leases.may_send(9, 1)
    assert relay.changes == [SHARDS]


async def test_a_shard_that_was_lost_and_won_back_has_another_epoch(
    relay: Relay, sql: psycopg.Connection
) -> None:
    with (
        relay.leases.lease_scope(lambda: {0: 1}) as zero,
        relay.leases.lease_scope(lambda: {1: 1}) as one,
    ):
        sql.execute("UPDATE outbox.outbox_leases SET epoch = 7, owner = NULL WHERE shard = 0")
        await until(lambda: relay.leases.usable().get(0) == 8)
        assert not relay.leases.may_send(0, 1)
        assert relay.leases.may_send(0, 8)
        assert (zero.cancel_called, one.cancel_called) == (True, False)


async def test_a_call_is_bound_to_all_of_its_leases(relay: Relay, sql: psycopg.Connection) -> None:
    with (
        relay.leases.lease_scope(lambda: {0: 1, 1: 1}) as both,
        relay.leases.lease_scope(dict) as none,
    ):
        sql.execute("UPDATE outbox.outbox_leases SET epoch = 7, owner = 'b' WHERE shard = 1")
        with anyio.CancelScope(shield=True):
            await until(lambda: both.cancel_called)
    assert not none.cancel_called
    with relay.leases.lease_scope(lambda: {1: 1}) as gone:
        assert gone.cancel_called, "an epoch that is over has no time at all"


async def test_a_shard_whose_messages_are_answered_binds_a_call_no_longer(
    relay: Relay, sql: psycopg.Connection
) -> None:
    waiting = {0: 1, 1: 1}
    with relay.leases.lease_scope(waiting.copy) as scope:
        del waiting[1]
        sql.execute("UPDATE outbox.outbox_leases SET epoch = 7, owner = 'b' WHERE shard = 1")
        await until(lambda: 1 not in relay.leases.shards)
        assert not scope.cancel_called, "the lease of the other message goes on"
        waiting.clear()
        relay.leases.stop()
        await anyio.sleep_forever()
    assert scope.cancelled_caught, "the drain ends a call that does not end by itself"


async def test_a_call_goes_on_while_its_lease_is_renewed(relay: Relay) -> None:
    with relay.leases.lease_scope(lambda: {0: 1}) as scope:
        first = scope.deadline
        await until(lambda: scope.deadline > first + 2 * QUICK.lease)
    assert not scope.cancel_called


# --- drain and release -----------------------------------------------------------------


async def test_who_stops_releases_what_is_idle_at_once_and_the_rest_when_it_is(
    database: Database, sql: psycopg.Connection
) -> None:
    relay = Relay(database, LONG)
    async with opened(relay):
        relay.busy = {2, 3}
        relay.leases.stop()
        assert relay.leases.usable() == {}
        await until(lambda: [owner is None for owner in owners(sql)] == [True, True, False, False])
        assert count(sql, "outbox_publishers") == 0
        relay.busy = {3}
        relay.leases.note_idle_shard()
        await until(lambda: relay.leases.shards == {3})
        relay.busy = set()
        relay.leases.note_idle_shard()
        await until(lambda: owners(sql) == [None] * 4)


async def test_a_shard_that_drains_is_handed_over_when_it_is_idle(database: Database) -> None:
    first, second = Relay(database), Relay(database)
    first.busy = SHARDS
    async with opened(first, second):
        await until(lambda: len(first.leases.usable()) == 2)
        drains = min(SHARDS - first.leases.usable().keys())
        assert not first.leases.may_send(drains, 1)
        with first.leases.lease_scope(lambda: {drains: 1}) as scope:
            assert not scope.cancel_called, "what is on its way goes on"
        assert first.leases.shards == SHARDS
        first.busy = set()
        first.leases.note_idle_shard()
        await until(lambda: first.owns(2) and second.owns(2))


async def test_an_idle_shard_that_stays_causes_no_beat(relay: Relay) -> None:
    relay.leases.note_idle_shard()
    assert not relay.leases._poke.is_set()


async def test_what_is_on_its_way_after_a_stop_ends_with_the_drain(relay: Relay) -> None:
    relay.busy = {0}
    with relay.leases.lease_scope(lambda: {0: 1}) as scope:
        relay.leases.stop()
        assert scope.deadline <= anyio.current_time() + QUICK.drain
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert 0 in relay.leases.shards, "renewed meanwhile: it was busy"


async def test_close_releases_also_what_the_relay_left_busy(
    database: Database, sql: psycopg.Connection
) -> None:
    relay = Relay(database, LONG)
    async with opened(relay):
        relay.busy = SHARDS
    assert owners(sql) == [None] * 4
    assert relay.changes == [SHARDS, set()]
    assert count(sql, "outbox_publishers") == 0


async def test_who_is_cancelled_gives_its_leases_back(
    database: Database, sql: psycopg.Connection
) -> None:
    relay = Relay(database, LONG)
    with anyio.CancelScope() as scope:
        async with opened(relay):
            scope.cancel()
            await anyio.sleep_forever()
    assert owners(sql) == [None] * 4


# --- progress --------------------------------------------------------------------------


async def test_without_progress_others_take_over_until_there_is_some_again(
    database: Database, sql: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, works = Relay(database), Relay(database)
    async with opened(stuck, works):
        await until(lambda: stuck.owns(2) and works.owns(2))
        stuck.busy = set(stuck.leases.shards)
        shard, epoch = next(iter(stuck.leases.usable().items()))
        stuck.progresses = False
        with stuck.leases.lease_scope(lambda: {shard: epoch}) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught, "its lease has ended"
        assert stuck.leases.usable() == {}
        await until(lambda: works.owns(4))
        assert count(sql, "outbox_publishers") == 1
        owner, told = stuck.leases._own.owner, [r for r in caplog.messages if "Took over" in r]
        assert sum(int(line.split()[2]) for line in told) == 2
        assert all(f"from publisher {owner}, which did not renew" in line for line in told)
        caplog.clear()
        stuck.progresses = True
        await until(lambda: stuck.owns(2) and works.owns(2))
        assert not stuck.leases.may_send(shard, epoch)
    assert "Took over" not in caplog.text, "these were given back"


async def test_who_is_alone_goes_on_under_its_epochs_when_there_is_progress_again(
    relay: Relay,
) -> None:
    relay.progresses = False
    await until(lambda: relay.owns(0))
    relay.progresses = True
    await until(lambda: relay.owns(4))
    assert relay.leases.usable() == dict.fromkeys(SHARDS, 1)


# --- what goes wrong -------------------------------------------------------------------


async def test_a_hook_that_raises_at_the_start_leaves_no_leases_behind(
    database: Database, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def note(after: Collection[int], before: Collection[int]) -> None:
        raise ZeroDivisionError(after, before)

    monkeypatch.setattr(Relay, "note", staticmethod(note))
    relay = Relay(database, LONG)
    with pytest.raises(ZeroDivisionError):
        await relay.leases.open()
    assert owners(sql) == [None] * 4
    assert count(sql, "outbox_publishers") == 0
    await relay.leases.close()


async def test_a_hook_that_raises_later_ends_the_relay_and_leaves_no_leases_behind(
    database: Database, sql: psycopg.Connection
) -> None:
    relay = Relay(database)

    def note(after: Collection[int], before: Collection[int]) -> None:
        raise ZeroDivisionError(after, before)

    await relay.leases.open()
    relay.leases._on_change = note
    sql.execute("UPDATE outbox.outbox_leases SET owner = 'b', epoch = 7 WHERE shard = 0")
    await until(partial(_raises, relay, ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        await relay.leases.close()
    assert owners(sql) == ["b", None, None, None]


def _raises(relay: Relay, kind: type[Exception]) -> bool:
    try:
        relay.leases.usable()
    except kind:
        return True
    return False


async def test_what_ends_the_task_that_renews_ends_the_relay(database: Database) -> None:
    relay = Relay(database)

    async def look(*_: object) -> Snapshot:
        raise ZeroDivisionError

    await relay.leases.open()
    relay.leases._table.renew_and_look = look  # type: ignore[method-assign, assignment]
    assert relay.leases._task is not None
    await asyncio.wait({relay.leases._task}, timeout=10)
    with pytest.raises(ZeroDivisionError):
        relay.leases.usable()
    with pytest.raises(ZeroDivisionError):
        await relay.leases.close()


async def test_a_publisher_that_has_ended_says_what_to_do(database: Database) -> None:
    relay = Relay(database)
    async with opened(relay):
        pass
    with pytest.raises(OutboxError, match="create another Publisher"):
        await relay.leases.open()


async def test_tables_that_are_missing_are_said_to_be(database_url: str) -> None:
    relay = Relay(Database(database_url))
    with pytest.raises(SchemaError, match="`dsql-outbox schema apply`"):
        await relay.leases.open()


async def test_a_database_that_falls_silent_is_left_for_a_new_connection(
    database_proxy: PostgresProxy, sql: psycopg.Connection
) -> None:
    relay = Relay(Database(database_proxy.url))
    async with opened(relay):
        await until(lambda: "renewed" in str(database_proxy.statements))
        database_proxy.stall(1, matching="outbox_leases")
        database_proxy.reset_counts()
        await until(lambda: str(database_proxy.statements).count("renewed") >= 2)
        assert relay.owns(4)
        assert set(owners(sql)) == {relay.leases._own.owner}
