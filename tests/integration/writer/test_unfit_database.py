"""A database that is not there, not ours, or not ready: said at once, in words that help."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, Facts, OpenWriter, outcome_of
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import AttemptEnded
from dsql_outbox.outbox import SchemaError
from dsql_outbox.testing import EmbeddedPostgres
from dsql_outbox.writer import WriterSettings, http_status
from dsql_outbox.writer.http_status import HttpAnswer

PATIENT = WriterSettings()  # ten seconds of outage
AT_ONCE = 2.0  # seconds


@pytest.fixture
def locked_url(url: str, tables: Tables) -> Iterator[str]:
    """The same database, for a role that needs a password and gives a wrong one."""
    (row,) = tables.execute("SHOW hba_file")
    rules = Path(row["hba_file"])
    before = rules.read_text()
    tables.execute("DROP ROLE IF EXISTS locked")
    tables.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
    rules.write_text(f"host all locked all scram-sha-256\n{before}")
    tables.execute("SELECT pg_reload_conf()")
    wait_until(lambda: _is_refused(_as(url, "locked:wrong")))
    yield _as(url, "locked:wrong")
    rules.write_text(before)
    tables.execute("SELECT pg_reload_conf()")
    tables.execute("DROP ROLE locked")


def _as(url: str, login: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{login}@{parts.hostname}:{parts.port}").geturl()


def _is_refused(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return True
    return False


def assert_refused_at_once(open_writer: OpenWriter, url: str, text: str, facts: Facts) -> None:
    began = monotonic()
    error = outcome_of(partial(open_writer(url, PATIENT, [facts]).write, workload_s.car_created()))
    assert monotonic() - began < AT_ONCE
    assert isinstance(error, psycopg.OperationalError)
    assert text in str(error)
    assert len(facts.of(AttemptEnded)) == 1
    assert http_status(error) == HttpAnswer(500)


@pytest.mark.postgres_only("ministack lets everybody in")
def test_a_wrong_password_is_said_at_once_and_not_repeated(
    open_writer: OpenWriter, locked_url: str, facts: Facts, caplog: pytest.LogCaptureFixture
) -> None:
    assert_refused_at_once(open_writer, locked_url, "password authentication failed", facts)
    assert "wrong" not in caplog.text


@pytest.mark.postgres_only("ministack lets everybody in")
def test_an_unknown_database_is_said_at_once(
    open_writer: OpenWriter, url: str, facts: Facts
) -> None:
    unknown = f"{url}_unknown"
    assert_refused_at_once(open_writer, unknown, '_unknown" does not exist', facts)


@pytest.mark.postgres_only("ministack lets everybody in")
def test_an_unknown_role_is_said_at_once(open_writer: OpenWriter, url: str, facts: Facts) -> None:
    unknown = _as(url, "nobody:wrong")
    assert_refused_at_once(open_writer, unknown, 'authentication failed for user "nobody"', facts)


def test_missing_tables_are_named_with_the_command_that_makes_them(
    open_writer: OpenWriter, postgres: EmbeddedPostgres, facts: Facts
) -> None:
    """The server's database postgres has none."""
    caller = open_writer(postgres.url, PATIENT, [facts])
    with pytest.raises(SchemaError, match="run `dsql-outbox schema apply`") as raised:
        caller.write(workload_s.car_created())
    assert isinstance(raised.value.__cause__, psycopg.errors.UndefinedTable)
    assert len(facts.of(AttemptEnded)) == 1
    assert http_status(raised.value) == HttpAnswer(500)


def test_tables_that_go_missing_later_are_named_too(
    open_writer: OpenWriter, url: str, tables: Tables
) -> None:
    caller = open_writer(url)
    caller.write(workload_s.car_created())
    tables.execute("DROP SCHEMA outbox CASCADE")
    with pytest.raises(SchemaError, match="schema outbox lacks the outbox tables"):
        caller.write(workload_s.car_created())


def test_a_writer_without_shards_is_told_what_to_run(
    open_writer: OpenWriter, url: str, tables: Tables
) -> None:
    tables.execute("DELETE FROM outbox.outbox_leases")
    with pytest.raises(SchemaError, match="has no shards: run `dsql-outbox schema apply`"):
        open_writer(url).write(workload_s.car_created())


def test_a_database_that_is_down_is_tried_for_the_time_of_an_outage(
    open_writer: OpenWriter, proxy: PostgresProxy, facts: Facts, tables: Tables
) -> None:
    settings = replace(QUICK, base=0.05, cap=0.1, max_outage=0.5)
    event = workload_s.car_created()
    proxy.pause_listening()
    began = monotonic()
    error = outcome_of(partial(open_writer(proxy.url, settings, [facts]).write, event))
    took = monotonic() - began
    assert 0.3 <= took < 0.5 + 5.0, "by itself it tries for ten seconds"
    assert isinstance(error, psycopg.OperationalError)
    assert http_status(error) == HttpAnswer(503, retry_after=5)
    assert facts.waits() == [0.05, *[0.1] * (len(facts.waits()) - 1)]
    assert len(facts.waits()) > 2
    tables.assert_true_to({event.id: error})


def test_a_database_that_comes_up_in_time_gets_the_event(
    open_writer: OpenWriter, proxy: PostgresProxy, facts: Facts, tables: Tables
) -> None:
    proxy.refuse_connections(3)
    receipt = open_writer(proxy.url, hooks=[facts]).write(workload_s.car_created())
    assert (receipt.attempts, receipt.conflicts) == (4, 0)
    assert [fact.outcome for fact in facts.of(AttemptEnded)] == [*["failed"] * 3, "committed"]
    tables.assert_true_to({receipt.event_id: receipt})
