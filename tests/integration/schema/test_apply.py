"""The migrator on a real PostgreSQL: repeated, interrupted, and several at once."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.support.database_roles import made_roles
from tests.support.dsql.server import beside
from tests.support.watched_databases import Crash, WatchedDatabase, reads

from dsql_outbox.outbox import Database, SchemaError, SettingsError
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.schema import apply, named_statements
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.migrator import Applied, ddl, remove
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.schema.roles import Roles, grant
from dsql_outbox.schema.tables import expected_shape, migrations, read_shape

LABELS = tuple(migration.label for migration in migrations())


@pytest.fixture
def database(database_url: str) -> Database:
    return Database(database_url)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with Database(beside(database_url)).connect() as opened:
        yield opened


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        named_statements, "MIGRATION", named_statements.MIGRATION._replace(times=7, base=0.0)
    )


def leases(connection: Connection, schema: str = "outbox") -> list[tuple[Any, ...]]:
    query = sql.SQL("SELECT shard, owner, epoch, expires_at FROM {}.outbox_leases ORDER BY shard")
    return connection.execute(query.format(sql.Identifier(schema))).fetchall()


def test_an_empty_database_gets_every_table(database: Database) -> None:
    assert apply(database) == Applied("outbox", LABELS, len(LABELS), 16)
    assert check(database) == []


def test_the_second_time_nothing_is_left_to_do(database: Database) -> None:
    apply(database)
    assert apply(database) == Applied("outbox", (), len(LABELS), 16)


def test_on_tables_that_are_up_to_date_nothing_is_written(database_url: str) -> None:
    apply(Database(database_url))
    read_only = f"{database_url}{'&' if '?' in database_url else '?'}options=-c%20"
    apply(Database(f"{read_only}default_transaction_read_only%3Don"))


def test_the_catalog_equals_what_is_read_from_the_migrations(
    database: Database, connection: Connection
) -> None:
    apply(database)
    assert read_shape(connection, "outbox") == expected_shape()


CATALOG = """
    SELECT c.relname, c.relkind::text, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
      a.attnotnull, a.atthasdef, a.attcollation,
      CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) ELSE (
        SELECT string_agg(pg_get_constraintdef(k.oid), '; ' ORDER BY k.conname)
        FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype <> 'n') END
    FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.relnamespace = 'outbox'::regnamespace ORDER BY c.relname, a.attnum"""
RECORDS = "SELECT version, name, checksum FROM outbox.schema_migrations ORDER BY version"
RIGHTS = """
    SELECT c.relname, a.privilege_type FROM pg_class AS c, aclexplode(c.relacl) AS a
    WHERE c.relnamespace = 'outbox'::regnamespace AND pg_get_userbyid(a.grantee) = %s
    UNION SELECT n.nspname, a.privilege_type FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
    WHERE n.nspname = 'outbox' AND pg_get_userbyid(a.grantee) = %s ORDER BY 1, 2"""


@pytest.mark.postgres_only("the script is run at once")
def test_the_printed_sql_makes_what_apply_and_grant_make(database_url: str) -> None:
    """The tables by the catalog, the records, the leases, and the rights of each role."""

    def made(connection: Connection, roles: Roles) -> list[Any]:
        found = [connection.execute(query).fetchall() for query in (CATALOG, RECORDS)]
        rights = [
            connection.execute(RIGHTS, [role, role]).fetchall() for _, role in roles.assignments()
        ]
        return [*found, leases(connection), *rights]

    database = Database(database_url)
    with made_roles(database_url) as roles, database.connect() as connection:
        apply(database, shards=5)
        grant(database, roles)
        applied = made(connection, roles)
        printed = [ddl("outbox", 5), *grant(database, roles, dry_run=True).statements]
        connection.execute("DROP SCHEMA outbox CASCADE")
        connection.execute(";".join(printed).encode())
        assert made(connection, roles) == applied
    assert {row[0] for row in applied[0] if row[1] in "rv"} == set(expected_shape())
    assert all(applied)
    assert check(database) == []
    assert apply(database) == Applied("outbox", (), len(LABELS), 5)


@pytest.mark.parametrize("schema", ["other", "user"])
def test_two_schemas_live_side_by_side(
    database: Database, database_url: str, connection: Connection, schema: str
) -> None:
    other = Database(database_url, schema=schema)
    apply(database)
    assert [drift.part for drift in check(other)] == ["schema"]
    assert apply(other, shards=3).shards == 3
    assert (len(leases(connection)), len(leases(connection, schema))) == (16, 3)
    assert (check(database), check(other)) == ([], [])


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_five_at_once_make_one_set_of_tables(database_url: str, isolation: Any) -> None:
    for number in range(2):
        database = Database(database_url, schema=f"race_{number}", isolation=isolation)
        start = threading.Barrier(5)

        def run(database: Database = database, start: threading.Barrier = start) -> Applied:
            start.wait()
            return apply(database)

        with ThreadPoolExecutor(5) as pool:
            done = [future.result() for future in [pool.submit(run) for _ in range(5)]]
        assert {found.shards for found in done} == {16}
        assert {label for found in done for label in found.applied} == set(LABELS)
        assert check(database) == []


def test_a_crash_before_any_statement_is_made_good_by_the_next_run(database_url: str) -> None:
    """Each run dies soon: now before the record of its first change, and now after it."""
    whole = WatchedDatabase(database_url, "whole")
    apply(whole)
    runs, is_done = 0, False
    while not is_done:

        def crash(_: int, changes: int = 2 + runs % 2) -> None:
            if sum(not reads(text) for text in crashing.sent) == changes:  # noqa: B023
                raise Crash

        crashing = WatchedDatabase(database_url, before=crash)
        with suppress(Crash):
            apply(crashing)
            is_done = True
        runs += 1
        assert runs < 3 * whole.statements, "the runs come no further"
    assert runs >= 2 * len(LABELS)
    database = Database(database_url)
    assert apply(database) == Applied("outbox", (), len(LABELS), 16)
    assert check(database) == []


@pytest.mark.usefixtures("no_waits")
def test_each_statement_is_tried_again_when_another_was_quicker(database_url: str) -> None:
    states = cycle(["23505", "42P06", "42P07", "42710", "XX000", "40001"])

    def conflict(number: int) -> None:
        if number % 2 == 0:
            raise psycopg.errors.lookup(next(states))

    database = WatchedDatabase(database_url, "outbox", conflict)
    assert apply(database).applied == LABELS
    assert check(database) == []


@pytest.mark.usefixtures("no_waits")
def test_a_conflict_without_end_is_raised_after_eight_tries(database_url: str) -> None:
    def conflict(_: int) -> None:
        raise psycopg.errors.SerializationFailure("change conflicts (OC000)")

    database = WatchedDatabase(database_url, "outbox", conflict)
    with pytest.raises(psycopg.errors.SerializationFailure, match="OC000"):
        apply(database)
    assert database.statements == 8


def test_an_error_that_is_no_race_is_raised_at_once(
    database_url: str, connection: Connection
) -> None:
    connection.execute("CREATE SCHEMA outbox; CREATE TABLE outbox.outbox_backlog (shard int)")
    database = WatchedDatabase(database_url, "outbox", lambda _: None)
    with pytest.raises(psycopg.errors.WrongObjectType):
        apply(database)
    recorded = connection.execute("SELECT max(version) FROM outbox.schema_migrations").fetchone()
    assert recorded == (4,)
    # Two reads of the catalog; two statements for each of 0000 to 0004, and a read; then 0005 once.
    assert database.statements == 2 + 2 * 5 + 1 + 1


def test_every_shard_gets_a_free_lease(database: Database, connection: Connection) -> None:
    apply(database, shards=3)
    assert leases(connection) == [(shard, None, 0, None) for shard in range(3)]


def test_shards_grow_and_the_old_leases_stay(database: Database, connection: Connection) -> None:
    apply(database, shards=2)
    connection.execute("UPDATE outbox.outbox_leases SET owner = 'me', epoch = 7 WHERE shard = 1")
    assert apply(database, shards=4).shards == 4
    assert leases(connection) == [
        (0, None, 0, None),
        (1, "me", 7, None),
        (2, None, 0, None),
        (3, None, 0, None),
    ]


def test_without_a_number_the_shards_stay_as_they_are(database: Database) -> None:
    apply(database, shards=32)
    assert apply(database).shards == 32


def test_shards_do_not_shrink(database: Database, connection: Connection) -> None:
    apply(database, shards=5)
    with pytest.raises(SettingsError, match="has 5 shards and cannot go down to 4"):
        apply(database, shards=4)
    assert len(leases(connection)) == 5


def test_a_gap_in_the_shards_is_filled(database: Database, connection: Connection) -> None:
    apply(database, shards=6)
    connection.execute("DELETE FROM outbox.outbox_leases WHERE shard IN (0, 3)")
    assert apply(database).shards == 6
    assert [row[0] for row in leases(connection)] == list(range(6))


OLD = """
    CREATE SCHEMA outbox;
    CREATE TABLE outbox.schema_migrations (version int PRIMARY KEY, name varchar(255) NOT NULL,
      checksum varchar(64) NOT NULL, applied_at timestamptz NOT NULL);
    CREATE TABLE outbox.outbox (shard int, position bigint, payload text NOT NULL);
    CREATE VIEW outbox.outbox_backlog AS SELECT shard, position FROM outbox.outbox;
    CREATE TABLE outbox.theirs (id int);
    INSERT INTO outbox.schema_migrations SELECT version, name, 'abc', clock_timestamp()
    FROM (VALUES {}) AS of_a_commit (version, name)"""


@pytest.mark.parametrize(
    "recorded",
    ["(4, 'outbox')", "(0, 'schema_migrations'), (11, 'outbox_publishers_lease'), (99, 'more')"],
)
def test_tables_of_an_earlier_commit_are_left_alone_until_they_are_dropped(
    database: Database, connection: Connection, recorded: str
) -> None:
    connection.execute(OLD.format(recorded).encode())
    before = read_shape(connection, "outbox")
    with pytest.raises(SchemaError) as refused:
        apply(database)
    assert "of an earlier commit" in str(refused.value)
    assert str(refused.value).endswith("run dsql-outbox schema drop; then dsql-outbox schema apply")
    assert read_shape(connection, "outbox") == before
    assert sorted(remove(database)) == ["outbox", "outbox_backlog", "schema_migrations"]
    assert [*(read_shape(connection, "outbox") or {})] == ["theirs"]
    assert apply(database) == Applied("outbox", LABELS, len(LABELS), 16)
    assert check(database) == []


def test_a_table_that_was_dropped_comes_back(database: Database, connection: Connection) -> None:
    apply(database)
    connection.execute("DROP TABLE outbox.outbox_replays; DROP VIEW outbox.dead_letter_times")
    assert [label[5:] for label in apply(database).applied] == [
        "dead_letter_times",
        "outbox_replays",
    ]
    assert check(database) == []


def test_removed_tables_leave_nothing_and_may_be_removed_again(
    database: Database, connection: Connection
) -> None:
    apply(database)
    assert sorted(remove(database)) == sorted(expected_shape())
    assert read_shape(connection, "outbox") is None
    assert remove(database) == []


def test_the_schema_public_stays_when_its_last_table_goes(
    database_url: str, connection: Connection
) -> None:
    database = Database(database_url, schema="public")
    apply(database)
    assert sorted(remove(database)) == sorted(expected_shape())
    assert read_shape(connection, "public") == {}


def test_a_newer_database_is_left_to_the_newer_version(
    database: Database, connection: Connection
) -> None:
    apply(database)
    connection.execute(
        "INSERT INTO outbox.schema_migrations VALUES (99, 'future', 'abc', clock_timestamp())"
    )
    assert apply(database).applied == ()
    assert [(drift.part, drift.name) for drift in check(database)] == [("migration", "0099 future")]


def test_orphans_are_found_by_one_key_read_a_shard(
    database: Database, connection: Connection
) -> None:
    apply(database, shards=4)
    connection.execute(
        "INSERT INTO outbox.outbox SELECT n % 3, n, gen_random_uuid(), 0, 'Loan', '1', n, 't',"
        " '{}', '{}', 2, clock_timestamp() FROM generate_series(1, 3000) AS n"
    )
    connection.execute("ANALYZE outbox.outbox")
    query = b"EXPLAIN (ANALYZE, FORMAT JSON) " + statement("shards_orphaned", "outbox")
    row = connection.execute(query).fetchone()
    assert row is not None
    assert sum(rows_read(row[0][0]["Plan"])) < 10


def rows_read(plan: dict[str, Any]) -> Iterator[float]:
    if plan.get("Relation Name") == "outbox":
        yield plan["Actual Rows"] * plan["Actual Loops"]
    for child in plan.get("Plans", ()):
        yield from rows_read(child)
