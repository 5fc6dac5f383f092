"""The backlog alarm on real PostgreSQL: seen by those who write, at no cost to their writes."""

import logging
from time import monotonic

import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import Facts, OpenWriter
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import AttemptEnded, BacklogAge, BacklogUnread
from dsql_outbox.outbox import Database
from dsql_outbox.outbox.unit_of_work import gate
from dsql_outbox.writer import Writer, WriterSettings, backlog_alarm

pytestmark = pytest.mark.client

HALF_MINUTELY = WriterSettings(backlog_check=30.0)
ALWAYS = WriterSettings(backlog_check=1e-9)
VIEW = "outbox_backlog"


class Clock:
    """The alarm's clock: the real one, and what the test adds."""

    added = 0.0

    def __call__(self) -> float:
        return monotonic() + self.added


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(backlog_alarm, "monotonic", clock)
    return clock


def looks(proxy: PostgresProxy) -> int:
    return sum(VIEW in statement for statement in proxy.statements)


def test_with_no_publisher_the_writer_sees_the_backlog_grow_old(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    tables: Tables,
    facts: Facts,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caller = open_writer(proxy.url, HALF_MINUTELY, [facts])
    caller.write(workload_s.car_created())
    (row,) = tables.execute(
        "UPDATE outbox.outbox SET created_at = created_at - interval '90 s' RETURNING shard"
    )
    clock.added = 31.0
    caller.write(workload_s.three_entities())
    (age,) = facts.of(BacklogAge)
    assert 90 <= age.seconds < 110
    assert (age.shard, age.limit) == (row["shard"], 60.0)
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "does a publisher run?" in warning.getMessage()


def test_many_writes_of_several_writers_look_once_an_interval(
    open_writer: OpenWriter, proxy: PostgresProxy, clock: Clock
) -> None:
    callers = [open_writer(proxy.url, HALF_MINUTELY) for _ in range(2)]
    for caller in callers * 10:
        caller.write(workload_s.car_created())
    assert looks(proxy) == 0
    clock.added = 31.0
    for caller in callers * 10:
        caller.write(workload_s.car_created())
    assert looks(proxy) == 1
    clock.added = 62.0
    callers[1].write(workload_s.car_created())
    assert looks(proxy) == 2


def test_switched_off_it_never_looks(
    open_writer: OpenWriter, proxy: PostgresProxy, clock: Clock
) -> None:
    caller = open_writer(proxy.url, WriterSettings(backlog_check=None))
    for _ in range(3):
        caller.write(workload_s.car_created())
        clock.added += 1000.0
    assert looks(proxy) == 0


def test_a_batch_looks_too(proxy: PostgresProxy, facts: Facts) -> None:
    with Writer(Database(proxy.url), ALWAYS, hooks=[facts]) as writer:
        for _ in range(2):
            writer.write_many([workload_s.car_created() for _ in range(5)])
    assert looks(proxy) >= 1
    assert facts.of(BacklogAge)


@pytest.mark.parametrize("sqlstate", ["42501", "42P01"])
def test_a_view_that_cannot_be_read_harms_no_write(
    open_writer: OpenWriter, proxy: PostgresProxy, facts: Facts, sqlstate: str
) -> None:
    proxy.refuse(None, sqlstate=sqlstate, message="no", matching=VIEW)
    caller = open_writer(proxy.url, ALWAYS, [facts])
    for _ in range(4):
        assert caller.write(workload_s.car_created()).attempts == 1
    expected = 1 if sqlstate == "42501" else 3
    assert looks(proxy) == expected
    assert [fact.switched_off for fact in facts.of(BacklogUnread)] == [expected == 1] * expected


def test_a_view_that_is_missing_harms_no_write(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, facts: Facts
) -> None:
    tables.execute("DROP VIEW outbox.outbox_backlog")
    caller = open_writer(proxy.url, ALWAYS, [facts])
    outcomes = [caller.write(workload_s.car_created()) for _ in range(2)]
    assert [fact.sqlstate for fact in facts.of(BacklogUnread)] == ["42P01"]
    tables.assert_true_to({outcome.event_id: outcome for outcome in outcomes})


def test_an_answer_that_does_not_come_holds_one_write_for_a_moment(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    tables: Tables,
    facts: Facts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "LONGEST_HOUSEKEEPING", 0.2)
    caller = open_writer(proxy.url, ALWAYS, [facts])
    caller.write(workload_s.car_created())
    proxy.stall(matching=VIEW)
    began = monotonic()
    receipt = caller.write(event := workload_s.car_created())
    assert 0.2 <= monotonic() - began < 5.0
    assert receipt.attempts == 1
    assert [fact.outcome for fact in facts.of(AttemptEnded, event.id)] == ["committed"]
    assert [fact.error for fact in facts.of(BacklogUnread)] == ["OperationalError"]
    last = caller.write(workload_s.car_created())
    tables.assert_true_to({event.id: receipt, last.event_id: last})
