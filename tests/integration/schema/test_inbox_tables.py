"""The tables of the inbox alone: what works on them, what is told of them, and all tables later."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.database_roles import as_role, made_roles

from dsql_outbox import Database, Entity, Event, Writer
from dsql_outbox.cli.main import main
from dsql_outbox.inbox import Inbox
from dsql_outbox.outbox import SchemaError, SettingsError
from dsql_outbox.schema import apply
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.migrator import Applied, ddl
from dsql_outbox.schema.roles import Roles, grant
from dsql_outbox.schema.tables import expected_shape, migrations, read_shape

INBOX = tuple(each.label for each in migrations("inbox"))
ALONE = "schema outbox has the tables of the inbox alone"


def shape(database: Database) -> Any:
    with database.connect() as connection:
        return read_shape(connection, database.schema)


def test_a_consumer_needs_no_other_tables_and_keeps_what_it_remembers_when_they_come(
    database_url: str,
) -> None:
    database = Database(database_url)
    assert apply(database, tables="inbox") == Applied("outbox", INBOX, len(INBOX), 0)
    assert shape(database) == expected_shape("inbox")
    with made_roles(database_url) as roles:
        mine = Roles(consumer=roles.consumer)
        assert {drift.part for drift in check(database, mine, tables="inbox")} == {"right"}
        grant(database, mine)
        assert check(database, mine, tables="inbox") == []
        consumer = Database(as_role(database_url, roles.consumer))
        with Inbox(consumer, "mailer") as inbox, Writer(database) as writer:
            assert inbox.once("m1", lambda _: None).ran
            with consumer.connect() as connection, connection.transaction():
                assert inbox.remember(connection, "m2") == "new"
            assert inbox.prune(timedelta(days=1)).read == 2
            with pytest.raises(SchemaError, match="run `dsql-outbox schema apply`"):
                writer.write(Event.new("CarCreated", [Entity("Car", "1")]))
            done = apply(database)
            assert (len(done.applied), done.shards) == (len(migrations()) - len(INBOX), 16)
            assert check(database, mine) == []
            assert apply(database, tables="inbox").applied == ()
            assert check(database, mine) == check(database, mine, tables="inbox") == []
            assert not inbox.once("m1", lambda _: None).ran
            writer.write(Event.new("CarCreated", [Entity("Car", "1")]))


def test_each_command_says_that_the_tables_are_those_of_the_inbox(database_url: str) -> None:
    apply(Database(database_url), tables="inbox")
    for words, code, told in (
        ("schema apply --inbox", 0, "3 migrations, the tables of the inbox, up to date"),
        ("schema check --inbox", 0, "schema outbox: no difference"),
        ("schema check", 1, f"{ALONE}: run dsql-outbox schema apply for the others"),
        ("schema grant --writer w", 2, "role w does not exist"),
        ("inbox prune --consumer mailer --older-than 1d", 0, "0 of 0 messages"),
        ("status", 78, ALONE),
        ("messages list", 78, ALONE),
        ("publish --sink stdout: --until-empty", 78, ALONE),
        ("doctor", 0, ALONE),
        ("doctor", 0, "has the rights of consumer"),
        ("schema drop --yes", 0, "3 tables and views dropped"),
    ):
        done = CliRunner().invoke(main, [*words.split(), f"--database={database_url}"])
        assert (words, done.exit_code) == (words, code), done.output
        assert told in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda url: apply(url, shards=4, tables="inbox"), "the inbox have no shards"),
        (lambda _: ddl("outbox", 4, "inbox"), "the inbox have no shards"),
        (lambda url: apply(url, tables="inbx"), 'tables must be "all" or "inbox", got \'inbx\''),
        (lambda url: check(url, Roles(writer="w"), tables="inbox"), "a writer needs more tables"),
    ],
)
def test_what_the_inbox_cannot_have_is_refused(
    call: Callable[[Database], object], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        call(Database("postgresql://127.0.0.1:1/postgres"))


def test_a_table_of_the_inbox_that_is_gone_is_told_with_its_command(database_url: str) -> None:
    database = Database(database_url)
    apply(database, tables="inbox")
    with database.connect() as connection:
        connection.execute("DROP TABLE outbox.inbox_subjects")
    (missing,) = check(database, tables="inbox")
    assert missing.text == (
        "table outbox.inbox_subjects is missing: run dsql-outbox schema apply --inbox"
    )
    assert apply(database, tables="inbox").applied == INBOX[-1:]
