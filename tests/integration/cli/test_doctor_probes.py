"""``dsql-outbox doctor --probe``: what it asks, what it makes of refusals, and what it leaves."""

import os
import re
import signal
from functools import partial
from typing import Any

import psycopg
import pytest
from tests.support.checkout import ROOT
from tests.support.commands import Command
from tests.support.doctor_runs import found, run, scratch_tables, verdicts
from tests.support.dsql.server import CHOSEN, ON_DSQL

from dsql_outbox.cli.doctor import conflict_probes
from dsql_outbox.cli.doctor.checks import CHECKS
from dsql_outbox.cli.doctor.examined_database import ExaminedDatabase, findings
from dsql_outbox.cli.doctor.feature_probes import LARGE, PROBES
from dsql_outbox.cli.doctor.finding import Finding
from dsql_outbox.cli.doctor.tail_probe import TAIL
from dsql_outbox.outbox import Database
from dsql_outbox.schema.comparison import check
from dsql_outbox.testing import PostgresProxy

INSERT = 'INSERT INTO "outbox".doctor_scratch'

UNANSWERED = {"metering"} if ON_DSQL else set()
"""What an endpoint that says it is DSQL, but is none, has no answer to."""


def not_ok(told: dict[str, dict[str, Any]], *names: str) -> set[str]:
    return {name for name in names if told[name]["verdict"] != "ok"}


@pytest.fixture(autouse=True)
def quick_races(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine a statement that waits is known at once."""
    monkeypatch.setattr(conflict_probes, "_WAIT", 0.05)


def test_every_probe_has_an_answer_and_the_scratch_table_is_dropped(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    told = found(run(url, "--probe", "--probe-large", "--json"))
    assert list(told) == [*CHECKS, *PROBES, *LARGE]
    assert not_ok(told, *PROBES, *LARGE) == UNANSWERED
    values = told["first inserts"]["values"]
    assert ("OC000" if ON_DSQL else "duplicate key value") in values.pop("message")
    assert values == {
        "first": None,
        "second": "40001" if ON_DSQL else "23505",
        "where": "COMMIT" if ON_DSQL else "statement",
        "waited": not ON_DSQL,
    }
    assert told["updates"]["values"]["second"] == "40001"
    assert scratch_tables(sql) == 0
    assert check(Database(url)) == []


@pytest.mark.skipif(CHOSEN != "dsql-16", reason="it is of the endpoint")
def test_the_page_shows_what_is_told_of_the_endpoint(url: str) -> None:
    page = ROOT.joinpath("docs", "dsql.md").read_text(encoding="utf-8")
    shown = page.partition("differ from those of PostgreSQL above:")[2].split("```")[1].strip()
    version = re.compile(r"(?<=Aurora DSQL )[\d.]+")
    told = version.sub("", run(url, "--probe", "--probe-large").stdout).splitlines()
    assert [line for line in version.sub("", shown).splitlines() if line not in told] == []


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
    assert not_ok(told, *PROBES) == {name} | UNANSWERED


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
        "commit": INSERT,
        "pipeline": "BEGIN",
        "row comparison": "EXPLAIN (ANALYZE",
        "lateral read": "AS end_position",
        "burial": "WITH gone AS",
        "unnest": 'DELETE FROM "outbox".outbox o',
        "json": "RETURNING doc",
        "first inserts": "BEGIN ISOLATION",
        "metering": "EXPLAIN (ANALYZE",
        "first upserts": "BEGIN ISOLATION",
        "updates": "BEGIN ISOLATION",
        "async index": "sys.jobs",
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
    assert not_ok(told, *PROBES) == {"lateral read"} | UNANSWERED
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
    assert not_ok(found(run(proxy.url, "--probe", "--json")), *PROBES) == UNANSWERED
    assert scratch_tables(sql) == 0


def test_a_conflict_at_commit_is_told_to_be_there(proxy: PostgresProxy) -> None:
    proxy.refuse(None, at="commit", matching=f"{INSERT} (shard, position, event_id)\nVALUES (0, ")
    told = found(run(proxy.url, "--probe", "--json"))
    assert told["first inserts"]["values"]["first"] == "40001"
    assert told["first inserts"]["values"]["where"] == "COMMIT"


def test_a_large_message_may_cost_its_connection(proxy: PostgresProxy) -> None:
    proxy.cut("before", matching="SELECT octet_length")
    told = found(run(proxy.url, "--probe", "--probe-large", "--json"))
    assert told["large message"]["text"].startswith("a message over 10 MiB drops the connection")
    assert verdicts(told)["large message"] == "ok"


RISING, SCATTERED = "SELECT 0, ", "random()"
"""What the inserts of the probe of a hot tail have, each kind of its own."""


def test_a_hot_tail_is_looked_for_with_rising_and_with_scattered_keys(
    proxy: PostgresProxy, sql: psycopg.Connection[Any]
) -> None:
    (tail,) = [
        each
        for name, each in found(run(proxy.url, "--probe", "--probe-tail", "1", "--json")).items()
        if name == TAIL
    ]
    sent = [text for text in proxy.statements if INSERT in text and "generate_series" in text]
    rising, scattered = (sum(part in text for text in sent) for part in (RISING, SCATTERED))
    assert min(rising, scattered) > 0
    assert tail["verdict"] in {"ok", "warn", "unknown"}  # by the speed of this machine
    if tail["verdict"] != "unknown":
        values = tail["values"]
        assert values["rising_commits"] + values["rising_conflicts"] == rising
        assert values["scattered_commits"] + values["scattered_conflicts"] == scattered
    assert scratch_tables(sql) == 0


def test_a_hot_tail_that_cannot_be_asked_ends_at_once_and_leaves_nothing(
    proxy: PostgresProxy, sql: psycopg.Connection[Any]
) -> None:
    proxy.refuse(None, sqlstate="54000", message="too large", matching="generate_series")
    told = found(run(proxy.url, "--probe", "--probe-tail", "600", "--json"))[TAIL]
    assert (told["verdict"], told["sqlstate"]) == ("unknown", "54000")
    assert scratch_tables(sql) == 0


def test_a_signal_ends_the_load_of_a_hot_tail(
    proxy: PostgresProxy, sql: psycopg.Connection[Any]
) -> None:
    proxy.before(partial(os.kill, os.getpid(), signal.SIGINT), matching=RISING)
    done = run(proxy.url, "--probe", "--probe-tail", "600")
    assert done.exit_code == 128 + signal.SIGINT
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
