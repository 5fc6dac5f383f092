"""The backlog alarm: when it looks, and what it says; the clock is the test's."""

import logging
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.support.clock import Clock
from tests.support.writer.callers import Facts

from dsql_outbox.observability.facts import BacklogAge, BacklogUnread
from dsql_outbox.observability.log_hook import log_facts
from dsql_outbox.outbox import Database
from dsql_outbox.writer import WriterSettings, backlog_alarm
from dsql_outbox.writer.backlog_alarm import Alarm


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    clock.now = 1000.0
    monkeypatch.setattr(backlog_alarm, "monotonic", clock)
    return clock


@pytest.fixture
def database() -> Database:
    return Database(f"postgresql://localhost/{uuid4().hex}")


def alarm(database: Database, facts: Facts | None = None, **settings: Any) -> Alarm:
    settings = {"backlog_check": 30.0} | settings
    return Alarm(database, WriterSettings(**settings), [facts] if facts else [])


def test_the_first_look_comes_an_interval_after_the_first_write(
    clock: Clock, database: Database
) -> None:
    one = alarm(database)
    due = []
    for _ in range(7):
        due.append(one.is_due())
        clock.now += 10
    assert due == [False, False, False, True, False, False, True]


def test_the_writers_of_a_process_take_turns(clock: Clock, database: Database) -> None:
    one, two, elsewhere = alarm(database), alarm(database), alarm(Database("postgresql://h/other"))
    assert not any(a.is_due() for a in (one, two, elsewhere))
    clock.now += 30
    assert [a.is_due() for a in (one, two, elsewhere)] == [True, False, True]


def test_another_schema_is_another_backlog(clock: Clock) -> None:
    name = f"postgresql://localhost/{uuid4().hex}"
    alarms = [alarm(Database(name, schema=schema)) for schema in ("a", "b")]
    assert not any(a.is_due() for a in alarms)
    clock.now += 30
    assert all(a.is_due() for a in alarms)


def test_none_is_never(clock: Clock, database: Database) -> None:
    never = alarm(database, backlog_check=None)
    for _ in range(3):
        assert not never.is_due()
        clock.now += 1000


def test_what_it_saw_is_a_fact(database: Database) -> None:
    facts = Facts()
    one = alarm(database, facts, backlog_warn=7.0)
    one.tell_age([(3, 12.5)])
    one.tell_age([])
    one.tell_age([(3, -0.001)])
    assert facts.all == [
        BacklogAge(12.5, 3, 7.0),
        BacklogAge(0.0, None, 7.0),
        BacklogAge(0.0, 3, 7.0),
    ]


def test_who_may_not_read_it_asks_never_again_and_says_so_once(
    clock: Clock, database: Database
) -> None:
    facts = Facts()
    one, two = alarm(database, facts), alarm(database, facts)
    one.is_due()
    one.tell_failure(psycopg.errors.InsufficientPrivilege())
    two.tell_failure(psycopg.errors.InsufficientPrivilege())
    clock.now += 30
    assert not one.is_due()
    assert [fact.switched_off for fact in facts.of(BacklogUnread)] == [True, False]


def test_after_another_failure_it_asks_again(clock: Clock, database: Database) -> None:
    facts = Facts()
    one = alarm(database, facts)
    one.is_due()
    one.tell_failure(psycopg.errors.UndefinedTable())
    clock.now += 30
    assert one.is_due()
    assert facts.all == [BacklogUnread("UndefinedTable", "42P01", switched_off=False)]


def test_a_hook_that_raises_is_not_heard(database: Database) -> None:
    def broken(fact: object) -> None:
        raise RuntimeError(fact)

    Alarm(database, WriterSettings(), [broken]).tell_failure(RuntimeError())


@pytest.mark.parametrize(("seconds", "warns"), [(59.0, 0), (60.0, 0), (61.0, 1)])
def test_the_log_warns_above_the_limit_only(
    caplog: pytest.LogCaptureFixture, seconds: float, warns: int
) -> None:
    caplog.set_level(logging.DEBUG, "dsql_outbox")
    log_facts(BacklogAge(seconds, 3, 60.0))
    assert len(caplog.records) == warns
    for record in caplog.records:
        assert (record.levelno, vars(record)["age_s"], vars(record)["shard"]) == (30, 61.0, 3)
        assert record.getMessage() == (
            "The oldest message of the outbox waits for 61 s (shard 3), over 60 s: "
            "does a publisher run?"
        )


@pytest.mark.parametrize(("switched_off", "level"), [(True, "WARNING"), (False, "DEBUG")])
def test_the_log_warns_of_a_switch_off_and_whispers_other_failures(
    caplog: pytest.LogCaptureFixture, switched_off: bool, level: str
) -> None:
    caplog.set_level(logging.DEBUG, "dsql_outbox")
    log_facts(BacklogUnread("SomeError", "42501", switched_off))
    (record,) = caplog.records
    assert record.levelname == level
    assert ("grant SELECT on outbox_backlog" in record.getMessage()) == switched_off


def test_the_defaults_are_the_documented_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)
    settings = WriterSettings()
    assert (settings.backlog_check, settings.backlog_warn) == (30.0, 60.0)


def test_in_lambda_it_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    assert WriterSettings().backlog_check is None
    assert WriterSettings(backlog_check=30.0).backlog_check == 30.0
