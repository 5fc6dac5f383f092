"""``dsql-outbox doctor`` on a real PostgreSQL: healthy, and with things broken on purpose."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import psycopg
import pytest
from psycopg import sql as composed
from tests.support import database_roles
from tests.support.brokers.nats_cluster import custom_server
from tests.support.checkout import ROOT
from tests.support.database_roles import creation
from tests.support.doctor_runs import found, run, verdicts
from tests.support.dsql.server import ON_DSQL
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.pty_terminal import Terminal

from dsql_outbox.cli.doctor import verdicts as doctor_verdicts
from dsql_outbox.cli.doctor.checks import CHECKS
from dsql_outbox.cli.doctor.examined_database import ExaminedDatabase, unopened
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher import open_sink
from dsql_outbox.testing import NatsServer
from dsql_outbox.writer import Writer

KIND = "Aurora DSQL" if ON_DSQL else "PostgreSQL"


def as_role(sql: psycopg.Connection[Any], url: str, *grants: str) -> Iterator[str]:
    role = f"role_{uuid4().hex}"
    name = composed.Identifier(role)
    sql.execute(creation(url, role))
    for grant in ("USAGE ON SCHEMA outbox", *grants):
        sql.execute(composed.SQL(f"GRANT {grant} TO {{}}").format(name))  # type: ignore[arg-type]
    yield database_roles.as_role(url, role)
    sql.execute(composed.SQL("DROP OWNED BY {}").format(name))
    sql.execute(composed.SQL("DROP ROLE {}").format(name))


@pytest.fixture
def publisher_url(sql: psycopg.Connection[Any], url: str) -> Iterator[str]:
    """A publisher that lacks one right."""
    yield from as_role(
        sql,
        url,
        "SELECT ON outbox.outbox, outbox.outbox_backlog, outbox.outbox_leases",
        "SELECT ON outbox.outbox_targets",
        "UPDATE ON outbox.outbox_leases",
        "SELECT, INSERT, UPDATE, DELETE ON outbox.outbox_publishers, outbox.outbox_failures",
        "INSERT ON outbox.dead_letters",
        "SELECT ON outbox.schema_migrations, outbox.dead_letters",
    )


@pytest.fixture
def writer_url(sql: psycopg.Connection[Any], url: str) -> Iterator[str]:
    """A writer with all its rights and no other."""
    yield from as_role(
        sql,
        url,
        "SELECT, INSERT ON outbox.business_events, outbox.event_headers",
        "SELECT, INSERT, UPDATE ON outbox.entities",
        "INSERT ON outbox.outbox",
        "SELECT ON outbox.outbox_backlog, outbox.outbox_leases, outbox.outbox_targets",
    )


# Healthy.


def test_a_healthy_database_is_told_check_by_check(url: str, sql: psycopg.Connection[Any]) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox_publishers (owner, seen_at, lease_seconds, paused, target)"
        " VALUES ('me', clock_timestamp() - interval '30 s', 60, '[]', 'default')"
    )
    told = found(run(url, "--json"))
    assert list(told) == list(CHECKS)
    assert set(verdicts(told).values()) == {"ok"}
    assert told["server"]["values"]["kind"] == KIND
    assert abs(told["clock"]["values"]["offset"]) < 1
    assert told["shards"]["values"] == {"shards": 3, "leased": 0}
    assert told["relay"]["text"] == "1 publisher alive, nothing waits"


def test_a_sink_is_opened_and_the_streams_of_stored_and_waiting_topics_are_judged(
    url: str, nats_server: NatsServer
) -> None:
    with Writer(Database(url)) as writer:
        writer.write(Event.new("LoanCreated", [Entity("Loan", "LOAN-1", {})]))
    anyio.run(_make_stream, nats_server.url)
    told = found(run(url, "--sink", nats_server.url, "--json"))
    assert told["sink"]["text"] == "stream LOANS: 1 replica, file storage"
    assert told["sink"]["verdict"] == "warn"
    assert "--replicas=3" in told["sink"]["remedy"]


async def _make_stream(url: str) -> None:
    async with open_sink(f"{url}?stream=LOANS&subjects=events.LoanCreated"):
        pass


def test_a_broker_that_cannot_be_asked_hides_no_other_check(url: str, tmp_path: Path) -> None:
    """NATS without JetStream."""
    with Writer(Database(url)) as writer:
        writer.write(Event.new("LoanCreated", [Entity("Loan", "LOAN-1", {})]))
    with custom_server(tmp_path) as host:
        told = found(run(url, "--sink", f"nats://{host}?timeout=1", "--json"))
    assert told["sink"]["verdict"] == "unknown"
    assert "cannot be asked" in told["sink"]["text"]
    assert set(told) == {*CHECKS, "sink"}


def test_without_probe_nothing_is_written(proxy: PostgresProxy) -> None:
    run(proxy.url)
    texts = [re.sub(r"--.*|'.*?'", "", text) for text in proxy.statements]
    assert texts
    writes = re.compile(r"\b(INSERT|UPDATE|DELETE|CREATE|DROP|GRANT|ALTER)\b")
    assert [text for text in texts if writes.search(text)] == []


def test_a_terminal_gets_colours(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    env = {"TERM": "xterm-256color"}
    with Terminal(200, "doctor", "--database", url, env=env) as terminal:
        assert terminal.finish() == 0
    assert b"\x1b[32mok" in terminal.output


# Broken on purpose.


def test_a_role_that_may_make_no_table_gets_every_check_and_no_probe(publisher_url: str) -> None:
    told = found(run(publisher_url, "--probe", "--json"))
    assert list(told) == [*CHECKS, "probe"]
    assert (told["probe"]["verdict"], told["probe"]["sqlstate"]) == ("unknown", "42501")


@pytest.mark.parametrize(("skew", "verdict"), [(-5.0, "warn"), (600.0, "fail")])
def test_a_skewed_clock_is_noticed(
    url: str, monkeypatch: pytest.MonkeyPatch, skew: float, verdict: str
) -> None:
    rows = ExaminedDatabase.rows

    def skewed(visit: ExaminedDatabase, name: str, *more: Any, **literals: Any) -> Any:
        answer = rows(visit, name, *more, **literals)
        return [(answer[0][0] + skew,)] if name == "doctor_clock" else answer

    monkeypatch.setattr(ExaminedDatabase, "rows", skewed)
    told = found(run(url, "--json"))
    assert told["clock"]["verdict"] == verdict
    assert told["clock"]["values"]["offset"] == pytest.approx(skew, abs=0.5)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("FATAL: could not write init file: No space left on device", "make room on the disk"),
        ('FATAL: database "shop" does not exist', "the name of the database"),
        ('FATAL: password authentication failed for user "me"', "its password"),
        ("Connection refused", "the host and the port"),
    ],
)
def test_a_connection_that_cannot_be_opened_fails_with_what_helps(text: str, remedy: str) -> None:
    found = unopened(psycopg.OperationalError(f"connection failed: {text}"))
    assert (found.name, found.verdict) == ("server", "fail")
    assert text in found.text
    assert remedy in str(found.remedy)


@pytest.mark.postgres_only("changes the defaults of sessions")
def test_a_server_that_accepts_no_writes_fails(url: str, sql: psycopg.Connection[Any]) -> None:
    """A standby, or a former primary after a failover."""
    name = composed.Identifier(sql.info.dbname)
    sql.execute(
        composed.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name)
    )
    done = run(url, "--json")
    server = found(done)["server"]
    assert (done.exit_code, server["verdict"]) == (1, "fail")
    assert server["text"].endswith("; it accepts no writes")


def test_what_a_writer_may_not_read_is_unknown_to_it_and_no_failure(writer_url: str) -> None:
    told = found(run(writer_url, "--json"))
    assert told["role"]["text"].endswith("has the rights of writer")
    hidden = {name for name, verdict in verdicts(told).items() if verdict == "unknown"}
    assert hidden == {"schema", "shards", "relay"}
    assert {told[name]["sqlstate"] for name in hidden} == {"42501"}


# The page about it.


def test_the_page_explains_every_line_that_is_printed() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    shown = re.findall(r"^(?:ok|fail) {5,}([a-z ]+?) {2,}", page, re.MULTILINE)
    assert shown
    assert set(shown) <= set(CHECKS)
    for name in CHECKS:
        assert re.search(rf"^\| ([\w ]+, )*{name}[ ,]", page, re.MULTILINE), name


@pytest.mark.skipif(ON_DSQL, reason="Aurora DSQL has no VACUUM")
def test_deleted_rows_that_an_old_snapshot_keeps_are_told_with_its_session(
    url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_verdicts, "MOST_DEAD", 10)
    with psycopg.connect(url) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT 1")
        sql.execute(
            "INSERT INTO outbox.outbox SELECT 0, n, gen_random_uuid(), 0, 'Car', n::text, 1, 't',"
            " '{}', '{}', 2, now() FROM generate_series(1, 50) AS n"
        )
        sql.execute("DELETE FROM outbox.outbox")
        sql.execute("SELECT pg_stat_force_next_flush()")
        sql.execute("SELECT 1")  # the statistics are sent between two statements
        told = found(run(url, "--json"))["vacuum"]
        assert told["values"]["rows"] == 50
        assert (told["values"]["kind"], told["values"]["name"]) == (
            "session",
            str(old.info.backend_pid),
        )
