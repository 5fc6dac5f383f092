"""The statements of the lease protocol on one real PostgreSQL, in both forms."""

import math
from collections.abc import AsyncGenerator

import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy

from dsql_outbox.outbox import Database
from dsql_outbox.publisher.leases.ownership import Ownership
from dsql_outbox.publisher.leases.protocol import Beats
from dsql_outbox.publisher.leases.table import SqlLeaseTable
from dsql_outbox.publisher.tuned_settings import TunedSettings

pytestmark = pytest.mark.anyio

LONG = TunedSettings(lease=60.0)
BEAT = "WITH renewed AS"


@pytest.fixture
async def table(database: Database) -> AsyncGenerator[SqlLeaseTable]:
    table = SqlLeaseTable(database, LONG)
    yield table
    table.drop()


@pytest.fixture
async def through(database_proxy: PostgresProxy) -> AsyncGenerator[SqlLeaseTable]:
    """The same tables, behind the database_proxy."""
    table = SqlLeaseTable(Database(database_proxy.url), LONG)
    yield table
    table.drop()


def seconds_left(sql: psycopg.Connection, shard: int) -> float:
    found = sql.execute(
        "SELECT extract(epoch FROM expires_at - clock_timestamp())"
        " FROM outbox.outbox_leases WHERE shard = %s",
        [shard],
    ).fetchone()
    assert found
    return float(found[0])


async def test_of_two_who_take_a_shard_one_wins(database: Database, table: SqlLeaseTable) -> None:
    other = SqlLeaseTable(database, LONG)
    assert await table.take("a", {0: 0, 1: 0}, {}) == {0, 1}
    assert await other.take("b", {1: 0, 2: 0}, {}) == {2}
    assert await other.take("b", {1: 1}, {}) == set(), "the lease has not ended"
    other.drop()


async def test_a_statement_that_is_late_changes_nothing_that_happened_since(
    table: SqlLeaseTable,
) -> None:
    assert await table.take("a", {0: 0}, {}) == {0}
    assert await table.take("a", {0: 1}, {}) == {0}, "as after an answer that was lost"
    assert await table.renew("a", {0: 1}) == set()
    assert await table.release("a", {0: 1}) == set()
    assert await table.take("a", {0: 0}, {}) == set()
    assert await table.renew("b", {0: 2}) == set()
    assert await table.release("b", {0: 2}) == set()
    assert await table.release("a", {0: 2}) == {0}
    assert await table.take("b", {0: 2}, {}) == {0}


async def test_a_lease_can_be_taken_when_it_ended_and_the_grace_is_over(
    table: SqlLeaseTable, sql: psycopg.Connection
) -> None:
    await table.take("a", {0: 0}, {})
    for ended, taken in ((LONG.grace / 2, set[int]()), (1.5 * LONG.grace, {0})):
        sql.execute(
            "UPDATE outbox.outbox_leases SET expires_at = clock_timestamp() - %s * interval '1 s'",
            [ended],
        )
        assert await table.take("b", {0: 1}, {}) == taken


async def test_a_lease_that_nobody_renewed_can_be_taken_whatever_the_clock_of_the_database_says(
    table: SqlLeaseTable, sql: psycopg.Connection
) -> None:
    await table.take("dead", {0: 0, 1: 0}, {})
    sql.execute("UPDATE outbox.outbox_leases SET expires_at = expires_at + interval '300 s'")
    seen = {lease.shard: lease for lease in (await table.look()).leases}
    assert seen[0].expires_in > 299
    ended = {shard: seen[shard].expires_at for shard in (0, 1)}
    assert None not in ended.values()
    await table.renew("dead", {1: 1})
    assert await table.take("b", {0: 1, 1: 1}, {}) == set()
    assert await table.take("b", {0: 1, 1: 1}, ended) == {0}, "the other one was renewed"  # type: ignore[arg-type]


async def test_a_look_tells_times_by_the_clock_of_the_database(table: SqlLeaseTable) -> None:
    await table.announce("a", waits=False)
    await table.take("a", {1: 0}, {})
    seen = await table.look()
    assert [(each.shard, each.owner, each.epoch) for each in sorted(seen.leases)] == [
        (0, None, 0), (1, "a", 1), (2, None, 0), (3, None, 0),
    ]  # fmt: skip
    assert 30 < sorted(seen.leases)[1].expires_in <= 60
    assert min(seen.leases).expires_in == -math.inf
    assert [peer.owner for peer in seen.peers] == ["a"]
    assert 0 <= seen.peers[0].age < 30
    await table.withdraw("a")
    assert (await table.look()).peers == []


async def test_a_conflict_on_many_rows_is_asked_again_row_by_row(
    database_proxy: PostgresProxy, through: SqlLeaseTable
) -> None:
    await through.take("a", {0: 0, 1: 0, 2: 0}, {})
    database_proxy.refuse(3, matching="outbox_leases")
    database_proxy.reset_counts()
    assert await through.renew("a", {0: 1, 1: 1, 2: 1}) == {0, 1, 2}
    assert len(database_proxy.statements) == 6, (
        "all at once, the first three times, the others once"
    )
    ended = {lease.shard: lease.expires_at for lease in (await through.look()).leases}
    database_proxy.refuse(1, matching="outbox_leases")
    assert await through.take("b", {0: 1, 1: 1}, ended) == {0, 1}  # type: ignore[arg-type]


# --- one statement for all of it -------------------------------------------------------


async def test_one_statement_renews_announces_and_shows_what_was_there_before(
    table: SqlLeaseTable, sql: psycopg.Connection
) -> None:
    await table.take("a", {0: 0, 1: 0, 2: 0}, {})
    await table.take("b", {3: 0}, {})
    sql.execute("UPDATE outbox.outbox_leases SET expires_at = clock_timestamp() - interval '1 h'")
    found = await table.renew_and_look("a", {0: 1, 1: 0, 3: 1})
    assert found
    assert found.shards == {0}, "not the one of another epoch, not the one of another owner"
    assert seconds_left(sql, 0) > 30
    assert max(seconds_left(sql, shard) for shard in (1, 2, 3)) < 0
    shown = sorted(found.seen.leases)
    assert [lease[:3] for lease in shown] == [(0, "a", 1), (1, "a", 1), (2, "a", 1), (3, "b", 1)]
    assert -3630 < shown[0].expires_in < -3570, "before the renewal"
    assert found.seen.peers == [], "before the announcement"
    ((owner, lease),) = sql.execute("SELECT owner, lease_seconds FROM outbox.outbox_publishers")
    assert (owner, lease) == ("a", 60.0)
    found = await table.renew_and_look("a", {})
    assert found
    assert [(peer.owner, peer.lease) for peer in found.seen.peers] == [("a", 60.0)]
    assert found.shards == set()


async def test_a_free_lease_shows_as_one_that_never_was(table: SqlLeaseTable) -> None:
    found = await table.renew_and_look("a", {})
    assert found
    assert {lease.expires_in for lease in found.seen.leases} == {-math.inf}


@pytest.mark.parametrize("sqlstate", ["0A000", "42601", "42804"])
async def test_a_database_that_has_no_such_statement_is_asked_once(
    database_proxy: PostgresProxy, through: SqlLeaseTable, sql: psycopg.Connection, sqlstate: str
) -> None:
    await through.take("a", {0: 0}, {})
    database_proxy.refuse(None, sqlstate=sqlstate, message="not supported", matching=BEAT)
    database_proxy.reset_counts()
    for _ in range(2):
        assert await through.renew_and_look("a", {0: 1}) is None
    assert len(database_proxy.statements) == 1
    assert sql.execute("SELECT FROM outbox.outbox_publishers").fetchall() == []


async def test_a_server_that_fails_has_not_refused_the_statement(
    database_proxy: PostgresProxy, through: SqlLeaseTable
) -> None:
    database_proxy.refuse(1, sqlstate="XX000", message="server unavailable", matching=BEAT)
    with pytest.raises(psycopg.errors.InternalError):
        await through.renew_and_look("a", {})
    assert await through.renew_and_look("a", {}) is not None


async def test_after_a_conflict_the_beat_is_done_in_steps(
    database_proxy: PostgresProxy, through: SqlLeaseTable, sql: psycopg.Connection
) -> None:
    own = Ownership("me", LONG)
    beats = Beats(own, through, lambda: 0.0, busy=tuple, progresses=lambda: True)
    for _ in range(2):
        await beats.beat()
    database_proxy.refuse(1, matching=BEAT)
    database_proxy.reset_counts()
    sql.execute("UPDATE outbox.outbox_leases SET expires_at = clock_timestamp() - interval '1 h'")
    await beats.beat()
    assert len(database_proxy.statements) == 4, "all in one, look, renew, announce"
    assert own.shards == {0, 1, 2, 3}
    assert seconds_left(sql, 0) > 30
    database_proxy.reset_counts()
    await beats.beat()
    assert len(database_proxy.statements) == 1


async def test_a_statement_without_an_answer_ends_when_the_next_is_due(
    database_proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # of `patient_beats`
    table = SqlLeaseTable(Database(database_proxy.url), TunedSettings(lease=4.0))
    await table.renew_and_look("a", {})
    database_proxy.stall(1, matching=BEAT)
    with pytest.raises(psycopg.OperationalError, match="before the deadline"):
        await table.renew_and_look("a", {})
    assert await table.renew_and_look("a", {}) is not None, "on a new connection"
    table.drop()


async def test_a_connection_is_left_before_the_server_closes_it(
    table: SqlLeaseTable,
) -> None:
    await table.look()
    first = table._connection.current
    assert first is not None
    first.retires_at = 0.0
    await table.look()
    assert first.closed
    assert table._connection.current is not first
