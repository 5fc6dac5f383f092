"""``dsql-outbox schema grant``, and the check of roles: what they say, and what mends it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.database_roles import as_role, made_roles
from tests.support.dsql.server import ON_DSQL
from tests.support.watched_databases import DsqlShapedDatabase, WatchedDatabase

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database, SchemaError
from dsql_outbox.schema import apply
from dsql_outbox.schema import roles as rights
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.roles import Roles, grant, grants, is_dsql

BIN = Path(sys.executable).parent


@pytest.fixture
def url(outbox_url: str) -> str:
    return outbox_url


@pytest.fixture
def roles(url: str) -> Iterator[Roles]:
    with made_roles(url) as roles:
        yield roles


def run(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, ["schema", *map(str, words), "--database", url])


def execute(url: str, query: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(query.encode())


def test_what_was_run_is_printed_as_sql(url: str, roles: Roles) -> None:
    done = run(url, "grant", "--publisher", roles.publisher)
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert lines[0] == f'GRANT USAGE ON SCHEMA "outbox" TO "{roles.publisher}";'
    assert lines[1] == f'GRANT SELECT, DELETE ON "outbox".outbox TO "{roles.publisher}";'
    assert lines[-1] == f"-- schema outbox: {len(grants('publisher'))} statements, all run"
    assert check(Database(url), Roles(publisher=roles.publisher)) == []


def test_a_dry_run_prints_the_same_and_grants_nothing(url: str, roles: Roles) -> None:
    words = ("grant", "--writer", roles.writer, "--operator", roles.operator)
    dry = run(url, *words, "--dry-run").stdout.splitlines()
    number = len(grants("writer") + grants("operator"))
    assert dry[-1] == f"-- schema outbox: {number} statements, none of them run"
    lacking = check(Database(url), Roles(writer=roles.writer, operator=roles.operator))
    assert {(drift.difference, drift.part) for drift in lacking} == {("missing", "right")}
    assert len(lacking) == number
    assert run(url, *words).stdout.splitlines()[:-1] == dry[:-1]


def test_granting_twice_is_no_harm(url: str, roles: Roles) -> None:
    assert grant(Database(url), roles) == grant(Database(url), roles)
    assert check(Database(url), roles) == []


def test_json_tells_programs(url: str, roles: Roles) -> None:
    done = json.loads(run(url, "grant", "--writer", roles.writer, "--json", "--dry-run").stdout)
    name = roles.writer.upper()
    assert (done["schema"], done["dryRun"], len(done["statements"]), done["iam"]) == (
        "outbox",
        True,
        len(grants("writer")),
        [f"AWS IAM GRANT \"{roles.writer}\" TO 'arn:aws:iam::ACCOUNT:role/IAM_ROLE_OF_{name}'"]
        if ON_DSQL
        else [],
    )


def test_each_grant_is_a_transaction_tried_again_after_a_conflict(url: str, roles: Roles) -> None:
    def conflict(number: int) -> None:
        if number % 2 == 0:
            raise psycopg.errors.SerializationFailure("schema has been updated (OC001)")

    database = WatchedDatabase(url, before=conflict)
    consumer = Roles(consumer=roles.consumer)
    grant(database, consumer)
    assert check(Database(url), consumer) == []


def test_roles_that_do_not_exist_are_told_with_what_makes_them(url: str) -> None:
    done = run(url, "grant", "--writer", "no_writer", "--operator", 'no "one"', "--dry-run")
    assert done.exit_code == 2
    assert done.stderr == (
        'Error: roles no_writer, no "one" do not exist: run '
        'CREATE ROLE "no_writer" WITH LOGIN; CREATE ROLE "no ""one""" WITH LOGIN\n'
    )


def test_missing_tables_are_told_before_anything_is_granted(url: str, roles: Roles) -> None:
    done = run(url, "grant", "--writer", roles.writer, "--schema", "mine")
    assert done.exit_code == 78
    assert done.stderr == "Error: mine is missing: run dsql-outbox schema apply --schema mine\n"
    execute(url, "DROP TABLE outbox.outbox_replays")
    database = WatchedDatabase(url)
    with pytest.raises(SchemaError, match=r"outbox\.outbox_replays is missing: run dsql-outbox"):
        grant(database, roles)
    assert not [text for text in database.sent if "GRANT" in text]


def test_names_of_roles_are_quoted(url: str) -> None:
    odd = f'Wri"ter {uuid4().hex}; --'
    with made_roles(url, Roles(writer=odd)) as roles:
        assert run(url, "grant", "--writer", odd).exit_code == 0
        assert check(Database(url), roles) == []
        with psycopg.connect(as_role(url, odd)) as connection:
            connection.execute("SELECT count(*) FROM outbox.outbox_backlog")


def test_in_schema_public_its_use_is_not_granted(database_url: str) -> None:
    database = Database(database_url, schema="public")
    apply(database)
    with made_roles(database_url) as roles:
        done = grant(database, roles)
        assert not [text for text in done.statements if "USAGE" in text]
        assert check(database, roles) == []


def test_on_dsql_the_iam_mappings_are_printed_and_not_run(url: str, roles: Roles) -> None:
    database = DsqlShapedDatabase(url)
    one = Roles(writer=roles.writer, publisher=roles.writer)
    done = grant(database, one)
    name = f"{roles.writer}"
    arn = f"arn:aws:iam::ACCOUNT:role/IAM_ROLE_OF_{name.upper()}"
    assert done.iam == (f"AWS IAM GRANT \"{name}\" TO '{arn}'",)
    assert not [text for text in database.sent if "AWS IAM" in text]
    printed = run(url, "grant", "--writer", roles.writer).stdout
    assert f"-- {done.iam[0]};\n" in printed


def test_the_printed_grants_pass_the_linter_of_aurora_dsql(url: str, roles: Roles) -> None:
    done = grant(DsqlShapedDatabase(url), roles, dry_run=True)
    text = ";\n".join([*done.statements, *done.iam])
    linted = subprocess.run(
        [BIN / "dsql-lint", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert linted.stderr.strip() == "All statements compatible with DSQL."


@pytest.mark.postgres_only("it plays DSQL itself")
def test_dsql_is_told_also_by_those_who_may_not_see_its_jobs(url: str, roles: Roles) -> None:
    DsqlShapedDatabase(url)
    with Database(as_role(url, roles.operator)).connect() as connection:
        assert is_dsql(connection)


@pytest.mark.parametrize(
    "line",
    [
        "GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role};",
        "GRANT UPDATE (position) ON {schema}.entities TO {role};",
        "GRANT SELECT ON {schema}.outbox TO PUBLIC;",
        "GRANT SELECT ON {schema}.outbox TO {role}",
    ],
)
def test_a_grant_that_the_check_would_misread_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="cannot read the grant"):
        rights._parse(line)


def test_one_role_may_have_several_duties(url: str, roles: Roles) -> None:
    same = Roles(roles.writer, roles.writer, roles.writer)
    grant(Database(url), same)
    assert check(Database(url), same) == []
    found = check(Database(url), Roles(writer=roles.writer))
    assert {(drift.difference, drift.part) for drift in found} == {("extra", "right")}


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (
            "REVOKE INSERT ON outbox.outbox FROM {writer}",
            (
                "role {writer} lacks INSERT on outbox.outbox, which a writer needs: run "
                "dsql-outbox schema grant --writer {writer}"
            ),
        ),
        (
            "REVOKE ALL ON SCHEMA outbox FROM {publisher}",
            (
                "role {publisher} lacks USAGE on schema outbox, which a publisher needs: run "
                "dsql-outbox schema grant --publisher {publisher}"
            ),
        ),
        (
            "GRANT SELECT, DELETE ON outbox.outbox TO {writer}",
            (
                "role {writer} has DELETE, SELECT on outbox.outbox, which a writer does not "
                'need: run REVOKE DELETE, SELECT ON "outbox"."outbox" FROM "{writer}"'
            ),
        ),
        (
            "ALTER ROLE {operator} SUPERUSER",
            (
                "role {operator} is a superuser, which may do everything: name a role of its own, "
                'or run ALTER ROLE "{operator}" NOSUPERUSER'
            ),
        ),
    ],
)
def test_a_right_that_differs_is_told_and_mended_by_what_was_told(
    url: str, roles: Roles, damage: str, text: str
) -> None:
    grant(Database(url), roles)
    names = dict(roles.assignments())
    execute(url, damage.format(**names))
    (drift,) = check(Database(url), roles)
    assert drift.text == text.format(**names)
    command = drift.text.rpartition("run ")[2]
    if command.startswith("dsql-outbox "):
        assert CliRunner().invoke(main, [*command.split()[1:], "--database", url]).exit_code == 0
    else:
        execute(url, command)
    assert check(Database(url), roles) == []


def test_check_tells_of_roles_that_do_not_exist_and_of_no_others(url: str) -> None:
    done = run(url, "check", "--writer", "no_writer")
    text = 'role no_writer does not exist: run CREATE ROLE "no_writer" WITH LOGIN\n'
    assert (done.exit_code, done.stdout) == (1, text)
    assert run(url, "check").stdout == "schema outbox: no difference\n"


def test_rights_on_a_table_that_is_missing_are_told_as_the_table(url: str, roles: Roles) -> None:
    grant(Database(url), roles)
    execute(url, "DROP TABLE outbox.outbox_replays")
    assert [drift.part for drift in check(Database(url), roles)] == ["table"]
