"""The rules answer what a cluster was recorded to answer."""

import json
from typing import Any

import psycopg
import pytest
from tests.support.checkout import ROOT
from tests.support.dsql.governed import GovernedPostgres
from tests.support.writer.checked_tables import Tables

RECORDS = ROOT / "tests" / "data" / "dsql"


def cases(*files: str) -> dict[str, Any]:
    found = [json.loads((RECORDS / f"{file}.json").read_text())["cases"] for file in files]
    return {case["name"]: case for each in found for case in each}


ALONE = cases("transaction", "unsupported")
CONFLICTS = cases("occ_conflict")

Session = psycopg.Connection[Any]

TWO = {
    "occ_write_write": (
        "UPDATE pairs SET name = 'a' WHERE id = 1",
        "UPDATE pairs SET name = 'b' WHERE id = 1",
    ),
    "occ_multirow_predicate": (
        "UPDATE pairs SET name = 'a' WHERE id <= 3",
        "UPDATE pairs SET name = 'b' WHERE id <= 3",
    ),
    "occ_disjoint_writes": (
        "UPDATE pairs SET name = 'a' WHERE id = 1",
        "UPDATE pairs SET name = 'b' WHERE id = 2",
    ),
}


def answer(session: Session, sql: str) -> dict[str, object]:
    """What a record has of an answer, but for columns and rows."""
    try:
        done = session.execute(sql.encode())
    except psycopg.Error as error:
        told = error.diag
        return {"outcome": "error", "sqlstate": told.sqlstate, "message": told.message_primary}
    return {"outcome": "ok", "command_tag": done.statusmessage}


def told(observations: list[dict[str, object]]) -> list[dict[str, object]]:
    kept = ("outcome", "command_tag", "sqlstate", "message")
    return [{key: seen[key] for key in kept if key in seen} for seen in observations]


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", ALONE)
def test_a_session_is_answered_as_recorded(
    governed: GovernedPostgres, name: str, prepared: bool
) -> None:
    case = ALONE[name]
    with psycopg.connect(governed.url, autocommit=True) as session:
        session.prepare_threshold = 0 if prepared else None
        assert [answer(session, sql) for sql in case["steps"]] == told(case["observations"])


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", TWO)
def test_two_sessions_are_answered_as_recorded(
    governed: GovernedPostgres, tables: Tables, name: str, prepared: bool
) -> None:
    tables.execute(
        "CREATE TABLE records.pairs AS SELECT id, '' AS name FROM generate_series(1, 3) id"
    )
    first, second = TWO[name]
    with (
        psycopg.connect(governed.url, autocommit=True) as one,
        psycopg.connect(governed.url, autocommit=True) as two,
    ):
        one.prepare_threshold = two.prepare_threshold = 0 if prepared else None
        ones = [answer(one, "BEGIN")]
        twos = [answer(two, "BEGIN")]
        ones.append(answer(one, first))
        twos.append(answer(two, second))  # PostgreSQL would let it wait
        ones.append(answer(one, "COMMIT"))
        twos.append(answer(two, "COMMIT"))
    assert [ones, twos] == [told(session) for session in CONFLICTS[name]["sessions"]]
    lost = sum(seen["outcome"] == "error" for seen in (*ones, *twos))
    named = tables.execute("SELECT count(*) AS n FROM records.pairs WHERE name <> ''")
    assert named == [{"n": {"occ_multirow_predicate": 3}.get(name, 2 - lost)}]
