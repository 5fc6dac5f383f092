"""The doctor's verdicts on numbers and names, without a database."""

import psycopg
import pytest

from dsql_outbox.cli.doctor.examined_database import failure
from dsql_outbox.cli.doctor.statement_probes import judge_rows_read, most_rows
from dsql_outbox.cli.doctor.verdicts import (
    ClockReading,
    DeadRows,
    judge_clock,
    judge_path,
    judge_relay,
    judge_role,
    judge_tls,
    judge_vacuum,
    offset_of,
)
from dsql_outbox.operations.attention import Attention
from dsql_outbox.outbox import SchemaError
from dsql_outbox.schema.roles import Duty

Lacks = dict[Duty, list[tuple[str, str | None]]]


@pytest.mark.parametrize(
    ("offset", "bound", "verdict"),
    [
        (0.0, 0.01, "ok"),
        (-1.0, 0.01, "ok"),
        (1.5, 0.6, "ok"),  # it may be 0.9 s only
        (1.5, 0.4, "warn"),
        (-61.0, 0.4, "fail"),
        (300.0, 0.01, "fail"),
    ],
)
def test_a_clock_is_judged_by_what_is_sure_of_its_offset(
    offset: float, bound: float, verdict: str
) -> None:
    found = judge_clock(offset, bound)
    assert found.verdict == verdict
    assert found.values == {"offset": offset, "bound": bound}
    assert (found.remedy is None) == (verdict == "ok")


def test_the_offset_is_of_the_middle_of_the_quickest_round_trip() -> None:
    samples = [
        ClockReading(8.0, 100.0, 120.0),
        ClockReading(2.0, 110.0, 116.0),
        ClockReading(4.0, 130.0, 130.0),
    ]
    assert offset_of(samples) == (5.0, 1.0)


@pytest.mark.parametrize(("offset", "words"), [(2.0, "ahead of"), (-2.0, "behind")])
def test_it_is_said_whose_clock_is_ahead(offset: float, words: str) -> None:
    assert (
        judge_clock(offset, 0.1).text
        == f"the database is 2.000 s {words} this machine, +/- 0.1000 s"
    )


@pytest.mark.parametrize(
    ("host", "version", "mode", "verdict"),
    [
        ("db.example.com", "TLSv1.3", "verify-full", "ok"),
        ("db.example.com", "TLSv1.3", "verify-ca", "warn"),
        ("db.example.com", "TLSv1.3", "require", "warn"),
        ("db.example.com", None, "disable", "fail"),
        ("127.0.0.1", "TLSv1.3", "prefer", "ok"),
        ("127.0.0.1", None, "disable", "ok"),
        ("/tmp", None, "disable", "ok"),
        ("", None, "disable", "ok"),
    ],
)
def test_tls_must_be_verified_unless_the_server_is_on_this_machine(
    host: str, version: str | None, mode: str, verdict: str
) -> None:
    found = judge_tls(host, version, mode)
    assert found.verdict == verdict
    assert (found.remedy is None) == (verdict == "ok")


def test_a_role_needs_the_rights_of_one_duty() -> None:
    lacks: Lacks = {"writer": [("INSERT", "outbox")], "publisher": [], "operator": []}
    found = judge_role("app", "outbox", lacks)
    assert (found.verdict, found.text) == ("ok", "app has the rights of publisher, operator")
    assert found.values == {"writer": False, "publisher": True, "operator": True}


def test_the_grant_for_the_nearest_duty_is_ready_to_paste() -> None:
    lacks: Lacks = {
        "writer": [("USAGE", None), ("INSERT", "outbox")],
        "publisher": [
            *(("USAGE", None), ("SELECT", "outbox"), ("DELETE", "outbox")),
            ("INSERT", "dead_letters"),
        ],
    }
    found = judge_role("my app", "mine", lacks)
    assert found.text == (
        "my app has the rights of no role; "
        "as writer it lacks USAGE on schema mine, INSERT on outbox"
    )
    remedy = "run dsql-outbox schema grant --schema mine --writer 'my app'"
    assert (found.verdict, found.remedy) == ("fail", remedy)


@pytest.mark.parametrize(
    ("path", "creators", "remedy"),
    [
        ("pg_catalog", None, None),
        ("pg_catalog", "PUBLIC, app", "run REVOKE CREATE ON SCHEMA public FROM PUBLIC, app"),
        ('"$user", public', None, "run ALTER ROLE me SET search_path = pg_catalog"),
    ],
)
def test_a_path_on_which_others_may_create_is_a_warning(
    path: str, creators: str | None, remedy: str | None
) -> None:
    found = judge_path(path, "me", creators)
    assert (found.verdict, found.remedy) == ("warn" if remedy else "ok", remedy)


@pytest.mark.parametrize(
    ("alive", "oldest", "text", "verdict"),
    [
        (1, None, None, "ok"),
        (1, 60.0, None, "ok"),
        (1, 61.0, "They are behind. Subject a is long.", "warn"),
        (0, None, "None is alive.", "warn"),
        (0, 1.0, "None is alive.", "warn"),
        (0, 61.0, "No broker.", "fail"),
    ],
)
def test_messages_that_wait_for_nobody_are_a_failure(
    alive: int, oldest: float | None, text: str | None, verdict: str
) -> None:
    """The words are those of `status`, and so is the command."""
    first = None if text is None else Attention(text, "watch dsql-outbox status")
    found = judge_relay(alive, oldest, first)
    assert found.verdict == verdict
    if text is not None:
        assert (found.text, found.remedy) == (text.split(".")[0], "run watch dsql-outbox status")


POSTGRES = """\
Append  (cost=0.29..8.4 rows=6 width=10) (actual time=0.02..0.05 rows=6.00 loops=1)
  ->  Nested Loop  (cost=0.29..8.4 rows=5 width=10) (actual time=0.02..0.05 rows=5.00 loops=1)
        ->  Limit  (cost=0.14..8.1 rows=1 width=8) (actual time=0.01..0.01 rows=1.00 loops=1)
        ->  Index Scan using outbox_pkey on outbox o  (actual time=0.01 rows={rows} loops={loops})
              Index Cond: (ROW("position", event_id) > ROW($1, $2))
              Rows Removed by Filter: {removed}
              Rows Removed by Index Recheck: 1"""
DSQL = """\
Index Scan using outbox_pkey on outbox  (cost=100.2..200.3 rows=10 width=4) (actual rows=5 loops=1)
  -> Storage Scan on outbox (cost=100.2..200.3 rows=10 width=4) (actual rows={rows} loops={loops})
      -> B-Tree Scan on outbox (cost=100.2..200.3 rows=10 width=4) (actual rows={rows} loops=1)"""


@pytest.mark.parametrize(
    ("plan", "rows", "loops", "removed", "most", "verdict"),
    [
        (POSTGRES, "5.00", 1, 0, 6, "ok"),
        (POSTGRES, "5.00", 1, 34, 40, "warn"),
        (POSTGRES, "5.00", 8, 0, 48, "warn"),
        (DSQL, 5, 1, 0, 5, "ok"),
        (DSQL, 40, 1, 0, 40, "warn"),
        ("Seq Scan on outbox (cost=0.0..1.0 rows=40 width=4)", 0, 0, 0, None, "unknown"),
    ],
)
def test_a_plan_is_judged_by_the_rows_that_its_nodes_looked_at(
    plan: str, rows: object, loops: int, removed: int, most: int | None, verdict: str
) -> None:
    lines = plan.format(rows=rows, loops=loops, removed=removed).splitlines()
    assert most_rows(lines) == most
    assert judge_rows_read([6, most]).verdict == ("ok" if most is None else verdict)
    assert judge_rows_read([most]).verdict == verdict


def test_a_question_without_an_answer_is_unknown_and_without_a_database_a_failure() -> None:
    refused = failure("json", psycopg.errors.FeatureNotSupported("no json\nhere"))
    assert (refused.verdict, refused.text, refused.sqlstate) == (
        "unknown",
        "0A000: no json here",
        "0A000",
    )
    assert failure("json", psycopg.OperationalError("server closed")).verdict == "fail"
    assert failure("relay", SchemaError("run it")).text == "run it"


def test_who_lacks_a_right_is_sent_to_the_owner() -> None:
    found = failure("commit", psycopg.errors.InsufficientPrivilege("denied"))
    assert found.remedy == "ask again as the owner of the tables"


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (DeadRows(100_001, True, "session", "7", "ann", 300.0), "session 7 of ann"),
        (DeadRows(100_001, True, "prepared transaction", "g1", "ann", 9.0), "g1 of ann"),
        (DeadRows(100_001, True, "replication slot", "copy", None, None), "replication slot copy"),
        (DeadRows(100_001, True, None, None, None, None), "pg_read_all_stats"),
        (DeadRows(100_001, False, "session", "7", "ann", 300.0), "autovacuum"),
    ],
)
def test_many_deleted_rows_are_told_with_what_keeps_them(found: DeadRows, names: str) -> None:
    told = judge_vacuum(found)
    assert told.verdict == "warn"
    assert names in str(told.remedy)
    assert judge_vacuum(found._replace(rows=100_000)).verdict == "ok"
