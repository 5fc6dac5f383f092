"""The app in a Django project: its settings, checks, commands and migrations."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any, ClassVar

import psycopg
import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.db.migrations.loader import MigrationLoader
from django.test import override_settings
from psycopg.conninfo import conninfo_to_dict
from tests.support.checkout import ROOT
from tests.support.writer import workload_s
from tests.support.writer.django_connections import OTHER, use_database

from dsql_outbox import Database, SchemaError, SettingsError
from dsql_outbox.django import append, writer
from dsql_outbox.django.databases import database_url
from dsql_outbox.schema import apply
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.migrator import remove
from dsql_outbox.schema.tables import migrations

pytestmark = pytest.mark.client


@pytest.fixture
def empty(database_url: str) -> Iterator[str]:
    """A project on an empty database."""
    use_database(database_url)
    yield database_url
    connections.close_all()


def differences(url: str, schema: str = "outbox") -> list[str]:
    return [drift.text for drift in check(Database(url, schema=schema)) if not drift.is_note]


def drop_tables(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("DROP SCHEMA outbox CASCADE")


def recorded() -> set[str]:
    """The migrations of the app that Django has recorded."""
    return {name for app, name in MigrationLoader(connection).applied_migrations if app == "outbox"}


def told(command: str, *words: str) -> str:
    out = StringIO()
    call_command(command, *words, stdout=out, no_color=True)
    return out.getvalue()


def messages(**options: Any) -> list[CheckMessage]:
    return [each for each in run_checks(**options) if str(each.id).startswith("outbox.")]


def test_migrate_applies_the_librarys_migrations_forward_and_back(
    empty: str, settings: dict[str, Any]
) -> None:
    settings |= {"SHARDS": 4, "SCHEMA": "shop_outbox"}
    told("migrate", "outbox")
    assert differences(empty, "shop_outbox") == []
    with psycopg.connect(empty) as found:
        shards = found.execute("SELECT count(*) FROM shop_outbox.outbox_leases").fetchone()
    assert shards == (4,)
    told("migrate", "outbox")
    assert recorded() == {"0001_release_0_1"}

    with transaction.atomic():
        append(workload_s.car_created())
    with pytest.raises(
        SchemaError, match="shop_outbox has rows in business_events, so its tables stay"
    ):
        told("migrate", "outbox", "zero")
    assert (differences(empty, "shop_outbox"), recorded()) == ([], {"0001_release_0_1"})

    with psycopg.connect(empty) as found:
        found.execute("TRUNCATE shop_outbox.business_events")
    told("migrate", "outbox", "zero")
    assert differences(empty, "shop_outbox") == [
        "schema shop_outbox is missing: run dsql-outbox schema apply --schema shop_outbox"
    ]
    assert recorded() == set()
    told("migrate", "outbox", "zero")


def test_tables_of_schema_apply_are_kept_by_migrate(empty: str) -> None:
    apply(Database(empty), shards=32)
    written = writer().write(workload_s.car_created())
    told("migrate", "outbox")
    assert (differences(empty), recorded()) == ([], {"0001_release_0_1"})
    with psycopg.connect(empty) as found:
        rows = found.execute("SELECT id FROM outbox.business_events").fetchall()
    assert rows == [(written.event_id,)]


def test_a_project_that_only_consumes_gets_the_tables_of_the_inbox(
    empty: str, settings: dict[str, Any]
) -> None:
    settings["TABLES"] = "inbox"
    asked: dict[str, Any] = {"databases": ["default"], "tags": ["database"]}
    assert "outbox_leases" not in told("sqlmigrate", "outbox", "0001")
    told("migrate", "outbox")
    assert check(Database(empty), tables="inbox") == messages(**asked) == []
    drop_tables(empty)
    (missing,) = messages(**asked)
    assert "run dsql-outbox schema apply --inbox" in missing.msg
    assert "manage.py outbox schema apply --inbox" in str(missing.hint)
    call_command("outbox", "schema", "apply", "--inbox")
    assert check(Database(empty), tables="inbox") == messages(**asked) == []
    del settings["TABLES"]
    (alone,) = messages(**asked)
    assert "has the tables of the inbox alone" in alone.msg
    call_command("outbox", "schema", "apply")
    assert differences(empty) == []
    assert messages(**asked) == []


def test_sqlmigrate_prints_what_migrate_runs(empty: str) -> None:
    script = told("sqlmigrate", "outbox", "0001")
    with psycopg.connect(empty, autocommit=True) as found:
        found.execute(script.encode())
    assert differences(empty) == []
    assert "unless something is stored" in told("sqlmigrate", "outbox", "0001", "--backwards")
    assert differences(empty) == []


def test_no_migration_is_missing(empty: str) -> None:
    del empty
    told("makemigrations", "--check", "--dry-run", "outbox")
    loader = MigrationLoader(connection)
    (leaf,) = loader.graph.leaf_nodes("outbox")
    (operation,) = loader.graph.nodes[leaf].operations
    assert operation.version == migrations()[-1].version, "a release needs a migration of its own"


class Router:
    """A router that keeps the tables out of each database."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def allow_migrate(self, db: str, app_label: str, **_: object) -> bool | None:
        if app_label != "outbox":
            return None
        self.asked.append((db, app_label))
        return False


@pytest.mark.parametrize("by", ["setting", "router"])
def test_a_database_without_an_outbox_gets_no_tables(empty: str, by: str) -> None:
    routers = [Router()] if by == "router" else []
    with override_settings(DATABASE_ROUTERS=routers):
        told("migrate", "outbox", "--database", OTHER if by == "setting" else "default")
    assert len(differences(empty)) == 1
    assert bool(Router.asked) == (by == "router")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "DSQL_OUTBOX is a dict, not list"),
        ({"SHARD": 4}, "has no setting SHARD: it has DATABASES, SCHEMA, SHARDS, TABLES, WRITER"),
        ({"DATABASES": "default"}, r"a list of one alias or more: \[\"default\"\]"),
        ({"DATABASES": []}, "a list of one alias or more"),
        ({"DATABASES": ["defualt"]}, "names defualt, which DATABASES does not have"),
        ({"SHARDS": "16"}, r"\[\"SHARDS\"\] is a whole number, not str"),
        ({"SHARDS": 5000}, "shards must be from 1 to 1024, got 5000"),
        ({"TABLES": "inboxes"}, 'tables must be "all" or "inbox", got \'inboxes\''),
        ({"TABLES": "inbox", "SHARDS": 4}, "the inbox have no shards"),
        ({"WRITER": 3}, "a dict of the arguments of WriterSettings, not int"),
        ({"WRITER": {"retries": 3}}, "WriterSettings has no retries"),
        ({"WRITER": {"timeout": -1}}, "WriterSettings.timeout must be above 0"),
        ({"SCHEMA": "Outbox"}, "schema 'Outbox' must be lower-case"),
        ({"SCHEMA": 5}, r"\[\"SCHEMA\"\] is a str, not int"),
        ({"WRITER": {"timeout": "1"}}, "WriterSettings.timeout"),
    ],
)
def test_a_wrong_setting_is_told_by_check_and_by_the_first_call(
    url: str, given: Any, message: str
) -> None:
    use_database(url)
    with override_settings(DSQL_OUTBOX=given):
        with pytest.raises(SettingsError, match=message):
            writer()
        (found,) = messages()
    assert found.id in {"outbox.E001", "outbox.E003"}


@pytest.mark.parametrize("other", [{"SCHEMA": "shop_outbox"}, {"WRITER": {"timeout": 5.0}}])
def test_a_process_has_one_writer_for_the_settings_of_the_moment(
    url: str, other: dict[str, Any]
) -> None:
    use_database(url)
    found = writer()
    with override_settings(DSQL_OUTBOX=other):
        assert writer() is not found
    assert writer() is found


def test_the_checks_name_what_is_missing(empty: str, settings: dict[str, Any]) -> None:
    assert (messages(), len(differences(empty))) == ([], 1)
    # The first `migrate` makes the tables, and the checks that it runs don't warn of that.
    assert messages(databases=["default"], tags=["database"]) == []
    told("migrate", "outbox")
    drop_tables(empty)
    (missing,) = messages(databases=["default"], tags=["database"])
    assert (missing.id, missing.is_serious()) == ("outbox.W003", False)
    assert "schema outbox is missing" in missing.msg
    assert "manage.py migrate outbox" in str(missing.hint)
    assert messages(databases=[OTHER], tags=["database"]) == []

    connection.settings_dict |= {"ATOMIC_REQUESTS": True, "AUTOCOMMIT": False}
    try:
        assert [each.id for each in messages()] == ["outbox.W001", "outbox.W002"]
    finally:
        connection.settings_dict |= {"ATOMIC_REQUESTS": False, "AUTOCOMMIT": True}
    connection.vendor = "sqlite"
    try:
        assert [each.id for each in messages()] == ["outbox.E002"]
    finally:
        connection.vendor = "postgresql"
    connection.settings_dict["PORT"] = "1"
    assert [each.id for each in messages(databases=["default"], tags=["database"])] == [
        "outbox.W004"
    ]
    settings["DATABASES"] = []
    assert messages(databases=["default"], tags=["database"]) == []


def test_the_writer_needs_the_app(url: str) -> None:
    use_database(url)
    with (
        override_settings(INSTALLED_APPS=["tests.support.django_shop"]),
        pytest.raises(SettingsError, match=r'add "dsql_outbox\.django" to INSTALLED_APPS'),
    ):
        writer()


def test_the_address_is_the_one_of_django(url: str) -> None:
    use_database(url)
    given = connection.settings_dict
    saved = given["OPTIONS"]
    given["OPTIONS"] = {
        "sslmode": "prefer",
        "pool": True,
        "isolation_level": 3,
        "assume_role": "writer",
    }
    try:
        found = conninfo_to_dict(database_url("default"))
    finally:
        given["OPTIONS"] = saved
    wanted = conninfo_to_dict(url)
    assert {name: found[name] for name in ("host", "port", "user", "password", "dbname")} == {
        name: wanted[name] for name in ("host", "port", "user", "password", "dbname")
    }
    assert (found["sslmode"], found["options"]) == ("prefer", "-c role=writer")
    assert "pool" not in found
    given["NAME"] = ""
    with pytest.raises(SettingsError, match="Please supply the NAME"):
        database_url("default")
    with pytest.raises(ImproperlyConfigured):
        connection.get_connection_params()


SETTINGS = """
DATABASES = {{"default": {0}, "elsewhere": {0} | {{"PORT": "1"}}}}
DSQL_OUTBOX = {{"SCHEMA": "shop_outbox", "DATABASES": ["default", "elsewhere"]}}
INSTALLED_APPS = ["dsql_outbox.django"]
"""


def test_manage_py_runs_commands_without_a_password_in_sight(empty: str, tmp_path: Any) -> None:
    shown = dict(connection.settings_dict) | {"OPTIONS": {}}
    (tmp_path / "site_settings.py").write_text(SETTINGS.format(repr(shown)))
    database = {"DSQL_OUTBOX_DATABASE": "postgresql://nowhere", "DSQL_OUTBOX_SCHEMA": "other"}
    environment = os.environ | database | {"PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}"}

    def run(*words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "django", "outbox", "--settings=site_settings", *words]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=environment, timeout=60
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert f"schema shop_outbox: {len(migrations())} migrations" in run("schema", "apply")
    refused = run("--using", "elsewhere", "status", code=69)
    assert str(shown["PASSWORD"]) not in refused
    remove(Database(empty, schema="shop_outbox"))


def test_a_command_can_be_called_by_code(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    use_database(url)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        call_command("outbox", "schema", "check")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        with ThreadPoolExecutor(1) as pool:  # where Python lets nobody take a signal
            pool.submit(call_command, "outbox", "schema", "check").result(timeout=30)
    finally:
        signal.signal(signal.SIGTERM, before)
    call_command("outbox", "schema", "print", "--schema", "typed")
    shown = capfd.readouterr().out
    assert "schema outbox: no difference" in shown
    assert '"typed".outbox' in shown
    with pytest.raises(SystemExit):
        call_command("outbox", "no-such-command")
    with pytest.raises(CommandError, match="the database nothing has no outbox"):
        call_command("outbox", "status", using="nothing")
