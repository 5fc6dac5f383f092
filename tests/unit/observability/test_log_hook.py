"""The log lines: their level, their words, and their keys."""

import logging
import os
from collections.abc import Callable
from uuid import UUID

import msgspec
import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, use_span
from tests.support.clock import Clock
from tests.support.telemetry.retries import HOST, TEXT, budget, failure, retry
from tests.support.waiting import wait_until

from dsql_outbox.observability.facts import (
    Fact,
    PublishEnded,
    PublishResult,
    RelayProgress,
    RetriesExhausted,
    RetryScheduled,
    ShardsChanged,
    WriteEnded,
    WriteExhausted,
)
from dsql_outbox.observability.json_logs import KEYS
from dsql_outbox.observability.log_hook import EVERY, LogFacts

EVENT = UUID("0198a3c0-0000-7000-8000-000000000001")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "dsql_outbox")
    return caplog


def logged(log: pytest.LogCaptureFixture, fact: Fact) -> logging.LogRecord:
    LogFacts()(fact)
    (record,) = log.records
    assert record.name == "dsql_outbox"
    return record


def keys(record: logging.LogRecord) -> dict[str, object]:
    ours = [key for key in KEYS if key != "result"]
    return {key: vars(record)[key] for key in ours if key in vars(record)}


@pytest.mark.parametrize(
    ("oc_class", "words"),
    [
        ("OC000", "Transaction conflict (OC000) detected"),
        ("OC001", "Transaction conflict (OC001) detected"),
        (None, "Transaction conflict (40001) detected"),
    ],
)
def test_a_conflict_is_one_warning_that_names_its_class_or_sqlstate(
    log: pytest.LogCaptureFixture, oc_class: str | None, words: str
) -> None:
    record = logged(log, retry(EVENT, 2, 0.2, of=budget(used=2), oc_class=oc_class))

    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{words} for event {EVENT}, attempt 2 at {HOST}: {TEXT}; "
        "retry in 0.200 s (conflict, 2 of 3)"
    )
    assert keys(record) == {
        "event_id": str(EVENT),
        "events": 1,
        "attempt": 2,
        "host": HOST,
        "reason": "conflict",
        "used": 2,
        "limit": 3,
        "wait_s": 0.2,
        "sqlstate": "40001",
        "oc_class": oc_class,
        "count": 1,
    }


def test_a_conflict_shows_few_entities_and_has_more_as_a_key(
    log: pytest.LogCaptureFixture,
) -> None:
    keys_of_entities = [f"Item/{n}" for n in range(9)]
    hook = LogFacts()
    fact = msgspec.structs.replace(retry(EVENT, 1, 0.2, events=3), entities=keys_of_entities)
    hook(fact)
    (record,) = log.records
    text = f"for event {EVENT} (Item/0, Item/1, Item/2, Item/3, ..) and 2 more, attempt 1"
    assert text in record.getMessage()
    assert vars(record)["entities"] == keys_of_entities


@pytest.mark.parametrize(("sqlstate", "named"), [("57P01", "57P01"), (None, "OperationalError")])
def test_another_retry_is_a_warning_that_says_why_and_for_how_long(
    log: pytest.LogCaptureFixture, sqlstate: str | None, named: str
) -> None:
    outage = {"error": "OperationalError", "oc_class": None, "text": "Connection refused"}
    spent = budget("outage", 4.1234, 10.0)
    record = logged(log, retry(EVENT, 5, 1.6, events=64, of=spent, sqlstate=sqlstate, **outage))

    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"Transient failure ({named}) detected for event {EVENT} and 63 more, attempt 5 at {HOST}: "
        "Connection refused; retry in 1.600 s (outage, 4.1 of 10 s)"
    )


def test_a_database_that_was_never_reached_comes_with_advice(log: pytest.LogCaptureFixture) -> None:
    """At the first attempt and at the end. A conflict proves that it was reached."""
    outage = failure(budget("outage", 0.0, 10.0), was_reached=False)
    hook = LogFacts()
    hook(RetryScheduled(EVENT, 1, 0.1, outage))
    hook(RetryScheduled(EVENT, 2, 0.2, outage))
    hook(RetriesExhausted(EVENT, 2, outage))
    hook(retry(EVENT, was_reached=False))
    advice = "no connection to it has succeeded yet: check the host and the port"
    assert [advice in record.getMessage() for record in log.records] == [True, False, True, False]


def test_exhausted_retries_are_one_error(log: pytest.LogCaptureFixture) -> None:
    record = logged(log, RetriesExhausted(EVENT, 4, failure(budget(used=3)), 2))

    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        f"Retries exhausted for event {EVENT} and 1 more after 4 attempts at {HOST}: {TEXT} "
        "(40001; conflict, 3 of 3)"
    )
    assert keys(record) == {
        "event_id": str(EVENT),
        "events": 2,
        "attempt": 4,
        "host": HOST,
        "reason": "conflict",
        "used": 3,
        "limit": 3,
        "sqlstate": "40001",
        "oc_class": "OC000",
        "count": 1,
    }


def test_retries_that_the_callers_timeout_ends_are_told_as_such(
    log: pytest.LogCaptureFixture,
) -> None:
    record = logged(log, RetriesExhausted(EVENT, 1, failure(), is_cut_short=True))
    assert record.getMessage().endswith(
        "(40001; conflict, 1 of 3, cut short by the timeout of the call)"
    )


@pytest.mark.parametrize("result", ["retry", "rejected"])
def test_a_failed_publish_is_a_warning(log: pytest.LogCaptureFixture, result: str) -> None:
    record = logged(log, PublishEnded(EVENT, "events.LoanCreated", result, "no answer"))  # type: ignore[arg-type]

    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"Publish of event {EVENT} to events.LoanCreated failed ({result}): no answer"
    )
    assert keys(record) == {
        "event_id": str(EVENT),
        "attempt": 1,
        "topic": "events.LoanCreated",
        "count": 1,
    }


@pytest.mark.parametrize(
    "fact",
    [
        WriteEnded(EVENT, "committed", 2, 1),
        WriteExhausted(EVENT, 4, "SerializationFailure", "40001"),
        PublishEnded(EVENT, "topic", "delivered"),
        PublishEnded(EVENT, "topic", "unavailable", "no broker"),
        PublishEnded(EVENT, "topic", "not_attempted", "cut off"),
        RelayProgress(read=1, failed=1),
        ShardsChanged([], [], [1]),
    ],
)
def test_what_went_well_or_is_said_elsewhere_is_not_logged(
    log: pytest.LogCaptureFixture, fact: Fact
) -> None:
    LogFacts()(fact)

    assert log.records == []


class Failing:
    """A hook with a clock, and a summary that is due when the clock says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.hook = LogFacts(self.clock, self._later)
        self._due: list[tuple[float, Callable[[], None]]] = []

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        self._due.append((self.clock.now + seconds, work))

    def fail(self, topic: str, *, number: int = 0, result: PublishResult = "retry") -> None:
        self.hook(PublishEnded(UUID(int=number), topic, result, f"error {number}", number))

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        due, self._due = self._due, []
        for at, work in due:
            if at <= self.clock.now:
                work()
            else:
                self._due.append((at, work))


@pytest.fixture
def failing() -> Failing:
    return Failing()


def messages(log: pytest.LogCaptureFixture) -> list[str]:
    """The new lines."""
    found = [record.getMessage() for record in log.records]
    log.clear()
    return found


def test_many_failures_of_a_topic_are_one_line_at_once_and_one_per_ten_seconds(
    failing: Failing, log: pytest.LogCaptureFixture
) -> None:
    for number in range(1, 10_000):
        failing.fail("a", number=number)
    failing.after(EVERY - 1)
    assert messages(log) == [f"Publish of event {UUID(int=1)} to a failed (retry): error 1"]
    failing.after(1)
    (record,) = log.records
    assert keys(record) == {
        "event_id": str(UUID(int=9_999)),
        "attempt": 9_999,
        "topic": "a",
        "count": 9_998,
    }
    (line,) = messages(log)
    assert line == (
        f"Publish of event {UUID(int=9_999)} to a failed (retry): error 9999; "
        "this and 9997 more in 10.0 s"
    )
    failing.fail("a", number=7)
    failing.after(EVERY - 1)
    assert messages(log) == []
    failing.after(1)
    assert messages(log) == [f"Publish of event {UUID(int=7)} to a failed (retry): error 7"]


def test_a_sum_is_in_the_trace_of_its_last_event(
    failing: Failing, log: pytest.LogCaptureFixture
) -> None:
    for number in range(1, 4):
        with use_span(NonRecordingSpan(SpanContext(number, number, is_remote=False))):
            failing.fail("a", number=number)
    failing.after(EVERY)
    traces = [vars(record)["trace_id"] for record in log.records]
    assert traces == [f"{1:032x}", f"{3:032x}"]


def test_topics_and_results_have_lines_of_their_own(
    failing: Failing, log: pytest.LogCaptureFixture
) -> None:
    for topic in "ab":
        for result in ("retry", "rejected"):
            for _ in range(3):
                failing.fail(topic, result=result)
    assert len(messages(log)) == 4
    failing.after(EVERY)
    assert len(messages(log)) == 4


def test_a_topic_that_was_quiet_is_logged_at_once_again(
    failing: Failing, log: pytest.LogCaptureFixture
) -> None:
    failing.fail("a")
    failing.after(EVERY)
    messages(log)
    failing.fail("a", number=2)
    assert messages(log) == [f"Publish of event {UUID(int=2)} to a failed (retry): error 2"]


def test_what_was_counted_is_logged_at_the_end(
    failing: Failing, log: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2, 3):
        failing.fail("a", number=number)
    messages(log)
    failing.hook(ShardsChanged([3], [], [1]))
    assert messages(log) == []
    failing.hook(ShardsChanged([], [], [3]))
    (line,) = messages(log)
    assert line.endswith("error 3; this and 1 more in 0.0 s")


def test_a_storm_of_retries_is_ten_lines_and_then_one_per_second_and_reason(
    failing: Failing, log: pytest.LogCaptureFixture
) -> None:
    """The counts of the lines add up to the retries."""
    outage = failure(budget("outage", 0.0, 10.0))
    for _ in range(10):
        for _ in range(320):
            failing.hook(RetryScheduled(EVENT, 1, 0.1, outage))
            failing.hook(retry(EVENT))
        failing.after(1)
    for reason in ("outage", "conflict"):
        counts = [vars(r)["count"] for r in log.records if vars(r)["reason"] == reason]
        assert counts == [1] * 10 + [310] + [320] * 9
    line = log.records[-1].getMessage()
    assert line.endswith("retry in 0.100 s (conflict, 1 of 3); this and 319 more in 1.0 s")


def test_hosts_and_ends_have_lines_of_their_own(
    failing: Failing, log: pytest.LogCaptureFixture
) -> None:
    for _ in range(30):
        for host in ("a:1", "b:2"):
            failing.hook(retry(EVENT, host=host))
            failing.hook(RetriesExhausted(EVENT, 4, failure(host=host)))
    failing.after(1)
    assert len(log.records) == 4 * (10 + 1)


def test_a_sum_comes_by_itself_when_the_storm_is_over(log: pytest.LogCaptureFixture) -> None:
    hook = LogFacts()
    for _ in range(12):
        hook(retry(EVENT))
    wait_until(lambda: len(log.records) == 11)
    assert vars(log.records[-1])["count"] == 2


def test_a_forked_child_logs_its_own_lines_only(
    failing: Failing, log: pytest.LogCaptureFixture
) -> None:
    for _ in range(12):
        failing.hook(retry(EVENT))
    log.clear()
    child = os.fork()
    if child == 0:
        try:
            failing.hook.flush()
            failing.hook(retry(EVENT))
            failing.hook.flush()
        finally:
            os._exit(sum(vars(record)["count"] for record in log.records))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
