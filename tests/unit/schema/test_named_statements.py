"""The SQL files: rendered safely, explained, and within what Aurora DSQL takes."""

import re
from pathlib import Path

import pytest

import dsql_outbox.schema
from dsql_outbox.outbox import SettingsError
from dsql_outbox.schema import ddl, statement
from dsql_outbox.schema.migrator.migration import Migration, migrations
from dsql_outbox.schema.migrator.migration_text import (
    AddedColumn,
    Backfill,
    Column,
    Form,
    Index,
    Relation,
    forms,
    parse,
)
from dsql_outbox.schema.named_statements import render

FOLDER = Path(dsql_outbox.schema.__file__).parent
FILES = sorted(FOLDER.glob("*/*.sql"))
SINGLE = [file for file in FILES if file.parent.name != "grants"]


THING = Relation("thing", view=False, columns=(Column("id", "uuid", required=True),), key=("id",))


def without_comments(text: str) -> str:
    return re.sub(r"--.*", "", text)


def migration(text: str) -> Migration:
    return Migration(1, "example", text)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_says_first_why_it_exists(file: Path) -> None:
    assert file.read_text().startswith("-- ")


@pytest.mark.parametrize("file", SINGLE, ids=lambda file: file.name)
def test_every_file_holds_one_statement(file: Path) -> None:
    assert ";" not in without_comments(file.read_text())


def test_a_schema_name_is_always_quoted() -> None:
    assert render("SELECT * FROM {schema}.outbox", 'a"b') == b'SELECT * FROM "a""b".outbox'


def test_a_literal_is_always_quoted() -> None:
    assert render("SELECT {name}, {number}", "s", name="it's", number=7) == b"SELECT 'it''s', 7"


def test_a_statement_is_found_by_its_name() -> None:
    assert statement("schema_create", "mine").endswith(b'CREATE SCHEMA IF NOT EXISTS "mine"\n')


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [found.version for found in migrations()] == list(range(len(migrations())))


def test_a_migration_is_known_by_the_text_of_its_file() -> None:
    names = {f"{found.version:04}_{found.name}.sql": found.text for found in migrations()}
    assert names == {file.name: file.read_text() for file in FOLDER.glob("migrations/*.sql")}


def test_a_checksum_changes_with_the_text() -> None:
    assert migration("SELECT 1").checksum != migration("SELECT 2").checksum
    assert re.fullmatch("[0-9a-f]{64}", migration("SELECT 1").checksum)


@pytest.mark.parametrize("found", migrations(), ids=lambda found: found.label)
def test_every_migration_may_run_twice(found: Migration) -> None:
    assert re.search(r"\b(IF NOT EXISTS|OR REPLACE|UPDATE)\b", found.text)


def test_a_table_is_read_from_its_migration() -> None:
    text = """-- A comment, with PRIMARY KEY (in it)
CREATE TABLE IF NOT EXISTS {schema}.thing (
  owner varchar(12),
  seen_at timestamptz NOT NULL,
  shard int NOT NULL,
  PRIMARY KEY (shard, owner)
)
"""
    thing = parse(migration(text), {})
    assert isinstance(thing, Relation)
    assert (thing.name, thing.view, thing.key) == ("thing", False, ("shard", "owner"))
    assert thing.columns == (
        Column("owner", "character varying(12)", required=False),
        Column("seen_at", "timestamp with time zone", required=True),
        Column("shard", "integer", required=True),
    )


def test_a_key_of_one_column_is_read_from_its_line() -> None:
    text = "CREATE TABLE IF NOT EXISTS {schema}.thing (\n  id uuid PRIMARY KEY\n)"
    thing = parse(migration(text), {})
    assert isinstance(thing, Relation)
    assert thing.key == ("id",)
    assert thing.columns == (Column("id", "uuid", required=True),)


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE IF NOT EXISTS {schema}.thing (\n  id uuid DEFAULT gen_random_uuid()\n)",
        "CREATE TABLE IF NOT EXISTS {schema}.thing (\n  price numeric(9, 2)\n)",
        "CREATE TABLE IF NOT EXISTS {schema}.thing (\n  CHECK (id > 0)\n)",
        "ALTER TABLE {schema}.unknown ADD COLUMN IF NOT EXISTS note text",
        "ALTER TABLE {schema}.thing ADD COLUMN note text",
        "ALTER TABLE {schema}.thing ADD COLUMN IF NOT EXISTS note text NOT NULL",
        "ALTER TABLE {schema}.thing ADD COLUMN IF NOT EXISTS note text DEFAULT ''",
        "ALTER TABLE {schema}.thing DROP COLUMN IF EXISTS id",
        "ALTER TABLE {schema}.thing ALTER COLUMN id TYPE text",
        "DROP TABLE IF EXISTS {schema}.thing",
        "CREATE INDEX ASYNC IF NOT EXISTS note ON {schema}.unknown (id)",
        "CREATE INDEX ASYNC note ON {schema}.thing (id)",
        "CREATE INDEX IF NOT EXISTS note ON {schema}.thing (id)",
        "CREATE UNIQUE INDEX ASYNC IF NOT EXISTS note ON {schema}.thing (id)",
        "UPDATE {schema}.thing SET id = gen_random_uuid()",
        "UPDATE {schema}.unknown SET id = NULL WHERE id IS NULL",
        "INSERT INTO {schema}.thing VALUES (1)",
    ],
)
def test_a_form_that_would_be_misread_or_break_older_code_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="migration 0001 example: cannot read"):
        parse(migration(text), {"thing": THING})


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (
            "ALTER TABLE {schema}.thing ADD COLUMN IF NOT EXISTS note varchar(9)",
            AddedColumn("thing", Column("note", "character varying(9)", required=False)),
        ),
        (
            "CREATE INDEX ASYNC IF NOT EXISTS by_note ON {schema}.thing (note, id)",
            Index("by_note", "thing", ("note", "id")),
        ),
        (
            "UPDATE {schema}.thing SET note = 'x', id = id\nWHERE note IS NULL\n  OR id IS NULL",
            Backfill(THING, "note = 'x', id = id", "note IS NULL\n  OR id IS NULL"),
        ),
    ],
)
def test_what_is_added_later_is_read_from_its_migration(text: str, form: Form) -> None:
    assert parse(migration(f"-- Why.\n{text}\n"), {"thing": THING}) == form


def test_every_migration_can_be_read() -> None:
    assert [made for made, _ in forms()] == list(migrations())


def test_the_printed_sql_holds_every_migration_in_order() -> None:
    printed = ddl("mine")
    places = [printed.index(found.ddl("mine").decode().strip() + ";") for found in migrations()]
    assert places == sorted(places)
    assert printed.index("CREATE SCHEMA") < places[0]
    assert "generate_series(0, 16 - 1)" in printed[places[-1] :]


@pytest.mark.parametrize("shards", [-1, 0, 3001])
def test_a_number_of_shards_that_cannot_be_is_refused(shards: int) -> None:
    with pytest.raises(SettingsError, match=f"shards must be from 1 to 3000, got {shards}"):
        ddl("mine", shards)
