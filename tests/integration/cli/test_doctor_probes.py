"""``dsql-outbox doctor --probe``: what it asks, what it makes of refusals, and what it leaves."""

import signal
from typing import Any

import psycopg
import pytest
from tests.support.commands import Command
from tests.support.doctor_runs import found, run, scratch_tables
from tests.support.proxy.postgres_proxy import PostgresProxy

from dsql_outbox.cli.doctor.checks import CHECKS
from dsql_outbox.cli.doctor.examined_database import ExaminedDatabase, findings
from dsql_outbox.cli.doctor.feature_probes import PROBES
from dsql_outbox.cli.doctor.finding import Finding
from dsql_outbox.outbox import Database
from dsql_outbox.schema.comparison import check

INSERT = 'INSERT INTO "outbox".doctor_scratch'


def not_ok(told: dict[str, dict[str, Any]], *names: str) -> set[str]:
    return {name for name in names if told[name]["verdict"] != "ok"}


def test_every_probe_has_an_answer_and_the_scratch_table_is_dropped(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    told = found(run(url, "--probe", "--json"))
    assert list(told) == [*CHECKS, *PROBES]
    assert not_ok(told, *PROBES) == set()
    assert scratch_tables(sql) == 0
    assert check(Database(url)) == []


# Answers of another kind of database.


FORMS = {
    "modifying CTE": ("placed AS", "touch AS ("),
    "lateral read": ("AS end_position", "bound AS ("),
    "burial": ("WITH gone AS", 'INSERT INTO "outbox".dead_letters'),
}
"""Per line a text of the single form alone, and one of the plain form."""


@pytest.mark.parametrize(
    ("name", "sqlstate"), [*zip(FORMS, ["0A000", "42804", "42601"], strict=True)]
)
def test_a_form_that_is_refused_is_a_failure_that_names_the_form_that_works(
    proxy: PostgresProxy, name: str, sqlstate: str
) -> None:
    proxy.refuse(None, sqlstate=sqlstate, message="not supported", matching=FORMS[name][0])
    told = found(run(proxy.url, "--probe", "--json"))
    assert (told[name]["verdict"], told[name]["sqlstate"]) == ("fail", sqlstate)
    assert told[name]["values"] == {"message": "not supported"}
    assert "and the plain form works" in told[name]["text"]
    assert not_ok(told, *PROBES) == {name}


@pytest.mark.parametrize("name", FORMS)
def test_a_database_that_refuses_both_forms_cannot_be_used(proxy: PostgresProxy, name: str) -> None:
    single, plain = FORMS[name]
    proxy.refuse(None, sqlstate="0A000", message="not supported", matching=single)
    proxy.refuse(None, sqlstate="42804", message="nor this", matching=plain)
    told = found(run(proxy.url, "--probe", "--json"))[name]
    assert (told["verdict"], told["sqlstate"]) == ("fail", "42804")
    assert told["values"] == {"message": "nor this"}
    assert told["remedy"] == "use another database"


@pytest.mark.parametrize("sqlstate", ["22P05", "0A000"])
def test_a_refusal_of_what_the_outbox_cannot_do_without_is_a_failure(
    proxy: PostgresProxy, sqlstate: str
) -> None:
    proxy.refuse(sqlstate=sqlstate, message="not supported", matching="RETURNING doc")
    told = found(run(proxy.url, "--probe", "--json"))["json"]
    assert (told["verdict"], told["sqlstate"]) == ("fail", sqlstate)
    assert told["values"] == {"message": "not supported"}


def test_nothing_of_a_proof_is_left(url: str, sql: psycopg.Connection[Any]) -> None:
    run(url, "--probe")
    for table in ("entities", "business_events", "event_headers", "outbox", "dead_letters"):
        assert sql.execute(f"SELECT FROM outbox.{table}").fetchall() == []  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_that_errors_is_told_with_its_sqlstate_and_the_others_go_on(
    proxy: PostgresProxy, sql: psycopg.Connection[Any], name: str
) -> None:
    matching = {
        "pipeline": "BEGIN",
        "row comparison": "EXPLAIN (ANALYZE",
        "lateral read": "AS end_position",
        "burial": "WITH gone AS",
        "unnest": 'DELETE FROM "outbox".outbox o',
        "json": "RETURNING doc",
        "modifying CTE": "WITH entity AS",
    }[name]
    with ExaminedDatabase(Database(proxy.url)) as visit:
        visit.rows("doctor_scratch_create")
        (next_one,) = findings(visit, {"isolation": CHECKS["isolation"]})
        proxy.refuse(sqlstate="XX001", message="broken here", matching=matching)
        told = list(findings(visit, {name: PROBES[name], "isolation": CHECKS["isolation"]}))
    sql.execute("DROP TABLE outbox.doctor_scratch")
    told_of = {"sqlstate": "XX001", "values": {"message": "broken here"}}
    assert told == [Finding(name, "unknown", "XX001: broken here", **told_of), next_one]


def test_a_connection_lost_in_a_probe_is_a_failure_and_the_others_go_on(
    proxy: PostgresProxy, sql: psycopg.Connection[Any]
) -> None:
    proxy.cut("before", matching="AS end_position")
    told = found(run(proxy.url, "--probe", "--json"))
    assert told["lateral read"]["verdict"] == "fail"
    assert not_ok(told, *PROBES) == {"lateral read"}
    assert scratch_tables(sql) == 0


def test_a_changed_catalog_is_asked_again_once(proxy: PostgresProxy) -> None:
    changed = "schema has been updated by another transaction (OC001)"
    proxy.refuse(1, message=changed, matching='DELETE FROM "outbox".outbox o')
    assert found(run(proxy.url, "--probe", "--json"))["unnest"]["verdict"] == "ok"
    proxy.refuse(2, message=changed, matching='DELETE FROM "outbox".outbox o')
    told = found(run(proxy.url, "--probe", "--json"))["unnest"]
    assert (told["verdict"], told["sqlstate"]) == ("unknown", "40001")


@pytest.mark.parametrize("matching", ["CREATE TABLE", "DROP TABLE"])
def test_a_changed_catalog_neither_ends_the_probes_nor_leaves_the_scratch_table(
    proxy: PostgresProxy, sql: psycopg.Connection[Any], matching: str
) -> None:
    proxy.refuse(1, message="(OC001)", matching=matching)
    assert not_ok(found(run(proxy.url, "--probe", "--json")), *PROBES) == set()
    assert scratch_tables(sql) == 0


# The scratch table.


def test_an_interrupted_doctor_drops_its_scratch_table(
    proxy: PostgresProxy, sql: psycopg.Connection[Any]
) -> None:
    held = proxy.hold(matching='DELETE FROM "outbox".outbox o')
    with Command("doctor", "--database", proxy.url, "--probe") as command:
        held.arrived(30.0)  # a whole process starts before
        assert scratch_tables(sql) == 1
        command.signal(signal.SIGTERM)
        done = command.finish()
    held.drop()
    assert done.code == 128 + signal.SIGTERM
    assert done.err == "stopped: the database is unchanged; run the same command again\n"
    assert scratch_tables(sql) == 0


def test_a_scratch_table_that_is_there_is_left_alone_and_named(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    sql.execute("CREATE TABLE outbox.doctor_scratch ()")
    told = found(run(url, "--probe", "--json"))["probe"]
    assert told["verdict"] == "unknown"
    assert told["text"].endswith('run DROP TABLE IF EXISTS "outbox".doctor_scratch')
    assert scratch_tables(sql) == 1
