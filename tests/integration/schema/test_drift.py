"""Every way in which tables may differ: found, and told with what corrects it."""

from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from tests.support.dsql.server import beside

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.drift import Drift
from dsql_outbox.schema.tables import expected_shape, migrations

ORPHAN = (
    "INSERT INTO outbox.outbox (shard, position, event_id, previous_position, subject_type,"
    " subject_id, subject_version, topic, headers, payload, payload_size, created_at)"
    " VALUES ({}, 1, gen_random_uuid(), 0, 'Loan', '1', 1, 't', '{{}}', '{{}}', 2, now())"
)
APPLY = "dsql-outbox schema apply"

MENDED = {
    "schema": ("DROP SCHEMA outbox CASCADE", ("missing", "schema", "outbox")),
    "table": ("DROP TABLE outbox.entities", ("missing", "table", "entities")),
    "view": ("DROP VIEW outbox.outbox_backlog", ("missing", "view", "outbox_backlog")),
    "not recorded": (
        "DELETE FROM outbox.schema_migrations WHERE version = 4",
        ("missing", "migration", "0004 outbox"),
    ),
    "no shards": ("DELETE FROM outbox.outbox_leases", ("missing", "shard", "outbox_leases")),
    "gap": (
        "DELETE FROM outbox.outbox_leases WHERE shard IN (3, 4)",
        ("missing", "shard", "outbox_leases"),
    ),
    "first shard": (
        "DELETE FROM outbox.outbox_leases WHERE shard = 0",
        ("missing", "shard", "outbox_leases"),
    ),
    "lease of no shard": (
        "INSERT INTO outbox.outbox_leases (shard, epoch) VALUES (-1, 0)",
        ("extra", "shard", "-1"),
    ),
    "orphan": (ORPHAN.format(99), ("extra", "shard", "99")),
    "orphan of no shard": (ORPHAN.format(3000), ("extra", "shard", "3000")),
}
"""What a command corrects, which the text names."""

TOLD = {
    "table is a view": (
        "DROP TABLE outbox.entities; CREATE VIEW outbox.entities AS SELECT 1 AS version",
        ("different", "table", "entities"),
        f"outbox.entities is a view, must be a table: rename it, then run {APPLY}",
    ),
    "view is a table": (
        "DROP VIEW outbox.outbox_backlog; CREATE TABLE outbox.outbox_backlog (shard int)",
        ("different", "view", "outbox_backlog"),
        f"outbox.outbox_backlog is a table, must be a view: rename it, then run {APPLY}",
    ),
    "column": (
        "ALTER TABLE outbox.outbox DROP COLUMN topic",
        ("missing", "column", "outbox.topic"),
        (
            "column outbox.outbox.topic is missing, must be character varying(255) NOT NULL: "
            "alter the table"
        ),
    ),
    "more columns": (
        'ALTER TABLE outbox.outbox ADD COLUMN "My note" text',
        ("note", "column", "outbox.My note"),
        "column outbox.outbox.My note is unknown to this version: a newer one may have added it",
    ),
    "more columns that are needed": (
        "ALTER TABLE outbox.outbox ADD COLUMN more text NOT NULL",
        ("extra", "column", "outbox.more"),
        (
            "column outbox.outbox.more is unknown to this version: a newer one may have added it. "
            "It is text NOT NULL, so without a default no row can be written: drop NOT NULL"
        ),
    ),
    "type": (
        "ALTER TABLE outbox.outbox ALTER COLUMN topic TYPE varchar(99)",
        ("different", "column", "outbox.topic"),
        (
            "column outbox.outbox.topic is character varying(99) NOT NULL, "
            "must be character varying(255) NOT NULL: alter the table"
        ),
    ),
    "null": (
        "ALTER TABLE outbox.outbox ALTER COLUMN topic DROP NOT NULL",
        ("different", "column", "outbox.topic"),
        (
            "column outbox.outbox.topic is character varying(255), "
            "must be character varying(255) NOT NULL: alter the table"
        ),
    ),
    "not null": (
        "ALTER TABLE outbox.business_events ALTER COLUMN created_date SET NOT NULL",
        ("different", "column", "business_events.created_date"),
        (
            "column outbox.business_events.created_date is timestamp with time zone NOT NULL, "
            "must be timestamp with time zone: alter the table"
        ),
    ),
    "key order": (
        (
            "ALTER TABLE outbox.outbox DROP CONSTRAINT outbox_pkey,"
            " ADD PRIMARY KEY (position, shard, event_id)"
        ),
        ("different", "key", "outbox"),
        (
            "the primary key of outbox.outbox is (position, shard, event_id), "
            "must be (shard, position, event_id): alter the table"
        ),
    ),
    "no key": (
        "ALTER TABLE outbox.outbox DROP CONSTRAINT outbox_pkey",
        ("different", "key", "outbox"),
        (
            "the primary key of outbox.outbox is (), must be (shard, position, event_id): "
            "alter the table"
        ),
    ),
    "view's columns": (
        (
            "DROP VIEW outbox.outbox_backlog;"
            " CREATE VIEW outbox.outbox_backlog AS SELECT shard, created_at FROM outbox.outbox"
        ),
        ("missing", "column", "outbox_backlog.position"),
        (
            f"column outbox.outbox_backlog.position is missing, must be bigint: drop the view, "
            f"then run {APPLY}"
        ),
    ),
    "newer": (
        "INSERT INTO outbox.schema_migrations VALUES (99, 'future', '', clock_timestamp())",
        ("note", "migration", "0099 future"),
        (
            "migration 0099 future of schema outbox comes from a newer version of dsql-outbox; "
            f"this one knows up to {migrations()[-1].version:04}, and runs beside the newer one "
            "and after it"
        ),
    ),
    "older": (
        "UPDATE outbox.schema_migrations SET checksum = 'abc' WHERE version = 4",
        ("different", "schema", "outbox"),
        (
            "the tables of schema outbox are of an earlier commit (0004 outbox), older than "
            "version 1, and cannot be upgraded: to start anew without their data, run "
            f"dsql-outbox schema drop; then {APPLY}"
        ),
    ),
}
"""What a person must look at."""


@pytest.fixture
def database(outbox_url: str) -> Database:
    return Database(outbox_url)


@pytest.fixture
def connection(database: Database, outbox_url: str) -> Iterator[Connection]:
    del database  # it is there first
    with Database(beside(outbox_url)).connect() as opened:
        yield opened


def brief(drift: Drift) -> tuple[str, str, str]:
    return drift.difference, drift.part, drift.name


def follow(drift: Drift, connection: Connection, url: str) -> None:
    """Run what the text says to run."""
    command = drift.text.rpartition(": run ")[2]
    if command.startswith("dsql-outbox "):
        done = CliRunner().invoke(main, [*command.split()[1:], "--database", url])
        assert done.exit_code == 0, done.output
    else:
        connection.execute(command.encode())


@pytest.mark.parametrize(("damage", "told"), MENDED.values(), ids=MENDED)
def test_a_difference_is_found_and_its_command_mends_it(
    outbox_url: str, connection: Connection, damage: str, told: tuple[str, str, str]
) -> None:
    database = Database(outbox_url)
    connection.execute(damage.encode())
    found = check(database)
    assert [brief(drift) for drift in found] == [told]
    follow(found[0], connection, outbox_url)
    assert check(database) == []


@pytest.mark.parametrize(("damage", "told", "text"), TOLD.values(), ids=TOLD)
def test_the_text_says_what_differs(
    database: Database, connection: Connection, damage: str, told: tuple[str, str, str], text: str
) -> None:
    connection.execute(damage.encode())
    (drift,) = check(database)
    assert (brief(drift), drift.text) == (told, text)


def test_tables_that_are_not_ours_are_no_difference(
    database: Database, connection: Connection
) -> None:
    connection.execute("CREATE TABLE outbox.theirs (id int)")
    assert check(database) == []


def test_an_empty_schema_lacks_every_table_and_view(
    database: Database, connection: Connection
) -> None:
    connection.execute("DROP SCHEMA outbox CASCADE; CREATE SCHEMA outbox")
    found = check(database)
    assert {drift.difference for drift in found} == {"missing"}
    assert [drift.name for drift in found] == list(expected_shape())


def test_every_difference_is_told_at_once(database: Database, connection: Connection) -> None:
    connection.execute("DROP TABLE outbox.entities, outbox.outbox_leases")
    connection.execute("ALTER TABLE outbox.outbox ADD COLUMN note text")
    assert [drift.name for drift in check(database)] == [
        "entities",
        "outbox.note",
        "outbox_leases",
    ]
