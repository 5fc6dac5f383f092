"""`dsql-outbox trace`: from a file and from Jaeger's query API, and what is said when it fails.

No Jaeger runs here: its answers have the form of its own recorded ones.
"""

import json
import socket
from collections.abc import Iterator
from os import mkfifo
from pathlib import Path
from time import time_ns
from typing import Any
from uuid import UUID

import msgspec
import pytest
from click.testing import CliRunner, Result
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.support.telemetry.jaeger_server import DATA, Jaeger, OlderJaeger, serving
from tests.support.telemetry.otlp_files import as_otlp_json, save

from dsql_outbox.cli import main
from dsql_outbox.cli.trace import spans_of_file
from dsql_outbox.observability import (
    AttemptEnded,
    PublishEnded,
    PublishStarted,
    TraceFacts,
    WriteEnded,
    WriteStarted,
)
from dsql_outbox.traces import TraceData, view_recorded, views

EVENT, OTHER = UUID(int=7), UUID(int=8)
T0, MS = time_ns(), 1_000_000


class Recorded:
    """Spans of ours, made by the real hook and encoded by OpenTelemetry's exporter."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._facts = TraceFacts(provider)

    def write(self, event_id: UUID) -> dict[str, str]:
        """A write that conflicted once; returns what travels with its row."""
        scope = self._facts(WriteStarted(event_id, "Loan Created", "LoanCreated", "events", 1))
        assert scope is not None
        scope(AttemptEnded(event_id, 1, 0.0, T0, T0 + 5 * MS, "conflict", "E", "40001", "OC000"))
        scope(AttemptEnded(event_id, 2, 0.104, T0 + 109 * MS, T0 + 112 * MS, "committed"))
        scope(WriteEnded(event_id, "committed", 2, 1))
        return dict(scope.carrier)

    def publish(self, event_id: UUID, carrier: dict[str, str]) -> None:
        scope = self._facts(PublishStarted(event_id, "events", "nats", carrier, 1, T0, T0 + MS, 8))
        assert scope is not None
        scope(PublishEnded(event_id, "events", "delivered"))

    @property
    def spans(self) -> Any:
        return self._exporter.get_finished_spans()

    @property
    def otlp(self) -> Any:
        return encode_spans(self.spans)

    def named(self, *names: str) -> list[dict[str, Any]]:
        (resource,) = as_otlp_json(self.otlp)["resourceSpans"]
        (scope,) = resource["scopeSpans"]
        return [span for span in scope["spans"] if span["name"] in names]


@pytest.fixture
def recorded() -> Recorded:
    found = Recorded()
    found.publish(EVENT, found.write(EVENT))
    found.write(OTHER)
    return found


@pytest.fixture
def file(recorded: Recorded, tmp_path: Path) -> Path:
    save([recorded.otlp], tmp_path / "spans.json")
    return tmp_path / "spans.json"


@pytest.fixture
def jaeger(recorded: Recorded) -> Iterator[Jaeger]:
    """The writer's spans and the publisher's, of two services."""
    writers = recorded.named("outbox.write", "outbox.write.attempt", "outbox.write.attempt 2")
    relays = recorded.named("outbox.wait", "publish events")
    with serving(Jaeger({"loans": writers, "relay": relays, "unrelated": []})) as jaeger:
        yield jaeger


def trace(*words: object) -> Result:
    return CliRunner().invoke(main, ["trace", *map(str, words)])


def tree(result: Result) -> list[str]:
    """The labels of the lines, without numbers, bars and what is around the tree."""
    assert result.exit_code == 0, result.stderr
    return [line[:46].rstrip() for line in result.stdout.splitlines() if line[:1] in "o├│└"]


TREE = [
    "outbox.write committed",
    "├─ outbox.write.attempt 1 conflict 40001 OC000",
    "│  waited 104 ms",
    "├─ outbox.write.attempt 2 committed",
    "├─ outbox.wait",
    "└─ publish events delivered",
]


def labels(result: Result) -> list[str]:
    """`tree`, in an order that does not hang on the clock of the test."""
    return sorted(line.lstrip("├└│─ ") for line in tree(result))


def test_a_file_is_drawn_as_the_tree_of_its_events_trace(file: Path, recorded: Recorded) -> None:
    result = trace(EVENT, "--file", file)

    assert labels(result) == sorted(line.lstrip("├└│─ ") for line in TREE)
    head = f"event {EVENT}\ntrace {recorded.spans[0].context.trace_id:032x}\n"
    assert result.stdout.startswith(head)
    assert "/trace/" not in result.stdout


def test_jaegers_answer_gives_the_same_tree_and_the_link_to_its_page(
    jaeger: Jaeger, file: Path, recorded: Recorded
) -> None:
    result = trace(EVENT, "--jaeger", f"{jaeger.url}/")

    *lines, link = result.stdout.splitlines()
    assert lines == trace(EVENT, "--file", file).stdout.splitlines()
    assert link == f"{jaeger.url}/trace/{recorded.spans[0].context.trace_id:032x}"


def test_an_older_jaeger_is_refused_by_its_version() -> None:
    with serving(older := OlderJaeger({"loans": []})):
        result = trace(EVENT, "--jaeger", older.url)

    assert (result.exit_code, result.stdout) == (1, "")
    assert "must be the base URL of Jaeger 2.19 or newer" in result.stderr
    assert f"at {older.url} is Jaeger 2.13.0" in result.stderr


def test_every_service_is_asked_for_raw_traces_of_an_event(jaeger: Jaeger) -> None:
    trace(EVENT, "--jaeger", jaeger.url, "--since", "2026-11-24T18:00:00Z")

    asked = [(q["query.serviceName"], q["query.attributes"]) for q in jaeger.queries]
    wanted = f'{{"outbox.event.id": "{EVENT}"}}'
    assert asked == [(service, wanted) for service in ("loans", "relay", "unrelated")]
    assert {q["query.rawTraces"] for q in jaeger.queries} == {"true"}
    assert {q["query.startTimeMin"] for q in jaeger.queries} == {"2026-11-24T18:00:00Z"}


def test_a_span_as_jaeger_recorded_it_is_understood() -> None:
    answer = json.loads((DATA / "find-traces.json").read_bytes())["result"]
    (span,) = views(msgspec.convert(answer, TraceData, strict=False))

    assert (span.trace_id, span.span_id, span.parent_id) == (f"{1:032x}", f"{2:016x}", None)
    assert (span.name, span.kind, span.failed, span.start_ns) == ("foobar", "SERVER", True, 0)


def test_a_file_holds_what_was_recorded(file: Path, recorded: Recorded) -> None:
    assert list(spans_of_file(file)) == view_recorded(recorded.spans)


def test_json_is_one_object_with_every_span(jaeger: Jaeger) -> None:
    result = trace(EVENT, "--jaeger", jaeger.url, "--json")

    (line,) = result.stdout.splitlines()
    found = json.loads(line)
    assert found["eventId"] == str(EVENT)
    assert found["page"] == f"{jaeger.url}/trace/{found['traceId']}"
    assert len(found["spans"]) == 5
    assert {span["traceId"] for span in found["spans"]} == {found["traceId"]}


def test_an_event_without_a_trace_is_an_error(file: Path, jaeger: Jaeger) -> None:
    for place in (("--file", file), ("--jaeger", jaeger.url)):
        result = trace(UUID(int=9), *place)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"there is no trace of event {UUID(int=9)} in {place[1]}" in result.stderr


def test_several_traces_are_named_and_one_can_be_chosen(tmp_path: Path) -> None:
    recorded = Recorded()
    recorded.publish(EVENT, {})
    recorded.publish(EVENT, {})
    save([recorded.otlp], path := tmp_path / "spans.json")
    ids = [f"{span.context.trace_id:032x}" for span in recorded.spans]

    several = trace(EVENT, "--file", path)
    chosen = trace(EVENT, "--file", path, "--trace-id", ids[1].upper())
    unknown = trace(EVENT, "--file", path, "--trace-id", "ab")

    assert several.exit_code == unknown.exit_code == 1
    assert f"there are 2 traces of event {EVENT}" in several.stderr
    assert all(f"\n  {trace_id}  1 spans" in several.stderr for trace_id in ids)
    assert chosen.exit_code == 0
    assert ids[1] in chosen.stdout
    assert "there is no trace ab of event" in unknown.stderr


@pytest.mark.parametrize(
    "line",
    [
        b"not JSON",
        b'{"resourceMetrics": []}',
        b"[]",
        b"\xff\xfe",
        b'{"resourceSpans": [{"scopeSpans": 3}]}',
    ],
)
def test_a_wrong_file_is_named_with_the_line(file: Path, line: bytes) -> None:
    file.write_bytes(file.read_bytes() + b"\n" + line + b"\n")

    result = trace(EVENT, "--file", file)

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{file}, line 3, is not an OTLP request in JSON with resourceSpans: " in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_pipe_is_refused_since_it_cannot_be_read_twice(tmp_path: Path) -> None:
    mkfifo(pipe := tmp_path / "pipe")

    result = trace(EVENT, "--file", pipe)

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{pipe} is not a regular file, which can be read twice" in result.stderr


def test_a_jaeger_that_is_not_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    result = trace(EVENT, "--jaeger", url)

    assert (result.exit_code, result.stdout) == (69, "")
    assert f"Jaeger cannot be reached at {url}/api/v3/services: " in result.stderr


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (404, b"not found"), (500, b"{}")])
def test_another_server_than_jaeger_is_an_error(status: int, body: bytes) -> None:
    other = Jaeger({})
    other.answer = lambda *_: (status, body)  # type: ignore[method-assign]
    with serving(other):
        result = trace(EVENT, "--jaeger", other.url)

    assert (result.exit_code, result.stdout) == (1, "")
    assert "must be the base URL of Jaeger 2.19 or newer" in result.stderr
    assert f"at {other.url} is no page of Jaeger" in result.stderr


@pytest.mark.parametrize(
    ("version", "said"), [("v2.1.0", "Jaeger 2.1.0"), ("", "a Jaeger of an unknown version")]
)
def test_a_jaeger_that_refuses_is_named_with_its_version(version: str, said: str) -> None:
    page = f'<script>JAEGER_VERSION = {{"gitCommit":"","gitVersion":"{version}"}};'
    jaeger = Jaeger({})
    jaeger.answer = lambda path, _: (200, page.encode()) if path == "/" else (404, b"nothing")  # type: ignore[method-assign]
    with serving(jaeger):
        result = trace(EVENT, "--jaeger", jaeger.url)

    assert result.exit_code == 1
    assert f"{jaeger.url}/api/v3/services answered 404: " in result.stderr
    assert f"at {jaeger.url} is {said}" in result.stderr


@pytest.mark.parametrize("url", ["localhost:16686", "file:///etc/passwd", "http://"])
def test_what_is_no_base_url_is_refused(url: str) -> None:
    result = trace(EVENT, "--jaeger", url)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "give a base URL without a login, such as http://localhost:16686" in result.stderr


def test_an_answer_with_no_spans_is_no_trace() -> None:
    empty = Jaeger({})
    found = {"/api/v3/services": b'{"services": ["a"]}'}
    empty.answer = lambda path, _: (200, found.get(path, b'{"result": {}}'))  # type: ignore[method-assign]
    with serving(empty):
        assert "there is no trace of event" in trace(EVENT, "--jaeger", empty.url).stderr
