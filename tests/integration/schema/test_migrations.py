"""Migrations of versions to come: in phases, in pages, interrupted, and several at once."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.support.coming_migrations import NEXT, add_files, finish, labels, shipped_from
from tests.support.dsql.server import beside
from tests.support.waiting import wait_until
from tests.support.watched_databases import Crash, WatchedDatabase, reads

from dsql_outbox.outbox import MAX_TRANSACTION_ROWS, Connection, Database, SchemaError
from dsql_outbox.schema import apply, check, named_statements, plan
from dsql_outbox.schema.migrator import backfill, index_build
from dsql_outbox.schema.migrator.backfill import PAGE_ROWS

ROWS = 250

APPLY = """
import sys
from pathlib import Path
from dsql_outbox.schema import named_statements
named_statements.FOLDER = Path(sys.argv[1])
from dsql_outbox.schema import named_statements
from dsql_outbox.schema.migrator import backfill
backfill.PAGE_ROWS = 100
from dsql_outbox.cli import main
main(["schema", "apply", "--after-deploy", "--database", sys.argv[2]])
"""

EVENTS = (
    "INSERT INTO outbox.business_events SELECT gen_random_uuid(), 'Loan ' || n, 'Loan', NULL,"
    " clock_timestamp(), '{}', '', gen_random_uuid(), 'Loan', n::text, 1, 0, n, 't', '[]'"
    f" FROM generate_series(1, {ROWS}) AS n"
)
ENTITIES = (
    "INSERT INTO outbox.entities SELECT 'Loan', n::text, n, 0, n, 0, '{}', gen_random_uuid(),"
    f" clock_timestamp(), clock_timestamp() FROM generate_series(1, {ROWS}) AS n"
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_build, "_POLL", 0.01)
    monkeypatch.setattr(backfill, "PAGE_ROWS", 100)
    monkeypatch.setattr(
        named_statements,
        "MIGRATION",
        named_statements.MIGRATION._replace(times=7, base=0.01, cap=0.01),
    )


@pytest.fixture
def database(outbox_url: str) -> Database:
    """A database that the version before this one has used."""
    database = Database(outbox_url)
    with Database(beside(outbox_url)).connect() as connection:
        connection.execute(EVENTS)
        connection.execute(ENTITIES)
    return database


@pytest.fixture
def connection(database: Database, outbox_url: str) -> Iterator[Connection]:
    del database  # it is there first
    with Database(beside(outbox_url)).connect() as opened:
        yield opened


@pytest.fixture
def _next(database: Database, tmp_path: Path) -> Iterator[None]:
    """From here on this is a version to come."""
    del database
    add_files(tmp_path, NEXT)
    with shipped_from(tmp_path):
        yield


def one(connection: Connection, query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def deploy_all(database: Database) -> None:
    """What an operator does who goes through both versions; a phase that was done is no harm."""
    with pytest.raises(SchemaError, match="ends the deploy of an earlier version"):
        apply(database)
    apply(database, deploy="after")
    apply(database)
    apply(database, deploy="after")


def assert_done(database: Database) -> None:
    assert check(database) == []
    assert plan(database) == []
    with database.connect() as connection:
        query = "SELECT count(*), bool_and(note = event_name) FROM outbox.business_events"
        assert connection.execute(query).fetchone() == (ROWS, True)
        query = "SELECT count(*), bool_and(rank = version) FROM outbox.entities"
        assert connection.execute(query).fetchone() == (ROWS, True)
        assert is_valid(connection)


def is_valid(connection: Connection) -> bool | None:
    query = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('outbox.by_name')"
    row = connection.execute(query).fetchone()
    return row and row[0]


@pytest.mark.usefixtures("_next")
def test_each_run_is_one_phase_of_one_deploy(database: Database) -> None:
    with pytest.raises(SchemaError) as refused:
        apply(database)
    assert str(refused.value) == (
        "schema outbox lacks migration {}, which ends the deploy of an earlier version and comes "
        "before {}: when no code older than that version runs, run dsql-outbox schema apply "
        "--after-deploy; then dsql-outbox schema apply"
    ).format(*labels("after_note", "rank"))
    assert apply(database, deploy="after").applied == labels("after_note")
    done = apply(database)
    assert (done.applied, tuple(done.waiting)) == (labels("rank"), labels("after_rank"))
    done = apply(database, deploy="after")
    assert (done.applied, done.waiting) == (labels("after_rank"), {})
    assert_done(database)


@pytest.mark.usefixtures("_next")
def test_what_ends_this_versions_deploy_is_planned_and_no_difference(database: Database) -> None:
    names = {drift.name: drift.text.rpartition("run ")[2] for drift in check(database)}
    command = "dsql-outbox schema apply"
    assert names == dict.fromkeys(labels("note", "by_name", "rank"), command) | dict.fromkeys(
        labels("after_note"), f"{command} --after-deploy"
    )
    with pytest.raises(SchemaError):
        apply(database)
    apply(database, deploy="after")
    apply(database)
    assert check(database) == []
    assert [(step.name, step.command) for step in plan(database)] == [
        (*labels("after_rank"), f"{command} --after-deploy")
    ]


@pytest.mark.usefixtures("_next")
def test_tables_that_nobody_has_used_get_all_at_once(outbox_url: str) -> None:
    new = Database(outbox_url, schema="new")
    assert {step.command for step in plan(new)} == {"dsql-outbox schema apply --schema new"}
    done = apply(new)
    assert (len(done.applied), done.waiting) == (done.migrations, {})
    assert (check(new), plan(new)) == ([], [])


@pytest.mark.usefixtures("_next")
def test_a_first_run_that_crashed_goes_on_as_a_first_run(outbox_url: str) -> None:
    def crash(number: int) -> None:
        if number == 30:  # in the middle of the migrations that ship
            raise Crash

    with pytest.raises(Crash):
        apply(WatchedDatabase(outbox_url, "new", crash))
    assert apply(Database(outbox_url, schema="new")).waiting == {}


@pytest.mark.usefixtures("_next")
def test_a_plan_holds_what_apply_sends(database: Database, outbox_url: str) -> None:
    steps = plan(database, shards=20)
    assert plan(database, shards=20) == steps  # nothing was done
    watched = WatchedDatabase(outbox_url)
    with pytest.raises(SchemaError):
        apply(watched, shards=20)
    apply(watched, deploy="after")
    apply(watched)
    apply(watched, deploy="after")
    changes = [text.strip() for text in watched.sent if not reads(text)]
    pages = [text for text in changes if "-- One page" in text]
    planned = [text for step in steps for text in step.statements]
    assert [text for text in planned if "\nUPDATE" not in text] == [
        text for text in changes if text not in pages
    ]
    assert [step.note for step in steps] == [
        "",
        "waits until the index is valid",
        "",
        "in pages of 1000 keys, each a transaction of its own",
        "",
        "in pages of 1000 keys, each a transaction of its own",
    ]


@pytest.mark.usefixtures("_next")
def test_a_page_of_a_backfill_is_a_transaction(database: Database, connection: Connection) -> None:
    deploy_all(database)
    for table in ("business_events", "entities"):
        query = f"SELECT count(*) FROM outbox.{table} GROUP BY xmin::text ORDER BY 1"
        assert connection.execute(query.encode()).fetchall() == [(50,), (100,), (100,)]


def test_a_page_leaves_room_for_rows_that_come_in_while_it_runs() -> None:
    assert 3 * PAGE_ROWS <= MAX_TRANSACTION_ROWS


@pytest.mark.usefixtures("_next")
def test_rows_that_have_their_value_are_not_written_again(
    database: Database, connection: Connection
) -> None:
    with pytest.raises(SchemaError):
        apply(database)
    connection.execute("UPDATE outbox.business_events SET note = 'mine' WHERE position > 200")
    apply(database, deploy="after")
    query = "SELECT note, count(*) FROM outbox.business_events GROUP BY note ORDER BY 2 DESC"
    assert connection.execute(query).fetchone() == ("mine", 50)


@pytest.mark.usefixtures("_next")
def test_a_crash_before_any_change_is_made_good_by_the_next_run(
    database: Database, outbox_url: str, connection: Connection
) -> None:
    whole = WatchedDatabase(outbox_url)
    deploy_all(whole)
    changes = [number for number, text in enumerate(whole.sent) if not reads(text)]
    assert len(changes) == 3 + 5 + 3 * 2  # columns and index, records, pages of two backfills
    for last in changes[::3]:  # a column, records, and pages of both backfills
        undo(connection)
        crashing = WatchedDatabase(outbox_url, before=crash_at(last))
        with pytest.raises(Crash):
            deploy_all(crashing)
        finish(database)
        assert_done(database)


def undo(connection: Connection) -> None:
    for query in (
        "ALTER TABLE outbox.business_events DROP COLUMN note",
        "ALTER TABLE outbox.entities DROP COLUMN rank",
        "DROP INDEX outbox.by_name",
        "DELETE FROM outbox.schema_migrations WHERE name ~ 'note|rank|by_name'",
    ):
        connection.execute(query.encode())


def crash_at(last: int) -> Any:
    def crash(number: int) -> None:
        if number == last:
            raise Crash

    return crash


@pytest.mark.usefixtures("_next")
def test_three_at_once_make_every_change_once(database: Database) -> None:
    start = threading.Barrier(3)

    def run() -> None:
        start.wait()
        finish(database)

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(run) for _ in range(3)]:
            future.result()
    assert_done(database)


@pytest.mark.usefixtures("_next")
def test_each_statement_is_tried_again_after_a_conflict(
    database: Database, outbox_url: str
) -> None:
    states = cycle(["40001", "40P01", "XX000"])

    def conflict(number: int) -> None:
        if number % 2 == 0:
            raise psycopg.errors.lookup(next(states))("schema has been updated (OC001)")

    deploy_all(WatchedDatabase(outbox_url, before=conflict))
    assert_done(database)


@pytest.mark.usefixtures("_next")
def test_an_index_that_a_crash_left_broken_is_built_again(
    database: Database, connection: Connection
) -> None:
    connection.execute("CREATE INDEX by_name ON outbox.business_events (id)")
    connection.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'outbox.by_name'::regclass"
    )
    deploy_all(database)
    assert_done(database)


@pytest.mark.postgres_only("ministack builds an index at once")
@pytest.mark.usefixtures("_next")
def test_an_index_that_another_migrator_builds_is_waited_for(
    database: Database, outbox_url: str, connection: Connection
) -> None:
    with pytest.raises(Crash):
        apply(WatchedDatabase(outbox_url, before=crash_at(5)))
    with Database(beside(outbox_url)).connect() as writer, ThreadPoolExecutor(2) as pool:
        writer.execute("BEGIN")
        writer.execute("UPDATE outbox.business_events SET topic = 'u' WHERE position = 1")
        waited: list[str] = []
        first = pool.submit(deploy_all, database)
        wait_until(lambda: is_valid(connection) is False)
        second = WatchedDatabase(outbox_url, before=lambda _: waited.append(""))
        other = pool.submit(finish, second)
        wait_until(lambda: len(waited) > 20)  # it asks again and again
        assert not [text for text in second.sent if "DROP INDEX" in text or "CREATE INDEX" in text]
        writer.execute("COMMIT")
        first.result()
        other.result()
    assert_done(database)


@pytest.mark.usefixtures("_next")
def test_a_migrator_killed_between_two_pages_leaves_the_rest_to_the_next(
    database: Database, connection: Connection, tmp_path: Path, outbox_url: str
) -> None:
    with pytest.raises(SchemaError):
        apply(database)
    row = connection.execute("SELECT id FROM outbox.business_events ORDER BY id OFFSET 150 LIMIT 1")
    with Database(beside(outbox_url)).connect() as writer:
        writer.execute("BEGIN")
        writer.execute(
            "UPDATE outbox.business_events SET topic = 'u' WHERE id = %s", row.fetchone()
        )
        words = [sys.executable, "-c", APPLY, str(tmp_path), outbox_url]
        process = subprocess.Popen(words)
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: bool(connection.execute(waiting).fetchone()), timeout=20)
        process.kill()
        process.wait()
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM ({waiting}) AS left_behind")
        writer.execute("COMMIT")
    filled = "SELECT count(*) FROM outbox.business_events WHERE note IS NOT NULL"
    assert connection.execute(filled).fetchone() == (100,)
    finish(database)
    assert_done(database)
