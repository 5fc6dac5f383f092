"""Indexes: built in the background on Aurora DSQL's terms, and in killed processes on PostgreSQL's.

That a cluster answers as `DsqlShapedDatabase` does is from its documentation.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.coming_migrations import NEXT, add_files, labels, shipped_from
from tests.support.database_roles import as_role, made_roles
from tests.support.dsql.server import beside
from tests.support.waiting import wait_until
from tests.support.watched_databases import Crash, DsqlShapedDatabase

from dsql_outbox.outbox import Connection, Database, SchemaError
from dsql_outbox.schema import apply, check, plan
from dsql_outbox.schema.migrator import index_build

INDEX = {"by_name": NEXT["by_name"]}

APPLY = """
import sys
from pathlib import Path
from dsql_outbox.schema import named_statements
named_statements.FOLDER = Path(sys.argv[1])
from dsql_outbox.cli import main
main(["schema", "apply", "--database", sys.argv[2]])
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_build, "_POLL", 0.01)


@pytest.fixture
def url(outbox_url: str, tmp_path: Path) -> Iterator[str]:
    """A database that the version before this one has used."""
    add_files(tmp_path, INDEX)
    with shipped_from(tmp_path):
        yield outbox_url


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with Database(beside(url)).connect() as opened:
        yield opened


def is_valid(connection: Connection) -> bool | None:
    query = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('outbox.by_name')"
    row = connection.execute(query).fetchone()
    return row and row[0]


@pytest.mark.postgres_only("it plays DSQL itself")
def test_on_dsql_the_build_is_asked_for_until_the_index_is_valid(url: str) -> None:
    database = DsqlShapedDatabase(url)
    (step,) = plan(database)
    assert "CREATE INDEX ASYNC IF NOT EXISTS by_name" in step.statements[0]
    assert apply(database).applied == labels("by_name")
    assert check(database) == []
    asked = [text for text in database.sent if "FROM sys.jobs" in text]
    assert len(asked) > 3
    assert len([text for text in database.sent if "INDEX ASYNC" in text]) == 1


@pytest.mark.postgres_only("it plays DSQL itself")
@pytest.mark.parametrize(
    ("status", "details", "why"),
    [
        ("failed", "out of temp space", "its job failed: out of temp space"),
        ("completed", "relation was dropped", "its job completed: relation was dropped"),
        ("cancelled", None, "its job cancelled"),
    ],
)
def test_a_build_that_fails_is_tried_three_times_and_its_details_are_told(
    url: str, connection: Connection, status: str, details: str | None, why: str
) -> None:
    database = DsqlShapedDatabase(url, (status, details, False))
    with pytest.raises(SchemaError) as failed:
        apply(database)
    assert str(failed.value) == (
        f"index outbox.by_name could not be built in 3 tries: {why}; "
        "when that is corrected, run dsql-outbox schema apply"
    )
    assert len([text for text in database.sent if "INDEX ASYNC" in text]) == 3
    assert is_valid(connection) is False
    assert apply(DsqlShapedDatabase(url)).applied == labels("by_name")


@pytest.mark.postgres_only("it plays DSQL itself")
def test_dsql_is_told_also_by_those_who_may_not_see_its_jobs(url: str) -> None:
    DsqlShapedDatabase(url)
    with made_roles(url) as roles, Database(as_role(url, roles.operator)).connect() as connection:
        assert index_build.has_jobs(connection)


@pytest.mark.postgres_only("it plays DSQL itself")
def test_a_build_that_goes_on_after_a_crash_is_not_begun_again(
    url: str, connection: Connection
) -> None:
    crashing = DsqlShapedDatabase(url)

    def crash(_: int) -> None:
        if "INDEX ASYNC" in "".join(crashing.sent[:-1]):
            raise Crash

    crashing._before = crash
    with pytest.raises(Crash):
        apply(crashing)
    assert is_valid(connection) is False
    database = DsqlShapedDatabase(url)
    assert apply(database).applied == labels("by_name")
    assert not [text for text in database.sent if "INDEX ASYNC" in text or "DROP" in text]


@pytest.mark.postgres_only("it plays DSQL itself")
def test_a_job_that_dsql_has_forgotten_is_begun_again(url: str, connection: Connection) -> None:
    database = DsqlShapedDatabase(url)
    connection.execute("CREATE INDEX by_name ON outbox.business_events (event_name, id)")
    connection.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'outbox.by_name'::regclass"
    )
    assert apply(database).applied == labels("by_name")
    assert check(database) == []


@pytest.mark.postgres_only("ministack builds an index at once")
def test_a_migrator_killed_in_a_build_leaves_it_to_the_next(
    url: str, connection: Connection, tmp_path: Path
) -> None:
    with Database(beside(url)).connect() as writer:
        writer.execute("BEGIN")
        writer.execute("LOCK TABLE outbox.business_events IN ROW EXCLUSIVE MODE")
        process = subprocess.Popen([sys.executable, "-c", APPLY, str(tmp_path), url])
        wait_until(lambda: is_valid(connection) is False, timeout=20)
        process.kill()
        process.wait()
        assert plan(Database(url))[0].name == labels("by_name")[0]
        writer.execute("COMMIT")
    assert apply(Database(url)).applied == labels("by_name")
    assert check(Database(url)) == []
    assert is_valid(connection) is True


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("DROP INDEX outbox.by_name", "missing_index"),
        (
            "DROP INDEX outbox.by_name; CREATE INDEX by_name ON outbox.outbox (event_id)",
            "wrong_index",
        ),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'outbox.by_name'::regclass",
            "invalid_index",
        ),
    ],
)
def test_an_index_that_differs_is_told_and_mended_by_what_was_told(
    url: str, connection: Connection, damage: str, kind: str
) -> None:
    database = Database(url)
    apply(database)
    connection.execute(damage.encode())
    (drift,) = check(database)
    assert (drift.kind, drift.name) == (kind, "by_name")
    commands = drift.text.rpartition("run ")[2].replace("; then ", "; ").split("; ")
    for command in commands[:-1]:
        connection.execute(command.encode())
    assert commands[-1] == "dsql-outbox schema apply"
    apply(database)
    assert check(database) == []


def test_an_index_of_somebody_else_is_no_difference(url: str, connection: Connection) -> None:
    apply(Database(url))
    connection.execute("CREATE INDEX theirs ON outbox.outbox (topic)")
    assert check(Database(url)) == []
