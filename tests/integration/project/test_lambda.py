"""The Lambda function of examples/lambda on a real database: every route, every end."""

import base64
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.checkout import ROOT
from tests.support.lambda_functions import (
    BULK,
    EVENTS,
    FOLDER,
    Function,
    LoadFunction,
    load_function,
)
from tests.support.proxy.postgres_proxy import OutboxProxy
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.checked_tables import Tables
from tests.support.writer.written_events import event

from dsql_outbox.outbox.settings import MAX_EVENT_BYTES

__all__ = ["load_function"]

SAMPLES = sorted((ROOT / "tests" / "data" / "events").glob("*.json"))
ID = "0198a3c0-0000-7000-8000-000000000001"


@pytest.fixture
def function(load_function: LoadFunction, url: str) -> Function:
    """The function, straight at the database."""
    return load_function(url)


def array(*events: bytes) -> bytes:
    return b"[" + b",".join(events) + b"]"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("encoded", [False, True], ids=["text", "base64"])
def test_an_event_is_stored_byte_for_byte(
    function: Function, tables: Tables, sample: Path, encoded: bool
) -> None:
    text = sample.read_bytes()
    body = base64.b64encode(text) if encoded else text
    answer = function(body, isBase64Encoded=encoded)
    event_id = json.loads(text)["eventHeader"]["uuid"]
    assert (answer.status, answer.body) == (
        200,
        {
            "success": True,
            "message": "Event processed successfully",
            "event_id": event_id,
            "attempts": 1,
            "conflicts": 0,
        },
    )
    (row,) = tables.messages()
    assert row["payload"] == text.decode()
    tables.assert_consistent()


def test_a_duplicate_is_a_409_that_tells_whether_the_content_is_the_same(
    function: Function, tables: Tables
) -> None:
    car = workload_s.car_created()
    assert function(car.to_json()).status == 200
    again = function(car.to_json())
    other = function(event(id=car.id))
    assert (again.status, other.status) == (409, 409)
    assert again.body == {
        "error": "Conflict",
        "message": f"event {car.id} was stored before, with the same content",
        "eventId": str(car.id),
        "same_content": True,
        "status": 409,
    }
    assert other.body["same_content"] is False
    assert len(tables.events()) == 1


@pytest.mark.parametrize("path", [EVENTS, BULK])
@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"body": ""},
        {"body": "{"},
        {"body": "[{]"},
        {"body": "[" * 100_000},
        {"body": "e3!0=", "isBase64Encoded": True},
        {"body": base64.b64encode(b'{"a": "\xff"}').decode(), "isBase64Encoded": True},
    ],
    ids=["none", "empty", "cut", "malformed", "deep", "not base64", "not UTF-8"],
)
def test_what_is_no_json_is_a_400(function: Function, path: str, request_: dict[str, Any]) -> None:
    answer = function(path=path, **request_)
    assert (answer.status, answer.body) == (400, {"error": "Invalid JSON", "status": 400})


@pytest.mark.parametrize(
    ("body", "culprit"),
    [
        (b"{}", "eventHeader: is required"),
        (b"[]", "expected `object`, got `array`"),
        (b'"text"', "expected `object`, got `str`"),
        (b'{"eventHeader": {"uuid": 7, "eventName": "x"}}', "eventHeader.uuid"),
        (event().replace(b"entityId", b"entityID"), "entities[0].entityHeader.entityId"),
    ],
)
def test_what_is_no_event_is_a_422_that_names_the_culprit(
    function: Function, tables: Tables, body: bytes, culprit: str
) -> None:
    answer = function(body)
    assert answer.status == answer.body["status"] == 422
    assert answer.body["error"].startswith("Invalid event structure: ")
    assert culprit in answer.body["error"]
    assert tables.events() == []


def test_an_event_over_the_limit_is_a_413(function: Function) -> None:
    answer = function(event(subject="x").replace(b'"n"', b'"' + b"n" * MAX_EVENT_BYTES + b'"'))
    assert answer.status == 413
    assert f"over the limit of {MAX_EVENT_BYTES} bytes" in answer.body["error"]


@pytest.mark.parametrize("path", ["/", "/api/v1/event", "/api/v1/events/", "/api/v1/events/1"])
def test_an_unknown_path_is_a_404(load_function: LoadFunction, path: str) -> None:
    answer = load_function(None)(b"{}", path=path)
    assert (answer.status, answer.body) == (404, {"error": "Not Found", "status": 404})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", EVENTS, "POST"),
        ("PUT", BULK, "POST"),
        ("POST", f"{EVENTS}/health", "GET"),
    ],
)
def test_a_wrong_method_is_a_405_that_names_the_right_one(
    load_function: LoadFunction, method: str, path: str, allowed: str
) -> None:
    answer = load_function(None)(method=method, path=path)
    assert answer.status == 405
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("$default", f"{EVENTS}/health"),
        ("prod", f"/prod{EVENTS}/health"),
        ("api", f"/api{EVENTS}/health"),
        ("api", f"{EVENTS}/health"),  # by a domain of one's own the stage is not in the path
    ],
)
def test_health_is_told_without_a_database_at_any_stage(
    load_function: LoadFunction, stage: str, path: str
) -> None:
    answer = load_function(None)(method="GET", path=path, stage=stage)
    assert answer.status == 200
    assert answer.body == {"status": "healthy", "message": "Producer API is healthy"}


def test_a_bulk_has_an_outcome_for_each_event_in_their_order(
    function: Function, tables: Tables
) -> None:
    stored = workload_s.car_created("CAR-1")
    function(stored.to_json())
    one, two = workload_s.car_created("CAR-2"), workload_s.loan_created(3)
    body = array(one.to_json(), stored.to_json(), b"{}", two.to_json(), b"7")
    answer = function(body, path=BULK)
    assert answer.status == 200
    assert answer.body | {"results": None} == {
        "success": False,
        "message": "Processed 2 events, 3 failed",
        "processedCount": 2,
        "failedCount": 3,
        "results": None,
    }
    results = answer.body["results"]
    assert [result["status"] for result in results] == [200, 409, 422, 200, 422]
    assert [result["success"] for result in results] == [True, False, False, True, False]
    assert [results[n]["event_id"] for n in (0, 3)] == [str(one.id), str(two.id)]
    assert results[1]["eventId"] == str(stored.id)
    assert {row["id"] for row in tables.events()} == {stored.id, one.id, two.id}
    assert {m["payload"] for m in tables.messages()} >= {one.to_json().decode()}
    tables.assert_consistent()


def test_a_bulk_takes_a_hundred_events_in_few_round_trips(
    load_function: LoadFunction, faulty: OutboxProxy, tables: Tables
) -> None:
    events = [event(f"car-{n}") for n in range(100)]
    answer = load_function(faulty.url)(array(*events), path=BULK)
    assert answer.body["success"] is True
    assert answer.body["message"] == "All events processed successfully"
    assert (answer.body["processedCount"], answer.body["failedCount"]) == (100, 0)
    assert faulty.round_trips <= 3
    assert len(tables.events()) == 100


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"[]", 422, "events list is null or empty"),
        (b"{}", 422, "must be an array"),
        (array(*[event()] * 101), 413, "101 events are over the limit of 100"),
    ],
)
def test_a_bulk_of_another_size_is_refused(
    function: Function, tables: Tables, body: bytes, status: int, text: str
) -> None:
    answer = function(body, path=BULK)
    assert answer.status == answer.body["status"] == status
    assert text in answer.body["error"]
    assert tables.events() == []


def test_conflicts_are_retried_and_told(
    load_function: LoadFunction, faulty: OutboxProxy, tables: Tables
) -> None:
    faulty.conflicts(2)
    answer = load_function(faulty.url)(event())
    assert answer.status == 200
    assert (answer.body["attempts"], answer.body["conflicts"]) == (3, 2)
    assert faulty.opened == 3
    assert len(tables.events()) == 1


@pytest.mark.parametrize("status", [500, 503])
def test_conflicts_that_outlast_the_retries_are_a_500_or_what_is_set_with_retry_after(
    load_function: LoadFunction,
    faulty: OutboxProxy,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    monkeypatch.setenv("DSQL_OUTBOX_EXHAUSTED_STATUS", str(status))
    faulty.conflicts(4)
    answer = load_function(faulty.url)(event())
    assert answer.status == answer.body["status"] == status
    assert answer.headers["Retry-After"] == "1"
    assert answer.body["error_type"] == "SerializationFailure"
    assert answer.body["sqlstate"] == "40001"
    assert tables.events() == []


def test_a_lost_commit_is_found_out(
    load_function: LoadFunction, faulty: OutboxProxy, tables: Tables
) -> None:
    faulty.lost_commit()
    answer = load_function(faulty.url)(event())
    assert (answer.status, answer.body["attempts"]) == (200, 2)
    assert len(tables.events()) == 1


def test_tables_that_are_missing_are_a_500_that_says_so(
    load_function: LoadFunction, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = load_function(database_url)(event())
    assert answer.status == 500
    assert answer.body["error_type"] == "SchemaError"
    assert "Retry-After" not in answer.headers
    assert "run `dsql-outbox schema apply`" in caplog.text


def test_a_function_without_a_database_says_what_to_set(
    load_function: LoadFunction, caplog: pytest.LogCaptureFixture
) -> None:
    answer = load_function(None)(event())
    assert (answer.status, answer.body["error_type"]) == (500, "SettingsError")
    assert "set DSQL_OUTBOX_DATABASE" in caplog.text


@pytest.mark.parametrize("path", [EVENTS, BULK])
def test_no_text_of_the_database_is_passed_on(
    load_function: LoadFunction, faulty: OutboxProxy, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    faulty.refuse(None, sqlstate="23514", message="row (SECRET) breaks a rule")
    one = event("SECRET")
    answer = load_function(faulty.url)(one if path == EVENTS else array(one), path=path)
    (failed,) = answer.body.get("results", [answer.body])
    assert (failed["status"], failed["error_type"]) == (500, "CheckViolation")
    assert "answered 500: CheckViolation: 23514" in caplog.text
    assert "SECRET" not in json.dumps(answer.body) + caplog.text


def no_fault(_: OutboxProxy) -> None:
    """The database is as it should be."""


@pytest.mark.parametrize("path", [EVENTS, BULK])
@pytest.mark.parametrize(
    ("set_fault", "status", "attempts"),
    [(no_fault, 200, 1), (lambda proxy: proxy.conflicts(1), 200, 2)],
    ids=["well", "conflict"],
)
def test_nothing_but_the_connection_is_left_when_it_has_answered(
    load_function: LoadFunction,
    faulty: OutboxProxy,
    running_threads: Callable[[], set[threading.Thread]],
    path: str,
    set_fault: Callable[[OutboxProxy], None],
    status: int,
    attempts: int,
) -> None:
    before = running_threads()
    set_fault(faulty)
    one = event()
    answer = load_function(faulty.url)(one if path == EVENTS else array(one), path=path)
    (result,) = answer.body.get("results", [answer.body])
    assert (answer.status, result["attempts"]) == (status, attempts)
    assert running_threads() == before
    wait_until(lambda: faulty.opened - faulty.closed == 1)


@pytest.fixture
def running_threads() -> Callable[[], set[threading.Thread]]:
    """The threads of this process, but for those that the proxy's event loop comes to need."""
    return lambda: {t for t in threading.enumerate() if not t.name.startswith("asyncio_")}


def test_every_variable_and_number_that_users_may_rely_on_is_documented(
    load_function: LoadFunction,
) -> None:
    read = {
        name
        for path in FOLDER.glob("*.py")
        for name in re.findall(r"DSQL_OUTBOX_[A-Z_]+", path.read_text())
    }
    text = " ".join((FOLDER.parents[1] / "docs" / "lambda.md").read_text().split())
    assert read == set(re.findall(r"DSQL_OUTBOX_[A-Z_]+", text))
    function = load_function(None).module
    assert f"less {function.MARGIN:g} second (`MARGIN`)" in text
    assert "for more than 30 s by the wall clock" in text
    requests = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"an array of 1 to {function.MAX_BULK}" in requests
    assert f"delays the answer by at most {function.spans.LONGEST:g} s" in text


def test_on_lambda_the_log_is_lines_of_json_that_alarms_can_count() -> None:
    """Lambda puts a handler on the root logger before it loads the function."""
    script = (
        "import logging; logging.basicConfig(); import handler;"
        " logging.getLogger('dsql_outbox').warning('Transaction conflict')"
    )
    environment = {**os.environ, "AWS_LAMBDA_FUNCTION_NAME": "store", "PYTHONPATH": str(FOLDER)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    line = json.loads(done.stderr)
    assert (line["logger"], line["message"]) == ("dsql_outbox", "Transaction conflict")
