"""The log lines: their level, their words, and their keys."""

import logging
from uuid import UUID

import pytest

from dsql_outbox.observability import (
    Fact,
    PublishEnded,
    RetryScheduled,
    WriteEnded,
    WriteExhausted,
    log_facts,
)

EVENT = UUID("0198a3c0-0000-7000-8000-000000000001")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "dsql_outbox")
    return caplog


def logged(log: pytest.LogCaptureFixture, fact: Fact) -> logging.LogRecord:
    log_facts(fact)
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
    ],
)
def test_what_went_well_or_is_said_elsewhere_is_not_logged(
    log: pytest.LogCaptureFixture, fact: Fact
) -> None:
    log_facts(fact)

    assert log.records == []
