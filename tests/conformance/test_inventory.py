"""The inventory: it has every statement of the library, knows them at the wire, and is clean."""

import ast
import json
import re
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from tests.support.sql.inventory import EXCUSES, Entry, inventory, known
from tests.support.sql.lint import Linted, lint, main
from tests.support.sql.senders import sources
from tests.support.sql.tokens import canonical, statements

from dsql_outbox.outbox.database.exchange import numbered
from dsql_outbox.schema.migrator import ddl
from dsql_outbox.schema.named_statements import names, statement
from dsql_outbox.schema.roles import grants

SENDING = {"execute", "executemany", "stream", "copy"}
SQL = re.compile(
    r"(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|BEGIN|COMMIT|ROLLBACK|SET)\b"
)


@pytest.fixture(scope="module")
def linted() -> dict[str, Linted]:
    return {each.entry.name: each for each in lint(inventory())}


def of(name: str) -> Entry:
    return next(each for each in inventory() if each.name == name)


def test_no_statement_breaks_a_rule(linted: dict[str, Linted]) -> None:
    assert set(linted) == {entry.name for entry in inventory()}
    assert {name: found.faults for name, found in linted.items() if found.faults} == {}


def test_a_statement_is_known_at_the_wire_and_somebody_sends_it() -> None:
    for entry in inventory():
        assert known(entry.example) == entry.name
        assert known(f"\n -- why\n{entry.example}\n /* x */ ") == entry.name
        assert entry.sent_by, entry.name


def test_a_statement_with_a_changed_word_is_not_known() -> None:
    for entry in inventory():
        first, said = canonical(entry.example).split(" ")[0], canonical(entry.example)
        assert known(said) == entry.name
        assert known(said.replace(first, "changed", 1)) is None
        assert known(f"{entry.example} AND more") is None
        assert known(f"{entry.example}; DELETE FROM t") is None


@pytest.mark.parametrize("duty", ["writer", "publisher", "operator", "keeper", "consumer"])
def test_every_grant_is_in_the_inventory(duty: str) -> None:
    for grant in grants(duty):  # type: ignore[arg-type]
        assert (known(grant.statement("mine", 'a "role"').decode()) or "").startswith("GRANT ")


def test_everything_that_is_printed_is_in_the_inventory() -> None:
    texts = [" ".join(token.text for token in each) for each in statements(ddl("mine"))]
    assert len(texts) > 20
    assert [text for text in texts if known(text) is None] == []


def test_names_and_excuses_are_those_of_entries() -> None:
    found = [each.name for each in inventory()]
    assert len(found) == len(set(found))
    assert set(EXCUSES) <= set(found)


def test_a_statement_is_known_on_every_schema_but_on_one_at_a_time() -> None:
    text = statement("status_shards", "mine").decode()
    assert known(text) == "status_shards"
    assert known(text.replace('"mine"', '"yours"', 1)) is None


@pytest.mark.parametrize(
    ("literals", "name"),
    [
        ({"position": -7}, "doctor_count"),
        ({"version": 11, "name": "it's\\a name", "checksum": "ab"}, "migration_record"),
    ],
)
def test_a_literal_may_be_any(literals: dict[str, int | str], name: str) -> None:
    assert known(statement(name, "mine", **literals).decode()) == name


def test_a_parameter_is_as_the_driver_numbers_it() -> None:
    query = numbered("", statement("lease_take", "mine")).text.decode()
    assert known(query) == "lease_take"
    assert known(query.replace("$3", "$9")) is None
    assert known(statement("lease_take", "mine").decode()) is None


@pytest.mark.parametrize("text", ["", "SELECT 2", "BEGIN READ WRITE", "SELECT 'a", "SAVEPOINT s"])
def test_what_is_not_ours_is_not_known(text: str) -> None:
    assert known(text) is None


def literals_in_code() -> Iterator[str]:
    """What is given to a method that sends, and all bytes that look like SQL.

    `Session.execute` gets the name of a statement, whose file is in the inventory.
    """
    files = set(names("statements"))
    for _, module in sources():
        for node in ast.walk(module):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr=attr), args=[ast.Constant(value=str(text)), *_]
                ):
                    if attr in SENDING and text not in files:
                        yield text
                case ast.Constant(value=bytes(text)) if SQL.match(text.decode("latin-1")):
                    yield text.decode()
                case _:
                    pass


def test_the_code_sends_no_sql_outside_the_inventory() -> None:
    found = list(literals_in_code())
    assert {"BEGIN", "COMMIT"} <= set(found)
    assert [text for text in found if known(text) is None] == []


def test_the_table_has_a_line_for_each_statement_and_a_count() -> None:
    done = CliRunner().invoke(main, [])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split() == ["statement", "kind", "sent", "by", "dsql-lint", "own", "rules"]
    assert lines[-1] == f"{len(inventory())} statements, {len(EXCUSES)} excused, 0 broken"
    assert len(lines) == len(inventory()) + 2


def test_the_same_as_json() -> None:
    found = json.loads(CliRunner().invoke(main, ["--json"]).output)
    assert found["faults"] == []
    (write,) = [each for each in found["statements"] if each["statement"] == "event_write_one"]
    assert (write["kind"], write["sentBy"]) == ("DML", ["writer"])


def test_a_fault_is_named_and_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = of("shard_list")._replace(example="SELECT pg_notify('a', 'b')")
    monkeypatch.setattr("tests.support.sql.lint.inventory", lambda: (bad,))
    done = CliRunner().invoke(main, [])
    assert done.exit_code == 1
    assert "error: shard_list breaks notify (no LISTEN/NOTIFY)" in done.output
