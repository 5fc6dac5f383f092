"""``dsql-outbox schema`` on a real PostgreSQL: what it prints and how it ends."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psycopg
from click.testing import CliRunner, Result

from dsql_outbox.cli.database_options import open_database
from dsql_outbox.cli.main import main
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.migrator import ddl
from dsql_outbox.schema.tables import migrations

BIN = Path(sys.executable).parent
COUNT = len(migrations())


def run(*words: str, env: Mapping[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["schema", *words], env=env)


def python(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | dict(env or {})
    )


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def test_database_and_schema_may_come_from_the_environment(database_url: str) -> None:
    env = {"DSQL_OUTBOX_DATABASE": database_url, "DSQL_OUTBOX_SCHEMA": "mine"}
    assert run("apply", env=env).stdout.endswith(
        f"schema mine: {COUNT} migrations, 16 shards, up to date\n"
    )
    assert run("check", "--schema", "mine", env=env).stdout == "schema mine: no difference\n"
    assert run("check", "--schema", "outbox", env=env).exit_code == 1


def test_print_is_what_apply_runs() -> None:
    done = run("print", "--schema", "mine", "--shards", "3")
    assert (done.exit_code, done.stdout) == (0, ddl("mine", 3))


def test_the_printed_sql_passes_the_linter_of_aurora_dsql() -> None:
    printed = python("-m", "dsql_outbox", "schema", "print")
    linted = subprocess.run(
        [BIN / "dsql-lint", "-"], input=printed.stdout, capture_output=True, text=True, check=False
    )
    assert (linted.returncode, linted.stdout, linted.stderr.strip()) == (
        0,
        "",
        "All statements compatible with DSQL.",
    )


def test_the_installed_command_works_in_a_process_of_its_own(database_url: str) -> None:
    done = subprocess.run(
        [BIN / "dsql-outbox", "schema", "apply", "--database", database_url],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith(f"schema outbox: {COUNT} migrations, 16 shards, up to date\n")


def test_an_embedded_database_comes_with_its_tables() -> None:
    with open_database("embedded:", "mine") as database:
        assert check(database) == []


def test_an_embedded_database_in_a_folder_keeps_its_tables(folder: Path) -> None:
    url = f"embedded:{folder}/data"
    assert run("check", "--database", url).stdout.startswith("schema outbox is missing")
    assert run("apply", "--database", url, "--shards", "2").exit_code == 0
    assert run("check", "--database", url).stdout == "schema outbox: no difference\n"


def test_help_and_version_import_neither_driver_nor_screen() -> None:
    code = (
        "import sys; from dsql_outbox.cli import main; main([sys.argv[1]], standalone_mode=False);"
        "print(sorted({'psycopg', 'rich', 'opentelemetry'} & set(sys.modules)))"
    )
    shown, version = python("-c", code, "--help"), python("-c", code, "--version")
    assert "Create, check or drop the tables, and grant rights." in shown.stdout
    assert version.stdout.startswith("dsql-outbox, version ")
    assert [done.stdout.splitlines()[-1] for done in (shown, version)] == ["[]", "[]"]
