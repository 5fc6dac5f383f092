"""Which publishers are alive: by the lease that each has written of itself."""

from collections.abc import AsyncGenerator, Sequence

import psycopg
import pytest

from dsql_outbox.outbox import Database, SchemaError
from dsql_outbox.publisher.leases.keeper import Leases, boot_time
from dsql_outbox.publisher.leases.ownership import Ownership
from dsql_outbox.publisher.leases.protocol import Beats
from dsql_outbox.publisher.leases.table import SqlLeaseTable
from dsql_outbox.publisher.tuned_settings import TunedSettings

pytestmark = [pytest.mark.anyio, pytest.mark.client]

QUICK = TunedSettings(lease=1.0)


@pytest.fixture
async def table(database: Database) -> AsyncGenerator[SqlLeaseTable]:
    table = SqlLeaseTable(database, QUICK)
    yield table
    table.drop()


async def test_publishers_that_died_ten_leases_of_theirs_ago_are_forgotten(
    table: SqlLeaseTable, sql: psycopg.Connection
) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox_publishers (owner, lease_seconds, seen_at, paused, target)"
        " SELECT owner, lease, clock_timestamp() - age * interval '1 s', '[]', 'default'"
        " FROM (VALUES ('short', 1, 9), ('short and dead', 1, 11), ('long', 60, 590),"
        " ('long and dead', 60, 610)) AS v(owner, lease, age)"
    )
    await table.announce("me", waits=False)
    await table.prune()
    left = {peer.owner for peer in (await table.look()).peers}
    assert left == {"me", "short", "long"}


@pytest.mark.parametrize(
    ("lease", "ages", "shares"),
    [(60, (31, 30), 2), (10, (6, 5), 2), (0.2, (0.8, 0.7), 4)],
)
async def test_another_gets_a_share_for_a_lease_of_its_own_whatever_ours_is(
    table: SqlLeaseTable,
    sql: psycopg.Connection,
    lease: float,
    ages: Sequence[float],
    shares: int,
) -> None:
    """It is seen at two moments."""
    own = Ownership("me", QUICK)
    beats = Beats(own, table, boot_time, busy=tuple, progresses=lambda: True)
    for age in ages:
        sql.execute(
            "INSERT INTO outbox.outbox_publishers (owner, lease_seconds, seen_at, paused, target)"
            " VALUES ('other', %s, clock_timestamp() - %s * interval '1 s', '[]', 'default')"
            " ON CONFLICT (owner) DO UPDATE SET seen_at = EXCLUDED.seen_at",
            (lease, age),
        )
        await beats.beat()
    assert len(own.shards) == shares


async def test_tables_of_the_version_before_are_said_to_be_too_old(
    database: Database, sql: psycopg.Connection
) -> None:
    sql.execute("ALTER TABLE outbox.outbox_publishers DROP COLUMN lease_seconds")
    leases = Leases(database, QUICK, lambda *_: None, busy=tuple, progresses=lambda: True)
    with pytest.raises(SchemaError, match=r"schema outbox is older .* `dsql-outbox schema apply`"):
        await leases.open()
