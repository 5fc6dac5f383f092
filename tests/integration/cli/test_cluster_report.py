"""``make cluster-report``: what it tries, what it writes, and what it leaves."""

import json
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from shutil import which
from typing import Any
from uuid import UUID

import psycopg
import pytest
from benchmarks.cluster import hot_storm, hour, isolation, probes, takeover
from benchmarks.cluster.__main__ import main
from benchmarks.cluster.isolation_cases import CASES
from benchmarks.cluster.probes import REPORTED
from benchmarks.cluster.proofs import HOUR, PROOFS, SCRATCH, proved
from benchmarks.cluster.report_file import Place, dated, markdown, write_report
from tests.support.checkout import ROOT
from tests.support.dsql.server import ON_DSQL

from dsql_outbox.cli.doctor import conflict_probes
from dsql_outbox.cli.doctor.checks import CHECKS
from dsql_outbox.cli.doctor.examined_database import ExaminedDatabase
from dsql_outbox.cli.doctor.feature_probes import PROBES
from dsql_outbox.cli.doctor.finding import Finding, Report, Value, refused
from dsql_outbox.outbox import Database, Receipt
from dsql_outbox.testing import PostgresProxy


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflict_probes, "_WAIT", 0.05)
    monkeypatch.setattr(takeover, "_LEASE", 1.0)
    monkeypatch.setattr(hot_storm, "WRITERS", 5)
    if not ON_DSQL:
        monkeypatch.setattr(probes, "_ROWS_IN_MEMORY", 100)


def test_the_page_explains_what_a_report_adds() -> None:
    page = (ROOT / "benchmarks" / "cluster" / "README.md").read_text(encoding="utf-8")
    for name in (*REPORTED, isolation.NAME, *PROOFS):
        assert re.search(rf"^ok       {name} ", page, re.MULTILINE), name
    for name in (*REPORTED, isolation.NAME, *PROOFS, *HOUR):
        assert f"| `{name}` |" in page, name
    assert f"{len(CASES)} schedules" in page
    assert SCRATCH in page


def reported(url: str, file: Path) -> dict[str, dict[str, Any]]:
    """Write a report, and return its findings by name."""
    main([url, str(file)])
    lines = file.read_text().split("```jsonl\n")[1].split("```")[0].splitlines()
    return {found["name"]: found for found in map(json.loads, lines[1:])}


def has_scratch(sql: psycopg.Connection[Any]) -> bool:
    return bool(sql.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [SCRATCH]).fetchall())


@pytest.mark.slow
def test_a_report_holds_every_finding_and_the_scratch_schema_is_removed(
    url: str, sql: psycopg.Connection[Any], tmp_path: Path
) -> None:
    file = tmp_path / "report.md"
    told = reported(url, file)
    proofs = [*REPORTED, isolation.NAME, *PROOFS]
    assert list(told) == [*CHECKS, *PROBES, *proofs]
    unpriced = {"statement costs", "compression"} if ON_DSQL else set()
    assert {name for name in proofs if told[name]["verdict"] != "ok"} == unpriced
    results = told[isolation.NAME]["values"]
    assert list(results) == [case.name for case in CASES]
    assert {case.name for case in CASES if results[case.name] == "possible"} == {"G2-item", "G2"}
    assert told["20 writes"]["values"]["conflicts"] > 0
    assert told["hot storm"]["values"]["stored"] == told["hot storm"]["values"]["written"] == 25
    assert file.stat().st_mode & 0o777 == 0o600
    assert [*tmp_path.iterdir()] == [file]
    moved = told["take-over"]["values"]
    assert moved["stored"] > 0
    assert 0.5 < moved["seconds"] < 10
    assert not has_scratch(sql)
    page = file.read_text()
    assert "| G0 | dirty write | prevented |" in page
    about, *lines = map(json.loads, page.split("```jsonl\n")[1].split("```")[0].splitlines())
    assert about["report"] == {"schema": "outbox", "failed": False}
    assert [line["name"] for line in lines] == list(told)
    with psycopg.connect(url) as connection:
        assert f"{connection.info.user} has the rights" not in page
    assert "ROLE has the rights" in page


@pytest.mark.skipif(which("jq") is None, reason="the page's command uses jq")
def test_the_pages_command_finds_what_two_reports_answer_differently(tmp_path: Path) -> None:
    page = (ROOT / "benchmarks" / "cluster" / "README.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"```bash\n(answers\(\).*?)\n```\n", page, re.DOTALL)
    where: dict[str, Value] = {"where": "COMMIT", "waited": False}
    here = [
        Finding("commit", "ok", "1 ms", values={"seconds": 0.001}),
        Finding("updates", "ok", "gets 40001 at COMMIT", values=where),
        refused(
            "infinity",
            "unknown",
            "22008: out of range",
            psycopg.errors.DatetimeFieldOverflow("too late"),
        ),
    ]
    there = [
        Finding("commit", "ok", "9 ms", values={"seconds": 0.009}),
        Finding("updates", "ok", "waits and gets 40001", values=where | {"waited": True}),
        Finding("infinity", "ok", "works"),
    ]
    for name, told in (("here", here), ("there", there)):
        report = dated(
            Report("outbox", failed=False, findings=tuple(told)), Place({"me": "ROLE"}, None)
        )
        write_report(tmp_path / f"{name}.md", markdown(report))
    done = subprocess.run(
        ["bash", "-c", commands], check=False, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, ""), "as diff ends"
    assert [line for line in done.stdout.splitlines() if line[0] in "<>"] == [
        '< ["updates","ok",null,{"where":"COMMIT","waited":false}]',
        '< ["infinity","unknown","22008",{"message":"too late"}]',
        '> ["updates","ok",null,{"where":"COMMIT","waited":true}]',
        '> ["infinity","ok",null,{}]',
    ]


@pytest.mark.skipif(ON_DSQL, reason="DSQL has one isolation level")
def test_anomalies_are_found_where_transactions_are_isolated_less(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def less(connection: Any, schema: str, name: str, *more: Any, **literals: Any) -> Any:
        if name == "doctor_begin":
            return connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        return ran(connection, schema, name, *more, **literals)

    ran = isolation.run
    monkeypatch.setattr(isolation, "run", less)
    with ExaminedDatabase(Database(url)) as visit:
        visit.rows("doctor_scratch_create")
        (told,) = isolation.isolation_cases(visit)
        visit.rows("doctor_scratch_drop")
    broken = {name for name, result in told.values.items() if result == "broken"}
    assert told.verdict == "fail"
    assert {"P4", "PMP", "G-single", "G-single predicate", "G1b"} <= broken
    assert "G1a" not in broken


@pytest.mark.parametrize(
    "matching",
    [
        f'insert into "{SCRATCH}".business_events',  # in an event loop
        f'"{SCRATCH}".outbox_topics',  # while tables are created
    ],
    ids=["writing", "creating"],
)
def test_an_interrupt_removes_the_scratch_schema(
    proxy: PostgresProxy, sql: psycopg.Connection[Any], matching: str
) -> None:
    def interrupt() -> None:
        held.arrived(30.0)
        assert has_scratch(sql)
        os.kill(os.getpid(), signal.SIGINT)

    with ExaminedDatabase(Database(proxy.url)) as visit, ThreadPoolExecutor(1) as thread:
        held = proxy.hold(matching=matching)
        interrupted = thread.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(proved(visit, proxy.url, PROOFS))
        interrupted.result()
    held.drop()
    assert not has_scratch(sql)


def test_a_scratch_schema_that_is_there_is_left_alone_and_named(
    url: str, sql: psycopg.Connection[Any], tmp_path: Path
) -> None:
    sql.execute(f"CREATE SCHEMA {SCRATCH}")
    told = reported(url, tmp_path / "report.md")
    assert told["scratch schema"]["verdict"] == "unknown"
    assert told["scratch schema"]["text"].endswith(f"DROP SCHEMA {SCRATCH} CASCADE")
    assert has_scratch(sql)


def test_a_report_that_cannot_be_written_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["postgresql://127.0.0.1:1/x", "/nowhere/r.md"])
    assert raised.value.code == 2
    assert "the folder /nowhere does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe"])
def test_a_report_follows_no_link(
    url: str, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, target = tmp_path / "report.md", tmp_path / "target"
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(target)
    if kind == "link":
        target.write_text("of another user")
    with pytest.raises(SystemExit) as raised:
        main([url, str(file)])
    assert (raised.value.code, "is a link or no regular file" in capsys.readouterr().err) == (
        2,
        True,
    )
    assert kind != "link" or target.read_text() == "of another user"


def test_a_report_replaces_a_file_and_even_a_late_link(tmp_path: Path) -> None:
    file, target = tmp_path / "report.md", tmp_path / "target"
    file.write_text("an earlier report")
    file.chmod(0o644)
    write_report(file, "new")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)
    target.write_text("of another user")
    file.unlink()
    file.symlink_to(target)
    write_report(file, "new")
    assert (file.read_text(), target.read_text()) == ("new", "of another user")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_report(tmp_path / "folder", "new")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "report.md", "target"]


@pytest.mark.parametrize("end", ["57P01", None])
def test_an_hour_tells_how_a_connection_ended_and_that_writes_went_on(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch, end: str | None
) -> None:
    monkeypatch.setattr(hour, "_LENGTH", 0.5)
    monkeypatch.setattr(hour, "_EVERY", 0.02)
    clock = "SELECT extract(epoch FROM clock_timestamp())::float8"
    if end:
        proxy.refuse(1, sqlstate=end, message="connection lifetime", matching=clock)
    else:
        proxy.cut("before", matching=clock)
    with ExaminedDatabase(Database(proxy.url)) as visit:
        (told,) = proved(visit, proxy.url, HOUR)
    assert (told.verdict, told.sqlstate) == ("ok", end)
    assert told.values["stored"] == told.values["written"] != 0
    assert re.match(rf"a connection ended after 0 s with {end or 'no SQLSTATE'}; ", told.text)


def test_ctrl_c_ends_the_hour_and_its_line_has_what_was_seen(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hour, "_EVERY", 0.02)
    asked = count(1)

    def interrupt() -> None:
        if next(asked) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    clock = "SELECT extract(epoch FROM clock_timestamp())::float8"
    proxy.before(interrupt, times=None, matching=clock)
    with ExaminedDatabase(Database(proxy.url)) as visit:
        (told,) = proved(visit, proxy.url, HOUR)
    assert told.verdict == "unknown"
    assert re.match(r"stopped after \d+ s: a connection outlived \d+ s; 3 of 3 writes", told.text)


def test_lost_writes_are_a_failure_of_the_hour_and_of_the_storm() -> None:
    lost = hour.judge_hour(None, 389, 390, 0.5)
    assert (lost.verdict, lost.text) == (
        "fail",
        "a connection outlived 65 minutes; 389 of 390 writes stored, longest 0.5 s",
    )
    one = (0.25, Receipt(UUID(int=1), "committed", 2, 1, 5, ()))
    stormy = hot_storm.judge_storm([one], [one, (9.5, psycopg.errors.SerializationFailure())], 9.5)
    assert stormy.verdict == "fail"
    assert stormy.text.startswith("1 of 2 events")
    assert "SerializationFailure" in stormy.text


@pytest.mark.parametrize("sqlstate", ["54000", "53200"])
def test_the_answer_to_a_query_over_its_memory_is_told(proxy: PostgresProxy, sqlstate: str) -> None:
    proxy.refuse(1, sqlstate=sqlstate, message="more than allowed", matching="generate_series")
    with ExaminedDatabase(Database(proxy.url)) as visit:
        (told,) = probes.memory_limit(visit)
    assert (told.verdict, told.sqlstate) == ("ok", sqlstate)
    assert told.values["message"] == "more than allowed"
