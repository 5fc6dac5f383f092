"""Faults are set by the code of a statement, not by its comments."""

import pytest
from tests.support.proxy.faults import holds, is_commit
from tests.support.proxy.wire_protocol import statements, without_comments

from dsql_outbox.schema.named_statements import names, read_sql


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT 1 -- one\n+ 2", "SELECT 1  \n+ 2"),
        ("-- only", " "),
        ("a /* b */ c /* d */", "a   c  "),
        ("a /* b /* c */ d */ e", "a   e"),
        ("a /* never ends /* b */", "a  "),
        ("SELECT '-- no', \"/* no */\" -- yes", "SELECT '-- no', \"/* no */\"  "),
        ("SELECT 'it''s -- no' -- yes", "SELECT 'it''s -- no'  "),
        (r"SELECT E'it\'s -- no' -- yes", r"SELECT E'it\'s -- no'  "),
        ("SELECT $$-- no$$, $q$/* $$ */$q$, $1 /* $2 */", "SELECT $$-- no$$, $q$/* $$ */$q$, $1  "),
        ("/* it's */ COMMIT", "  COMMIT"),
    ],
)
def test_comments_become_blanks_and_texts_stay(sql: str, code: str) -> None:
    assert without_comments(sql) == code


def test_no_statement_of_the_library_is_taken_for_a_commit() -> None:
    for name in names("statements"):
        assert not holds("COMMIT")(read_sql("statements", name)), name


@pytest.mark.parametrize("sql", ["COMMIT", " commit;", "/* done */ COMMIT", "-- done\nEND"])
def test_a_commit_is_one_with_a_comment_before_it(sql: str) -> None:
    assert is_commit(sql)


@pytest.mark.parametrize(
    "sql", ["BEGIN ISOLATION LEVEL READ COMMITTED", "INSERT INTO t VALUES (1) -- in one commit"]
)
def test_other_statements_are_not_taken_for_a_commit(sql: str) -> None:
    assert not holds("COMMIT")(sql)


def test_an_explained_write_is_no_write_whatever_comment_it_has() -> None:
    assert not holds("INSERT")("/* plan */ EXPLAIN INSERT INTO t VALUES (1)")
    assert holds("INSERT")("/* EXPLAIN */ insert INTO t VALUES (1)")


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1;", ["SELECT 1;"]),
        (" ; -- none", [" ; -- none"]),
        ("SELECT 1; COMMIT", ["SELECT 1", " COMMIT"]),
        ("SELECT ';'; COMMIT;", ["SELECT ';'", " COMMIT"]),
        (r"SELECT E'\';'; COMMIT", [r"SELECT E'\';'", " COMMIT"]),
        ('SELECT ";" FROM t;COMMIT', ['SELECT ";" FROM t', "COMMIT"]),
        (
            "/* ; /* ; */ ; */ SELECT 1 -- ;\n; COMMIT",
            ["/* ; /* ; */ ; */ SELECT 1 -- ;\n", " COMMIT"],
        ),
        ("DO $x$ BEGIN; END $x$; SELECT 1", ["DO $x$ BEGIN; END $x$", " SELECT 1"]),
    ],
)
def test_a_text_is_split_where_a_statement_ends(sql: str, found: list[str]) -> None:
    assert list(statements(sql)) == found
