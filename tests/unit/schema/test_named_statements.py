"""The SQL files: rendered safely, explained, and within what Aurora DSQL takes."""

import re
from pathlib import Path

import pytest
from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH

import dsql_outbox.schema
from dsql_outbox.outbox import SettingsError
from dsql_outbox.schema.migrator import ddl, script
from dsql_outbox.schema.named_statements import render, statement
from dsql_outbox.schema.tables import Column, Migration, Relation, expected_shape, migrations, parse

FOLDER = Path(dsql_outbox.schema.__file__).parent
FILES = sorted(FOLDER.glob("*/*.sql"))
SINGLE = [file for file in FILES if file.parent.name != "grants"]


def without_comments(text: str) -> str:
    return re.sub(r"--.*", "", text)


def migration(text: str) -> Migration:
    return Migration(1, "thing", text)


def test_every_file_says_first_why_it_exists() -> None:
    assert len(FILES) > 200
    assert [file.name for file in FILES if not file.read_text().startswith("-- ")] == []


def test_every_file_holds_one_statement() -> None:
    assert [file.name for file in SINGLE if ";" in without_comments(file.read_text())] == []


def test_a_schema_name_is_always_quoted() -> None:
    assert render("SELECT * FROM {schema}.outbox", 'a"b') == b'SELECT * FROM "a""b".outbox'


def test_psycopg_keeps_the_statement_of_an_append() -> None:
    """Of a longer text it keeps no parts, so that each append takes a third more of a CPU."""
    longest = statement("event_write_one", "s" * 63)
    assert len(longest) <= MAX_CACHED_STATEMENT_LENGTH


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


def test_every_migration_may_run_twice() -> None:
    twice = re.compile(r"\b(IF NOT EXISTS|OR REPLACE)\b")
    assert [found.label for found in migrations() if not twice.search(found.text)] == []


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
    assert (thing.name, thing.view, thing.key) == ("thing", False, ("shard", "owner"))
    assert thing.columns == (
        Column("owner", "character varying(12)", required=False),
        Column("seen_at", "timestamp with time zone", required=True),
        Column("shard", "integer", required=True),
    )


def test_a_key_of_one_column_is_read_from_its_line() -> None:
    text = "CREATE TABLE IF NOT EXISTS {schema}.thing (\n  id uuid PRIMARY KEY\n)"
    thing = parse(migration(text), {})
    assert thing.key == ("id",)
    assert thing.columns == (Column("id", "uuid", required=True),)


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE IF NOT EXISTS {schema}.thing (\n  id uuid DEFAULT gen_random_uuid()\n)",
        "CREATE TABLE IF NOT EXISTS {schema}.thing (\n  price numeric(9, 2)\n)",
        "CREATE TABLE IF NOT EXISTS {schema}.thing (\n  id uuid CHECK (id > 0)\n)",
        "CREATE TABLE IF NOT EXISTS {schema}.other (\n  id uuid PRIMARY KEY\n)",
        "CREATE TABLE {schema}.thing (\n  id uuid PRIMARY KEY\n)",
        "CREATE OR REPLACE VIEW {schema}.thing AS\n  SELECT id FROM {schema}.unknown",
        "CREATE OR REPLACE VIEW {schema}.thing AS\n  SELECT id FROM {schema}.other WHERE id > 0",
        "ALTER TABLE {schema}.thing ADD COLUMN IF NOT EXISTS note text",
        "CREATE INDEX ASYNC IF NOT EXISTS note ON {schema}.thing (id)",
        "INSERT INTO {schema}.thing VALUES (1)",
    ],
)
def test_a_form_that_would_be_misread_is_refused(text: str) -> None:
    other = Relation("other", view=False, columns=(Column("id", "uuid", required=True),), key=())
    with pytest.raises(ValueError, match="migration 0001 thing: cannot read"):
        parse(migration(text), {"other": other})


def test_a_view_has_the_columns_of_its_table() -> None:
    other = Relation("other", view=False, columns=(Column("id", "uuid", required=True),), key=())
    text = "CREATE OR REPLACE VIEW {schema}.thing AS\n  SELECT id FROM {schema}.other"
    found = Relation("thing", view=True, columns=(Column("id", "uuid", required=False),), key=())
    assert parse(migration(text), {"other": other}) == found


def test_a_view_may_look_a_column_up_in_another_table() -> None:
    ids = {name: Column(name, "uuid", required=True) for name in ("id", "of")}
    one = Relation("one", view=False, columns=(ids["id"],), key=())
    two = Relation("two", view=False, columns=(ids["of"],), key=())
    text = (
        "CREATE OR REPLACE VIEW {schema}.thing AS\n  SELECT o.id,\n"
        "    (SELECT t.of FROM {schema}.two t WHERE t.of = o.id) AS of\n  FROM {schema}.one o"
    )
    found = parse(migration(text), {"one": one, "two": two})
    assert [column.name for column in found.columns] == ["id", "of"]
    for right, wrong in (
        ("SELECT o.id", "SELECT t.id"),
        ("SELECT t.of", "SELECT t.id"),
        ("}.two t", "}.one t"),
        (" AS of", " AS id"),
        ("t.of = o.id", "true"),
    ):
        with pytest.raises(
            ValueError, match=r"migration 0001 thing: cannot read '(\(SELECT |t\.id)"
        ):
            parse(migration(text.replace(right, wrong)), {"one": one, "two": two})


def test_a_view_joins_no_tables() -> None:
    one = Relation("one", view=False, columns=(Column("id", "uuid", required=True),), key=())
    source = "FROM {schema}.one o JOIN {schema}.one t ON t.id = o.id"
    text = f"CREATE OR REPLACE VIEW {{schema}}.thing AS\n  SELECT o.id\n  {source}"
    with pytest.raises(ValueError, match="cannot read"):
        parse(migration(text), {"one": one})


def test_every_migration_makes_the_relation_of_its_name() -> None:
    assert [*expected_shape()] == [found.name for found in migrations()]


def test_the_printed_sql_holds_every_migration_in_order() -> None:
    printed = ddl("mine")
    places = [printed.index(found.ddl("mine").decode().strip() + ";") for found in migrations()]
    assert places == sorted(places)
    assert printed.index("CREATE SCHEMA") < places[0]
    assert "generate_series(0, 16 - 1)" in printed[places[-1] :]


def test_a_tool_may_cut_the_printed_sql_at_its_semicolons() -> None:
    """As golang-migrate does, in comments too, to run each statement alone."""
    assert ddl("mine").count(";") == len(script("mine"))


@pytest.mark.parametrize("shards", [-1, 0, 3001])
def test_a_number_of_shards_that_cannot_be_is_refused(shards: int) -> None:
    with pytest.raises(SettingsError, match=f"shards must be from 1 to 1024, got {shards}"):
        ddl("mine", shards)
