"""``dsql-outbox write`` on a real PostgreSQL; a process where signals or pipes are the point."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.support.commands import invoke, lines
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer.written_events import SUMMARY, event, failures, ids, receipts, summary

from dsql_outbox.cli.write import command
from dsql_outbox.cli.write.inputs import MAX_LINE_BYTES
from dsql_outbox.testing import OtlpReceiver

SCRIPTS = Path(sys.executable).parent


def test_every_event_gets_a_receipt_and_the_last_line_sums_up(url: str) -> None:
    events = [event(f"car-{n}") for n in range(20)]
    done = invoke("write", "--database", url, stdin=lines(events))
    found = receipts(done.out)
    assert done.code == 0
    assert sorted(str(receipt.event_id) for receipt in found) == sorted(ids(events))
    assert {(r.status, r.attempts, r.conflicts, len(r.entities)) for r in found} == {
        ("committed", 1, 0, 1)
    }
    assert SUMMARY.fullmatch(done.err.strip())
    assert summary(done.err) == {
        "stored": 20, "retried": 0, "conflicts": 0, "duplicates": 0, "failed": 0
    }  # fmt: skip


def test_a_receipt_line_has_stable_names(url: str) -> None:
    done = invoke("write", "--database", url, stdin=event("car-1"))
    line = json.loads(done.out)
    assert list(line) == ["eventId", "status", "attempts", "conflicts", "position", "entities"]
    assert line["entities"] == [{"entityType": "Car", "entityId": "car-1", "version": 1}]


def test_files_and_standard_input_are_kept_byte_for_byte(
    url: str, sql: psycopg.Connection[Any], tmp_path: Path
) -> None:
    one, many = tmp_path / "one.jsonl", tmp_path / "many.jsonl"
    spaced, lean = event("a", separators=(" ,\t", " : ")), event("b", separators=(",", ":"))
    one.write_bytes(b"  " + spaced + b" \r\n")
    many.write_bytes(b"\n\n" + lean + b"\n")
    stdin = [event("d"), event("e")]
    done = invoke("write", one, "-", many, "--database", url, stdin=b"\n\n".join(stdin))
    assert (done.code, len(receipts(done.out))) == (0, 4)
    stored = sql.execute("SELECT event_data::text FROM outbox.business_events").fetchall()
    assert sorted(text.encode() for (text,) in stored) == sorted([spaced, lean, *stdin])


@pytest.mark.parametrize("batch", [1, 50])
@pytest.mark.parametrize("on_duplicate", ["error", "return"])
def test_a_file_that_is_named_again_has_an_outcome_for_each_of_its_events(
    url: str, tmp_path: Path, batch: int, on_duplicate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among other files, and with the same events on standard input, too."""
    again, other, last = tmp_path / "again", tmp_path / "other", tmp_path / "last"
    three, two, one = [event(f"car-{n}") for n in range(3)], [event("x"), event("y")], [event("z")]
    for path, events in ((again, three), (other, two), (last, one)):
        path.write_bytes(lines(events))
    flags = ["--database", url, "--on-duplicate", on_duplicate]
    monkeypatch.setattr(command, "BATCH", batch)
    named = [again, again, other, "-", again, last]
    done = invoke("write", *named, *flags, stdin=lines(three))
    assert "Traceback" not in done.err
    found, failed = receipts(done.out), failures(done.err)
    stored = [str(r.event_id) for r in found if r.status == "committed"]
    assert sorted(stored) == sorted(ids([*three, *two, *one]))
    duplicates = [str(r.event_id) for r in found if r.status == "duplicate"]
    duplicates += [f["eventId"] for f in failed if f["sameContent"]]
    assert sorted(duplicates) == sorted(3 * ids(three))
    if on_duplicate == "error":
        assert {(f["input"], f["line"]) for f in failed} == {
            (str(name), n) for name in (again, "-") for n in (1, 2, 3)
        }
    assert (done.code, len(failed)) == ((1, 9) if on_duplicate == "error" else (0, 0))
    assert "stopped" not in done.err


def test_events_are_stored_in_the_order_of_input(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "BATCH", 7)
    events = [event(f"car-{n % 3}", n) for n in range(40)]
    done = invoke("write", "--database", url, stdin=lines(events))
    assert [str(r.event_id) for r in receipts(done.out)] == ids(events)
    versions = [receipt.entities[0].version for receipt in receipts(done.out)]
    assert versions == [1 + n // 3 for n in range(40)]


def test_nothing_to_read_is_no_failure(url: str) -> None:
    done = invoke("write", "--database", url)
    assert (done.code, done.out) == (0, b"")
    assert summary(done.err)["stored"] == 0


def test_conflicts_and_retries_are_counted_and_logged(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "BATCH", 1)
    proxy.refuse(2)
    done = invoke("write", "--database", proxy.url, stdin=lines([event(), event()]))
    assert done.code == 0
    assert [(r.attempts, r.conflicts) for r in receipts(done.out)] == [(3, 2), (1, 0)]
    assert summary(done.err) == {
        "stored": 2, "retried": 1, "conflicts": 2, "duplicates": 0, "failed": 0
    }  # fmt: skip
    logged = [line for line in done.err.splitlines() if "WARNING" in line]
    assert len(logged) == 2
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* WARNING Transaction conflict", logged[0])


def test_a_failed_event_is_named_and_the_others_are_stored(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.refuse(1, sqlstate="23514", message="refused")
    events = [event(), event(), event()]
    stream = lines([events[0], b'{"eventHeader": 1}', events[1], events[2]])
    monkeypatch.setattr(command, "BATCH", 1)
    done = invoke("write", "--database", proxy.url, stdin=stream)
    assert done.code == 1
    assert [str(r.event_id) for r in receipts(done.out)] == ids(events[1:])
    found = {failure["line"]: failure for failure in failures(done.err)}
    assert found[1] == {
        "eventId": ids(events)[0],
        "error": "CheckViolation",
        "message": "refused",
        "input": "-",
        "line": 1,
    }
    assert found[2]["eventId"] is None
    assert found[2]["error"] == "InvalidEvent"
    assert found.keys() == {1, 2}
    assert summary(done.err)["failed"] == 2
    assert "stopped" not in done.err


def test_an_event_over_1_mib_fails_and_the_next_is_stored(url: str) -> None:
    big = event("x" * (1 << 20))
    done = invoke("write", "--database", url, stdin=lines([big, event()]))
    assert (done.code, len(receipts(done.out))) == (1, 1)
    (failure,) = failures(done.err)
    assert failure["error"] == "EventTooLarge"
    assert failure["message"] == f"event of {len(big)} bytes is over the limit of 1048576 bytes"


def test_a_stored_event_is_a_failure_or_gives_its_receipt_again(url: str) -> None:
    events = lines([event("a"), event("b")])
    first = receipts(invoke("write", "--database", url, stdin=events).out)
    again = invoke("write", "--database", url, "--on-duplicate", "return", stdin=events)
    assert again.code == 0
    assert {(r.event_id, r.position, r.entities) for r in first} == {
        (r.event_id, r.position, r.entities) for r in receipts(again.out)
    }
    assert summary(again.err)["duplicates"] == 2
    refused = invoke("write", "--database", url, stdin=events)
    assert (refused.code, refused.out) == (1, b"")
    told = {(failure["error"], failure["sameContent"]) for failure in failures(refused.err)}
    assert told == {("DuplicateEvent", True)}


@pytest.mark.parametrize("batch", [1, 10])
def test_another_event_under_a_stored_id_is_no_duplicate_but_a_failure(
    url: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a load that is run again cannot hide an event that is stored nowhere."""
    stored = [event("a"), event("b"), event("c")]
    assert invoke("write", "--database", url, stdin=lines(stored)).code == 0
    others = [event("a", 7, UUID(taken)) for taken in ids(stored)[1:]]
    flags = ["--database", url, "--on-duplicate", "return"]
    monkeypatch.setattr(command, "BATCH", batch)
    done = invoke("write", *flags, stdin=lines([stored[0], *others, event("a")]))
    assert done.code == 1
    assert [r.status for r in receipts(done.out)] == ["duplicate", "committed"]
    found = {failure["eventId"]: failure for failure in failures(done.err)}
    assert sorted(found) == sorted(ids(others))
    assert {(f["error"], f["sameContent"]) for f in found.values()} == {("DuplicateEvent", False)}
    assert "1 duplicate, 2 failed (2 with the id of another event) in" in done.err


def test_a_line_that_is_no_event_is_named_and_the_others_are_stored(
    url: str, tmp_path: Path
) -> None:
    broken, other = tmp_path / "broken.jsonl", tmp_path / "other.jsonl"
    broken.write_bytes(event("a") + b"\noops\n{\n\n" + event("b"))
    other.write_bytes(event("c"))
    done = invoke("write", broken, other, "--database", url)
    assert (done.code, len(receipts(done.out))) == (1, 3)
    found = failures(done.err)
    assert [(each["error"], each["line"]) for each in found] == [
        ("InvalidEvent", 2),
        ("InvalidEvent", 3),
    ]
    assert "stopped" not in done.err


@pytest.mark.parametrize("document", [b"[%s,\n%s]", b"{\n%s\n%s}"], ids=["array", "object"])
def test_an_input_of_which_no_line_is_an_event_says_how_to_make_lines(
    url: str, document: bytes
) -> None:
    broken = document % (b'"a"', b'"b"')
    done = invoke("write", "--database", url, stdin=broken)
    assert (done.code, done.out) == (1, b"")
    assert "jq -c '.[]'" in done.err.splitlines()[-1]
    mixed = invoke("write", "--database", url, stdin=event("a") + b"\n" + broken)
    assert (mixed.code, len(receipts(mixed.out))) == (1, 1)
    assert "jq" not in mixed.err


def test_a_document_that_is_no_lines_stores_nothing_and_says_how_to_make_lines(
    url: str, tmp_path: Path
) -> None:
    path = tmp_path / "array.json"
    path.write_bytes(b"[" + event("a") + b"," + b" " * MAX_LINE_BYTES + event("b") + b"]")
    done = invoke("write", path, "--database", url)
    assert (done.code, done.out) == (1, b"")
    (failure,) = failures(done.err)
    assert (failure["error"], failure["line"]) == ("LineTooLong", 1)
    assert "`jq -c`" in failure["message"]
    assert "stopped before the first line" in done.err


def test_missing_tables_end_it_with_the_command_to_run(database_url: str) -> None:
    done = invoke("write", "--database", database_url, stdin=lines([event("a"), event("b")]))
    assert (done.code, done.out, failures(done.err)) == (78, b"", [])
    assert "`dsql-outbox schema apply` makes it new and empty" in done.err
    assert "write again from line 1 of -" in done.err


def test_an_unreachable_database_ends_it_and_says_where_to_go_on(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "BATCH", 4)
    proxy.pause_listening()
    events = lines(event(f"car-{n}") for n in range(300))
    flags = ["--max-outage", 0]
    done = invoke("write", "--database", proxy.url, *flags, stdin=events)
    assert (done.code, done.out) == (69, b"")
    assert len(failures(done.err)) == 4, "those of one transaction, and none of the rest"
    assert {failure["error"] for failure in failures(done.err)} == {"OperationalError"}
    assert "stopped: the database cannot be reached; write again from line 1 of -" in done.err
    assert "Traceback" not in done.err


def test_an_outcome_that_is_not_known_is_reported_as_such(proxy: PostgresProxy) -> None:
    proxy.before(proxy.pause_listening)
    proxy.cut("after_commit")
    done = invoke("write", "--database", proxy.url, "--max-outage", 0, stdin=event())
    assert done.code == 69
    assert [failure["error"] for failure in failures(done.err)] == ["OutcomeUnknown"]


def test_an_instrumented_command_sends_its_spans(url: str) -> None:
    """As the page says: the command itself sets up no telemetry."""
    words = [SCRIPTS / "opentelemetry-instrument", SCRIPTS / "dsql-outbox", "write"]
    with OtlpReceiver() as collector:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": "load",
        }
        subprocess.run([*words, "--database", url], input=event(), env=os.environ | env, check=True)
        assert {span.name for span in collector.spans} == {"outbox.write", "outbox.write.attempt"}


def test_the_address_and_the_schema_come_from_the_environment(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "BATCH", 1)
    proxy.refuse(1, sqlstate="23514")
    env = {
        "DSQL_OUTBOX_DATABASE": proxy.url,
        "DSQL_OUTBOX_SCHEMA": "outbox",
    }
    same = event()
    flags = ("--max-outage", "0", "--on-duplicate", "return")
    done = invoke("write", *flags, stdin=lines([same, same, same]), env=env)
    assert done.code == 1
    assert [r.status for r in receipts(done.out)] == ["committed", "duplicate"]
    assert len(failures(done.err)) == 1
