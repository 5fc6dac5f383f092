"""Log lines as JSON: stable keys, trace ids, and nothing that was not meant to be there."""

import json
import logging
import sys
from collections.abc import Iterator
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.support.telemetry.retries import HOST, TEXT, retry

from dsql_outbox.cli.logs import announce, logs_on_stderr
from dsql_outbox.observability import JsonFormatter
from dsql_outbox.observability.facts import PublishEnded
from dsql_outbox.observability.log_hook import LogFacts, log_facts

EVENT = UUID(int=7)
RETRY = retry(EVENT)


class Lines(StringIO):
    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("dsql_outbox")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_a_retry_is_one_line_with_its_keys_and_no_empty_ones(lines: Lines) -> None:
    log_facts(RETRY)
    (line,) = lines.all()
    assert list(line)[:6] == ["timestamp", "level", "logger", "message", "event_id", "attempt"]
    assert line.pop("timestamp")[-5:-1].startswith(".")
    assert line == {
        "level": "WARNING",
        "logger": "dsql_outbox",
        "message": f"Transaction conflict (OC000) detected for event {EVENT}, attempt 1 "
        f"at {HOST}: {TEXT}; retry in 0.100 s (conflict, 1 of 3)",
        "event_id": str(EVENT),
        "attempt": 1,
        "events": 1,
        "host": HOST,
        "reason": "conflict",
        "used": 1,
        "limit": 3,
        "wait_s": 0.1,
        "sqlstate": "40001",
        "oc_class": "OC000",
        "count": 1,
    }


def test_within_a_span_the_line_leads_to_the_trace(lines: Lines) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("write") as span:
        log_facts(RETRY)
        LogFacts()(PublishEnded(EVENT, "topic", "retry", "no answer", 4))
    context = span.get_span_context()
    for line in lines.all():
        assert line["trace_id"] == f"{context.trace_id:032x}"
        assert line["span_id"] == f"{context.span_id:016x}"
    assert lines.all()[1]["attempt"] == 4


def test_the_time_is_utc_to_the_millisecond() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "a %s", ("b",), None)
    record.created = 1_700_000_000.1259
    line = json.loads(JsonFormatter().format(record))
    assert line == {
        "timestamp": "2023-11-14T22:13:20.125Z",
        "level": "INFO",
        "logger": "x",
        "message": "a b",
    }


def test_what_another_library_carries_stays_out_and_a_traceback_is_one_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord(
            "x", logging.ERROR, "f", 1, "m\n\u2028\ud800", (), sys.exc_info()
        )
    record.payload = {"secret": 1}
    line = JsonFormatter().format(record)
    line.encode()
    assert "\n" not in line
    assert "secret" not in line
    assert json.loads(line)["exception"].endswith("ValueError: two\nlines")


@pytest.mark.parametrize("name", ["dsql_outbox", "asyncio"])
def test_a_command_logs_other_libraries_in_json_too_and_each_line_once(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with logs_on_stderr(log_format="json"):
        logging.getLogger(name).warning("careful")
        logging.getLogger(name).info("not asked for")
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["logger"], line["message"]) == (name, "careful")


def test_what_a_command_says_itself_is_plain_text_unless_json_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with logs_on_stderr():
        announce("begun")
    with logs_on_stderr(log_format="json"):
        announce("begun")
    plain, as_json = capsys.readouterr().err.splitlines()
    assert plain == "begun"
    assert json.loads(as_json)["message"] == "begun"
