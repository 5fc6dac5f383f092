"""The log lines: their level, their words, and their keys."""

import logging
from uuid import UUID

import pytest
from tests.support.clock import Clock

from dsql_outbox.observability import (
    Fact,
    LogFacts,
    PublishEnded,
    PublishResult,
    RelayProgress,
    RetryScheduled,
    ShardsChanged,
    WriteEnded,
    WriteExhausted,
)
from dsql_outbox.observability.failure_log import EVERY

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
    ours = ("event_id", "attempt", "max_retries", "wait_s", "sqlstate", "oc_class", "topic")
    return {key: vars(record)[key] for key in ours if key in vars(record)}


@pytest.mark.parametrize(
    ("oc_class", "words"),
    [
        ("OC000", "Transaction conflict (OC000) detected"),
        ("OC001", "Transaction conflict (OC001) detected"),
        (None, "Transaction conflict (OC000) detected"),
    ],
)
def test_a_conflict_is_one_warning_that_names_its_class(
    log: pytest.LogCaptureFixture, oc_class: str | None, words: str
) -> None:
    error = "SerializationFailure"
    record = logged(log, RetryScheduled(EVENT, 1, 3, 0.1, error, "40001", oc_class, conflict=True))

    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{words} for event {EVENT}, attempt 1: retry of at most 3 in 0.100 s"
    )
    assert keys(record) == {
        "event_id": str(EVENT),
        "attempt": 1,
        "max_retries": 3,
        "wait_s": 0.1,
        "sqlstate": "40001",
        "oc_class": oc_class,
    }


@pytest.mark.parametrize(("sqlstate", "named"), [("57P01", "57P01"), (None, "OperationalError")])
def test_another_retry_is_a_warning_that_names_the_failure(
    log: pytest.LogCaptureFixture, sqlstate: str | None, named: str
) -> None:
    error = "OperationalError"
    record = logged(log, RetryScheduled(EVENT, 2, 3, 0.2, error, sqlstate, None, conflict=False))

    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"Transient failure ({named}) detected for event {EVENT}")


def test_exhausted_retries_are_one_error(log: pytest.LogCaptureFixture) -> None:
    record = logged(log, WriteExhausted(EVENT, 4, 3, "SerializationFailure", "40001"))

    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        f"Retries exhausted for event {EVENT} after 4 attempts: SerializationFailure (40001)"
    )
    assert keys(record) == {
        "event_id": str(EVENT),
        "attempt": 4,
        "max_retries": 3,
        "sqlstate": "40001",
    }


@pytest.mark.parametrize("result", ["retry", "rejected"])
def test_a_failed_publish_is_a_warning(log: pytest.LogCaptureFixture, result: str) -> None:
    record = logged(log, PublishEnded(EVENT, "events.LoanCreated", result, "no answer"))  # type: ignore[arg-type]

    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"Publish of event {EVENT} to events.LoanCreated failed ({result}): no answer"
    )
    assert keys(record) == {"event_id": str(EVENT), "attempt": 1, "topic": "events.LoanCreated"}


@pytest.mark.parametrize(
    "fact",
    [
        WriteEnded(EVENT, "committed", 2, 1),
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
    """A publisher's hook, with a clock, that is told of failures."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.hook = LogFacts(self.clock)

    def fail(self, topic: str, *, number: int = 0, result: PublishResult = "retry") -> None:
        self.hook(PublishEnded(UUID(int=number), topic, result, f"error {number}", number))

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.hook(RelayProgress())


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
    assert keys(record) | {"count": vars(record)["count"]} == {
        "event_id": str(UUID(int=9_999)),
        "attempt": 9_999,
        "topic": "a",
        "count": 9_998,
    }
    (line,) = messages(log)
    assert line == (
        "Publish to a failed 9998 more times in 10 s (retry), "
        f"last event {UUID(int=9_999)}: error 9999"
    )
    failing.fail("a", number=7)
    failing.after(EVERY - 1)
    assert messages(log) == []
    failing.after(1)
    assert messages(log) == [
        f"Publish to a failed 1 more times in 10 s (retry), last event {UUID(int=7)}: error 7"
    ]


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
    failing.fail("a", number=1)
    failing.fail("a", number=2)
    messages(log)
    failing.hook(ShardsChanged([3], [], [1]))
    assert messages(log) == []
    failing.hook(ShardsChanged([], [], [3]))
    (line,) = messages(log)
    assert line.startswith("Publish to a failed 1 more times in 0 s")
