"""``dsql-outbox schema plan``, and `apply` in the two phases of a deploy."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.coming_migrations import NEXT, add_files, labels, shipped_from
from tests.support.dsql.server import ON_DSQL

from dsql_outbox.cli import main
from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply, ddl
from dsql_outbox.schema.migrator.migration import migrations

APPLY = "dsql-outbox schema apply"
LAST = {"note": NEXT["note"], "by_name": NEXT["by_name"], "after_note": NEXT["after_note"]}

MODE = "ASYNC" if ON_DSQL else "CONCURRENTLY"


@pytest.fixture
def url(database_url: str, tmp_path: Path) -> Iterator[str]:
    """A database that the version before this one has used."""
    apply(Database(database_url))
    add_files(tmp_path, LAST)
    with shipped_from(tmp_path):
        yield database_url


def run(url: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["schema", *words, "--database", url])


def test_a_plan_is_a_script_with_a_command_for_each_phase(url: str) -> None:
    note, by_name, after_note = labels(*LAST)
    done = run(url, "plan", "--shards", "20")
    assert done.exit_code == 0
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("INSERT", "VALUES"))]
    comments = [line for line in lines if line.startswith("-- ")]
    assert [line for line in comments if "For a test" not in line] == [
        f"-- before the deploy, by {APPLY} --shards 20",
        f"-- {note}",
        "-- Remember that this migration was applied; another process may have been first.",
        f"-- {by_name}, waits until the index is valid",
        "-- Remember that this migration was applied; another process may have been first.",
        "-- shards",
        "-- One lease row per shard; those that exist keep owner and epoch.",
        f"-- after the deploy, by {APPLY} --after-deploy",
        f"-- {after_note}, in pages of 1000 keys, each a transaction of its own",
        "-- Remember that this migration was applied; another process may have been first.",
    ]
    assert (
        f'CREATE INDEX {MODE} IF NOT EXISTS by_name ON "outbox".business_events'
        " (event_name, id);" in lines
    )
    assert run(url, "plan", "--shards", "20").stdout == done.stdout


def test_a_plan_of_an_empty_database_is_what_print_prints(database_url: str) -> None:
    steps = json.loads(run(database_url, "plan", "--json", "--schema", "mine").stdout)
    texts = [f"{text};\n" for step in steps for text in step["statements"]]
    assert "\n".join(texts) == ddl("mine")
    assert {step["command"] for step in steps} == {f"{APPLY} --schema mine"}
    with psycopg.connect(database_url) as connection:
        query = "SELECT count(*) FROM pg_namespace WHERE nspname = 'mine'"
        assert connection.execute(query).fetchone() == (0,)


def test_a_plan_says_when_nothing_is_left(url: str) -> None:
    run(url, "apply")
    run(url, "apply", "--after-deploy")
    assert run(url, "plan").stdout == "-- schema outbox: nothing to do\n"
    assert run(url, "plan", "--json").stdout == "[]\n"


def test_a_plan_refuses_what_apply_refuses(url: str) -> None:
    done = run(url, "plan", "--shards", "8")
    assert done.exit_code == 2
    assert "has 16 shards and cannot go down to 8" in done.stderr


def test_apply_says_what_waits_for_the_deploy_and_does_it_after_that(url: str) -> None:
    note, by_name, after_note = labels(*LAST)
    count = len(migrations())
    assert run(url, "apply").stdout.splitlines() == [
        f"applied {note}",
        f"applied {by_name}",
        f"waiting {after_note}: for {APPLY} --after-deploy",
        f"schema outbox: {count - 1} migrations, 16 shards, 1 waiting",
    ]
    assert run(url, "check").exit_code == 0
    assert run(url, "apply", "--after-deploy").stdout.splitlines() == [
        f"applied {after_note}",
        f"schema outbox: {count} migrations, 16 shards, up to date",
    ]


def test_apply_after_the_deploy_leaves_what_belongs_before_it(url: str) -> None:
    note, by_name, after_note = labels(*LAST)
    count = len(migrations())
    assert run(url, "apply", "--after-deploy").stdout.splitlines() == [
        f"waiting {note}: for {APPLY}",
        f"waiting {by_name}: for {APPLY}",
        f"waiting {after_note}: for {APPLY} --after-deploy",
        f"schema outbox: {count - 3} migrations, 16 shards, 3 waiting",
    ]
