"""The Lambda function of examples/lambda and time: its limit, a freeze, spans in time."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.lambda_functions import (
    BULK,
    EVENTS,
    FOLDER,
    Function,
    LoadFunction,
    load_function,
)
from tests.support.proxy.postgres_proxy import OutboxProxy
from tests.support.writer.checked_tables import Tables
from tests.support.writer.written_events import event

from dsql_outbox import WriterSettings
from dsql_outbox.outbox.unit_of_work.connections import shelf
from dsql_outbox.testing import OtlpReceiver

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["load_function"]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
UNAVAILABLE = "Service Temporarily Unavailable"
MARGIN = 5.0
"""Seconds kept free, in place of the function's one: a busy machine may stand still for longer."""
SECONDS = MARGIN + 0.8
"""Seconds of an invocation. A write that does not know of them tries for ten."""


@pytest.fixture
def load_patient(load_function: LoadFunction) -> LoadFunction:
    """Loads the function, with a margin of `MARGIN`."""

    def load(url: str | None) -> Function:
        function = load_function(url)
        function.module.MARGIN = MARGIN  # type: ignore[attr-defined]
        return function

    return load


@pytest.mark.parametrize("path", [EVENTS, BULK])
def test_without_time_nothing_is_sent(
    load_function: LoadFunction, faulty: OutboxProxy, path: str
) -> None:
    body = event() if path == EVENTS else b"[" + event() + b"]"
    answer = load_function(faulty.url)(body, path=path, seconds=0.999)
    assert answer.status == answer.body["status"] == 503
    assert answer.headers["Retry-After"] == "1"
    assert "no time is left" in answer.body["error"]
    assert (faulty.opened, faulty.statements) == (0, [])


@pytest.mark.parametrize("path", [EVENTS, BULK])
def test_a_database_out_of_reach_is_a_503_in_time(
    load_patient: LoadFunction, faulty: OutboxProxy, tables: Tables, path: str
) -> None:
    function = load_patient(faulty.url)
    faulty.refuse_connections(None)
    began = monotonic()
    one = event()
    answer = function(one if path == EVENTS else b"[" + one + b"]", path=path, seconds=SECONDS)
    assert monotonic() - began < SECONDS
    assert answer.status == answer.body["status"] == 503
    assert answer.body["error"] == UNAVAILABLE
    assert answer.headers["Retry-After"] == "5"
    (result,) = answer.body.get("results", [answer.body])
    assert (result["status"], result["retry_after"]) == (503, 5)
    assert result["error_type"] == "OperationalError"
    faulty.heal()
    assert function(event()).status == 200
    assert len(tables.events()) == 1


def test_a_bulk_of_which_the_database_took_some_is_no_503(
    load_function: LoadFunction,
    faulty: OutboxProxy,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One answer says of each event what to do; 503 is for when there is one thing to do."""
    hasty = replace(WriterSettings.origin(), max_outage=0.3)
    monkeypatch.setattr(WriterSettings, "origin", lambda: hasty)
    function = load_function(faulty.url)
    one = event()
    # The same id again is a transaction of its own; the connection is lost before it.
    faulty.before(lambda: faulty.cut("before", times=None, matching="business_events"))
    answer = function(b"[" + one + b"," + one + b"]", path=BULK)
    assert answer.status == 200
    assert [result["status"] for result in answer.body["results"]] == [200, 503]
    none = function(b"[" + event() + b",{}]", path=BULK)
    assert none.status == 503
    assert [result["status"] for result in none.body["results"]] == [503, 422]
    assert len(tables.events()) == 1


def test_a_database_that_is_silent_while_connecting_is_a_503_in_time(
    load_patient: LoadFunction, faulty: OutboxProxy
) -> None:
    function = load_patient(faulty.url)
    with faulty.swallow_server():
        began = monotonic()
        answer = function(event(), seconds=SECONDS)
        assert monotonic() - began < SECONDS
    assert (answer.status, answer.body["error"]) == (503, UNAVAILABLE)


def test_an_answer_that_does_not_come_in_time_is_a_503_that_asks_for_the_same_id(
    load_patient: LoadFunction, faulty: OutboxProxy, tables: Tables
) -> None:
    function = load_patient(faulty.url)
    assert function(event()).status == 200  # connected, so the time is the statement's
    faulty.stall()
    one = event()
    began = monotonic()
    answer = function(one, seconds=SECONDS)
    assert monotonic() - began < SECONDS
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.body["eventId"] == json.loads(one)["eventHeader"]["uuid"]
    assert "write it again with the same id" in answer.body["message"]
    again = function(one)
    assert (again.status, again.body["attempts"]) == (200, 1)
    assert len(tables.events()) == 2


def test_the_connection_is_kept_for_the_next_invocation(
    load_function: LoadFunction, faulty: OutboxProxy
) -> None:
    function = load_function(faulty.url)
    assert [function(event()).body["attempts"] for _ in range(3)] == [1, 1, 1]
    assert (faulty.opened, faulty.closed) == (1, 0)


def test_after_a_long_freeze_the_connection_is_replaced_before_use(
    load_function: LoadFunction, faulty: OutboxProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "events")
    function = load_function(faulty.url)
    function(event())
    monkeypatch.setattr(shelf, "time", lambda: time() + 31)
    answer = function(event())
    assert (answer.status, answer.body["attempts"], faulty.opened) == (200, 1, 2)
    faulty.wait_until_closed(1)


def test_a_connection_that_died_meanwhile_is_replaced_before_use(
    load_function: LoadFunction, faulty: OutboxProxy, tables: Tables
) -> None:
    function = load_function(faulty.url)
    function(event())
    tables.hang_up_all()
    faulty.wait_until_closed(1)
    answer = function(event())
    assert (answer.status, answer.body["attempts"], faulty.opened) == (200, 1, 2)


def test_in_lambda_no_write_looks_at_the_backlog(
    load_function: LoadFunction, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "events")
    settings = load_function(url).module.writer()._core.settings
    assert settings.backlog_check is None
    assert (settings.max_connections, settings.max_idle, settings.coalesce) == (1, 30.0, 0)


INVOKE = """
import json, os, sys, threading, time
import handler
class Context:
    ends = time.monotonic() + 10
    def get_remaining_time_in_millis(self):
        return int((self.ends - time.monotonic()) * 1000)
for line in sys.stdin:
    began = time.monotonic()
    answer = handler.handler(json.loads(line), Context())
    took = time.monotonic() - began
    print(json.dumps([answer["statusCode"], took, threading.active_count()]), flush=True)
os._exit(0)  # frozen for ever: what was not sent by now is lost
"""


def invoke(url: str, endpoint: str, *bodies: bytes, **headers: str) -> list[Any]:
    """Status, seconds and threads of each invocation, in a process without a proper end."""
    event = {
        "rawPath": EVENTS,
        "headers": headers,
        "requestContext": {"stage": "$default", "http": {"method": "POST"}},
    }
    lines = [json.dumps(event | {"body": body.decode()}) for body in bodies]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", INVOKE],
        cwd=FOLDER,
        env=clean | {"DSQL_OUTBOX_DATABASE": url, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_spans_are_sent_before_the_answer_by_no_thread(url: str) -> None:
    with OtlpReceiver() as receiver:
        one, two = event(), event()
        traceparent = f"00-{TRACE}-00f067aa0ba902b7-01"
        answers = invoke(url, receiver.endpoint, one, two, traceparent=traceparent)
        assert [(status, threads) for status, _, threads in answers] == [(200, 1), (200, 1)]
        assert len(receiver.requests) == 2
        spans = receiver.spans
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert names_by_parent(spans[:3]) == {
        "POST /api/v1/events": None,
        "outbox.write": "POST /api/v1/events",
        "outbox.write.attempt": "outbox.write",
    }


def names_by_parent(spans: "list[Span]") -> dict[str, str | None]:
    names = {span.span_id: span.name for span in spans}
    return {span.name: names.get(span.parent_span_id) for span in spans}


def test_a_collector_that_never_answers_holds_no_answer_up(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        ((status, took, threads),) = invoke(url, endpoint, event())
    assert (status, threads) == (200, 1)
    assert took < 4.5, "it waits for half a second, and an invocation has ten"


def test_a_collector_that_is_down_costs_next_to_nothing(url: str) -> None:
    with OtlpReceiver() as stopped:
        endpoint = stopped.endpoint
    answers = invoke(url, endpoint, *[event() for _ in range(4)])
    assert {status for status, _, _ in answers} == {200}
    # The shortest wait of the exporter before it tries again is 0.8 s. The machine may be busy.
    assert min(took for _, took, _ in answers) < 0.8
