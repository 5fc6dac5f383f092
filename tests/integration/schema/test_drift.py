"""Every way in which tables may differ: found, told, and mended by what was told."""

import re
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from tests.support.dsql.server import beside

from dsql_outbox.cli import main
from dsql_outbox.outbox import Connection, Database
from dsql_outbox.schema import Drift, check
from dsql_outbox.schema.migrator.migration import migrations

ORPHAN = (
    "INSERT INTO outbox.outbox VALUES (99, 1, gen_random_uuid(), 0, 'Loan', '1', 1, 't',"
    " '{}', '{}', clock_timestamp())"
)

CASES = {
    "schema": ("DROP SCHEMA outbox CASCADE", "missing_schema", "outbox"),
    "table": ("DROP TABLE outbox.entities", "missing_table", "entities"),
    "view": ("DROP VIEW outbox.outbox_backlog", "missing_view", "outbox_backlog"),
    "view for table": (
        "DROP TABLE outbox.entities; CREATE VIEW outbox.entities AS SELECT 1 AS version",
        "missing_table",
        "entities",
    ),
    "table for view": (
        "DROP VIEW outbox.outbox_backlog; CREATE TABLE outbox.outbox_backlog (shard int)",
        "missing_view",
        "outbox_backlog",
    ),
    "column": ("ALTER TABLE outbox.outbox DROP COLUMN topic", "missing_column", "outbox.topic"),
    "more columns": (
        'ALTER TABLE outbox.outbox ADD COLUMN "My note" text',
        "extra_column",
        "outbox.My note",
    ),
    "type": (
        "ALTER TABLE outbox.outbox ALTER COLUMN payload TYPE json USING payload::json",
        "wrong_type",
        "outbox.payload",
    ),
    "length": (
        "ALTER TABLE outbox.outbox ALTER COLUMN topic TYPE varchar(99)",
        "wrong_type",
        "outbox.topic",
    ),
    "null": (
        "ALTER TABLE outbox.outbox ALTER COLUMN topic DROP NOT NULL",
        "wrong_null",
        "outbox.topic",
    ),
    "not null": (
        "ALTER TABLE outbox.business_events ALTER COLUMN created_date SET NOT NULL",
        "wrong_null",
        "business_events.created_date",
    ),
    "key order": (
        (
            "ALTER TABLE outbox.outbox DROP CONSTRAINT outbox_pkey,"
            " ADD PRIMARY KEY (position, shard, event_id)"
        ),
        "wrong_key",
        "outbox",
    ),
    "no key": ("ALTER TABLE outbox.outbox DROP CONSTRAINT outbox_pkey", "wrong_key", "outbox"),
    "view's columns": (
        (
            "DROP VIEW outbox.outbox_backlog;"
            " CREATE VIEW outbox.outbox_backlog AS SELECT shard, created_at FROM outbox.outbox"
        ),
        "wrong_view",
        "outbox_backlog",
    ),
    "not recorded": (
        "DELETE FROM outbox.schema_migrations WHERE version = 4",
        "missing_migration",
        "0004 outbox",
    ),
    "other text": (
        "UPDATE outbox.schema_migrations SET checksum = 'abc' WHERE version = 4",
        "changed_migration",
        "0004 outbox",
    ),
    "no shards": ("DELETE FROM outbox.outbox_leases", "missing_shards", "outbox_leases"),
    "gap": (
        "DELETE FROM outbox.outbox_leases WHERE shard IN (3, 4)",
        "missing_shards",
        "outbox_leases",
    ),
    "first shard": (
        "DELETE FROM outbox.outbox_leases WHERE shard = 0",
        "missing_shards",
        "outbox_leases",
    ),
    "orphan": (ORPHAN, "orphaned_shard", "99"),
}


@pytest.fixture
def database(outbox_url: str) -> Database:
    return Database(outbox_url)


@pytest.fixture
def connection(database: Database, outbox_url: str) -> Iterator[Connection]:
    del database  # it is there first
    with Database(beside(outbox_url)).connect() as opened:
        yield opened


def follow(drift: Drift, connection: Connection, url: str) -> None:
    """Run what the text says to run."""
    commands = re.sub(r" \(Aurora DSQL cannot.*\)", "", drift.text.rpartition("run ")[2])
    for command in re.split(r"; then |; ", commands):
        if command.startswith("dsql-outbox "):
            words = command.split()[1:]
            done = CliRunner().invoke(main, words, env={"DSQL_OUTBOX_DATABASE": url})
            assert done.exit_code == 0, done.output
        else:
            connection.execute(command.encode())


@pytest.mark.parametrize(("damage", "kind", "name"), CASES.values(), ids=CASES)
def test_a_difference_is_found_and_its_command_mends_it(
    outbox_url: str, connection: Connection, damage: str, kind: str, name: str
) -> None:
    database = Database(outbox_url)
    connection.execute(damage.encode())
    found = check(database)
    assert [(drift.kind, drift.name) for drift in found] == [(kind, name)]
    follow(found[0], connection, outbox_url)
    for drift in check(database):  # a column comes back first, then its NOT NULL
        follow(drift, connection, outbox_url)
    assert check(database) == []


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (
            "ALTER TABLE outbox.outbox ALTER COLUMN topic TYPE varchar(99)",
            (
                "column outbox.outbox.topic is character varying(99), "
                "must be character varying(255): "
                'run ALTER TABLE "outbox"."outbox" '
                'ALTER COLUMN "topic" TYPE character varying(255) '
                "(Aurora DSQL cannot: copy the rows into a new table)"
            ),
        ),
        (
            "DELETE FROM outbox.outbox_leases WHERE shard IN (3, 4)",
            "schema outbox lacks the lease rows of shards 3 to 4: run dsql-outbox schema apply",
        ),
        (
            ORPHAN,
            (
                "messages wait in shard 99 of schema outbox, which has no lease row: "
                "run dsql-outbox schema apply --shards 100"
            ),
        ),
        (
            "INSERT INTO outbox.schema_migrations VALUES (99, 'future', '', clock_timestamp())",
            (
                "migration 0099 future of schema outbox comes from a newer version of dsql-outbox; "
                f"this one knows up to {migrations()[-1].version:04}: "
                "run pip install --upgrade dsql-outbox"
            ),
        ),
    ],
)
def test_the_text_says_what_differs_and_what_to_run(
    database: Database, connection: Connection, damage: str, text: str
) -> None:
    connection.execute(damage.encode())
    assert [drift.text for drift in check(database)] == [text]


def test_tables_that_are_not_ours_are_no_difference(
    database: Database, connection: Connection
) -> None:
    connection.execute("CREATE TABLE outbox.theirs (id int)")
    assert check(database) == []


def test_an_empty_schema_is_told_once_for_each_migration(
    database: Database, connection: Connection
) -> None:
    connection.execute("DROP SCHEMA outbox CASCADE; CREATE SCHEMA outbox")
    assert {drift.kind for drift in check(database)} == {"missing_migration"}


def test_every_difference_is_told_at_once(database: Database, connection: Connection) -> None:
    connection.execute("DROP TABLE outbox.entities, outbox.outbox_leases")
    connection.execute("ALTER TABLE outbox.outbox ADD COLUMN note text")
    assert [drift.name for drift in check(database)] == [
        "entities",
        "outbox.note",
        "outbox_leases",
    ]
