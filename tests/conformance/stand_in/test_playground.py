"""The statements for the playground of Aurora DSQL, and the questions to a cluster.

Each is asked of PostgreSQL, and behind the rules of DSQL's transactions.
"""

import psycopg
import pytest
from benchmarks.cluster.__main__ import Answer, answer_of, in_schema, main, questions
from tests.support.dsql.governed import GovernedPostgres

from dsql_outbox.outbox import Database

DSQL_ONLY = {"The cost of a small change", "An index that is built later"}
"""What EXPLAIN counts, and a form of CREATE INDEX."""


@pytest.fixture(params=["postgres", "rules"])
def asked(request: pytest.FixtureRequest, url: str, governed: GovernedPostgres) -> tuple[str, str]:
    """The URL of a database with outbox tables, and where its conflicts show."""
    return (governed.url, "COMMIT") if request.param == "rules" else (url, "the statement")


def left(url: str) -> int:
    """How many tables of the questions there are."""
    with psycopg.connect(url) as connection:
        return len(connection.execute("SELECT FROM pg_tables WHERE tablename = 'asked'").fetchall())


def test_the_statements_of_the_page_have_the_answers_of_the_page(
    url: str, asked: tuple[str, str]
) -> None:
    found = questions()
    assert len(found) == 10
    with Database(asked[0]).connect() as connection:
        for name, text, expected in found:
            if name not in DSQL_ONLY:
                assert answer_of(connection, in_schema(text, "outbox")) == expected, name
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE outbox.asked")


def test_a_report_has_a_line_for_each_question_and_leaves_no_table(
    url: str, asked: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([asked[0]])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("differs")] == []
    assert code == 0
    assert any(f"two updates of one row: 40001 at {asked[1]}" in line for line in lines)
    assert any("100 of 100 events of one entity stored" in line for line in lines)
    assert left(url) == 0
    assert "postgres:" not in "".join(lines), "no URL, so no password"


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer("a", "1", ("1", "2")), "ok"),
        (Answer("a", "3", ("1", "2")), "differs"),
        (Answer("a", "3"), "told"),
    ],
)
def test_an_answer_that_nothing_foretells_is_told(answer: Answer, verdict: str) -> None:
    assert str(answer).split()[0] == verdict
