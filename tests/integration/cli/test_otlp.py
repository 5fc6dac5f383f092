"""Spans on the wire: the commands' set-up of the SDK, and the receiver for tests."""

import gzip
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.support import commands

from dsql_outbox.cli.telemetry.exports import exporting
from dsql_outbox.cli.telemetry.tracing import record_spans
from dsql_outbox.outbox import MissingExtra, SettingsError
from dsql_outbox.testing.otlp_receiver import OtlpReceiver

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

T0 = 1_700_000_000_000_000_000
MS = 1_000_000

COMMON = """
import logging, sys
from uuid import UUID
from dsql_outbox.cli.telemetry.exports import exporting
from dsql_outbox.cli.telemetry.tracing import record_spans
from dsql_outbox.observability.facts import *
from dsql_outbox.observability.otel.spans import trace_facts
logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
E, T0, MS = UUID(int=7), 1_700_000_000_000_000_000, 1_000_000
"""
WRITE = (
    COMMON
    + """
with exporting() as exports:
    record_spans(exports, "outbox-writer")
    with (scope := trace_facts(WriteStarted(E, "Loan Created", "LoanCreated", "events.Loan", 1))):
        scope(AttemptEnded(E, 1, 0.0, T0, T0 + 5 * MS, "conflict", "E", "40001", "OC000"))
        scope(AttemptEnded(E, 2, 0.104, T0 + 109 * MS, T0 + 112 * MS, "committed"))
        scope(WriteEnded(E, "committed", 2, 1))
print(scope.carrier["traceparent"], *exports.lost)
"""
)
PUBLISH = (
    COMMON
    + """
carrier = {"traceparent": sys.argv[1]}
with exporting() as exports:
    record_spans(exports, "outbox-publisher")
    scope = trace_facts(
        PublishStarted(E, "events.Loan", "nats", carrier, 1, T0 + 112 * MS, T0 + 150 * MS, 845)
    )
    scope(PublishEnded(E, "events.Loan", "delivered"))
"""
)
NOTHING_ASKED = (
    COMMON
    + """
import os
cases = [
    {},
    {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    {"OTEL_SERVICE_NAME": "loans", "OTEL_TRACES_SAMPLER": "always_on"},
]
before = dict(os.environ)
for case in cases:
    os.environ.clear()
    os.environ.update(before | case)
    with exporting() as exports:
        record_spans(exports, "outbox-writer")
        assert trace_facts(WriteStarted(E, "n", "t", "topic", 1)) is None, case
    assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")], case
"""
)


class Printed(NamedTuple):
    stdout: str
    stderr: str


def run(script: str, *args: str, **otel: str) -> Printed:
    """In a process of its own: a global tracer provider is for life."""
    script = f"import warnings\nwarnings.simplefilter('error')\n{script}"
    done = commands.run(*args, env=otel, program=("-c", script))
    assert done.code == 0, done.err
    return Printed(done.out.decode(), done.err)


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def no_otel_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def service_names(receiver: OtlpReceiver) -> list[str]:
    return [
        pair.value.string_value
        for request in receiver.requests
        for resource in request.resource_spans
        for pair in resource.resource.attributes
        if pair.key == "service.name"
    ]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_write_and_its_delivery_in_two_processes_are_one_trace(
    receiver: OtlpReceiver, compression: str
) -> None:
    otel = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
    }
    written = run(WRITE, **otel)
    published = run(PUBLISH, written.stdout.strip(), **otel)

    spans = receiver.wait_for(5)
    (write,) = (span for span in spans if span.name == "outbox.write")
    children = sorted(
        (span for span in spans if span is not write), key=lambda span: span.start_time_unix_nano
    )
    assert {span.trace_id for span in spans} == {write.trace_id}
    assert {span.parent_span_id for span in children} == {write.span_id}
    assert [(span.name, *times(span)) for span in children[:3]] == [
        ("outbox.write.attempt", 0, 5),
        ("outbox.write.attempt 2", 109, 112),
        ("outbox.wait", 112, 150),
    ]
    assert children[3].name == "publish events.Loan"
    assert service_names(receiver) == ["outbox-writer", "outbox-publisher"]
    assert written.stderr == published.stderr == ""


def times(span: "Span") -> tuple[float, float]:
    """Milliseconds after T0."""
    return (span.start_time_unix_nano - T0) / MS, (span.end_time_unix_nano - T0) / MS


def test_the_environments_service_name_goes_before_the_commands(receiver: OtlpReceiver) -> None:
    run(
        WRITE,
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{receiver.endpoint}/v1/traces",
        OTEL_SERVICE_NAME="loans",
    )

    receiver.wait_for(3)
    assert service_names(receiver) == ["loans"]


def test_an_endpoint_given_goes_before_the_environment(receiver: OtlpReceiver) -> None:
    script = WRITE.replace('"outbox-writer"', f'"outbox-writer", endpoint="{receiver.endpoint}/"')
    run(script, OTEL_TRACES_EXPORTER="none")

    receiver.wait_for(3)


def test_the_environments_sampler_is_honoured(receiver: OtlpReceiver) -> None:
    written = run(
        WRITE, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint, OTEL_TRACES_SAMPLER="always_off"
    )

    assert written.stdout.startswith("00-")
    assert receiver.spans == []


def test_the_sdk_is_not_imported_unless_spans_are_asked_for() -> None:
    """A new Python: the others have imported it."""
    subprocess.run([sys.executable, "-W", "error", "-c", NOTHING_ASKED], check=True)


def test_the_console_exporter_leaves_standard_output_alone() -> None:
    done = run(WRITE, OTEL_TRACES_EXPORTER="console")

    assert done.stdout.count("\n") == 1
    assert '"name": "outbox.write.attempt"' in done.stderr


def test_exporters_given_get_the_spans_of_every_block() -> None:
    script = (
        COMMON
        + """
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
for _ in range(2):
    exporter = InMemorySpanExporter()
    with exporting() as exports:
        record_spans(exports, "demo", exporters=[exporter])
        trace_facts(WriteStarted(E, "n", "t", "topic", 1))(WriteEnded(E, "committed", 1, 0))
    print([span.name for span in exporter.get_finished_spans()])
"""
    )
    assert run(script).stdout == "['outbox.write']\n" * 2


def test_a_collector_that_refuses_every_batch_costs_one_warning_line() -> None:
    with OtlpReceiver() as stopped:
        endpoint = stopped.endpoint
    done = run(
        WRITE,
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_EXPORTER_OTLP_TIMEOUT="0.2",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1",
    )

    reason = "the collector cannot be reached or refused them"
    assert done.stderr == (
        f"WARNING dsql_outbox spans are lost, check the OTLP endpoint: {reason}\n"
    )
    assert done.stdout.endswith(f" {reason}\n")


def test_a_collector_that_never_answers_does_not_hold_the_command_up() -> None:
    script = WRITE.replace("with exporting", """
from dsql_outbox.cli.telemetry import exports
exports.FLUSH_SECONDS = 1.0
with exporting""", 1)  # fmt: skip
    run("")  # what processes are forked from has started
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = monotonic()
        done = run(
            script,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}",
            OTEL_EXPORTER_OTLP_TIMEOUT="50",
        )

    assert monotonic() - started < 20
    assert done.stderr == (
        "WARNING dsql_outbox spans are lost, check the OTLP endpoint: "
        "they could not be sent within 1 s\n"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
)
def test_a_variable_that_cannot_be_honoured_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)

    with exporting() as exports, pytest.raises(SettingsError, match=f"^{name}={value}: "):
        record_spans(exports, "writer")


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    missing = r"needs the extra \[otlp\]: pip install "
    with exporting() as exports, pytest.raises(MissingExtra, match=missing):
        record_spans(exports, "writer", endpoint="http://127.0.0.1:9")


def test_the_receiver_refuses_what_it_cannot_read(receiver: OtlpReceiver) -> None:
    assert post(receiver, "/v1/logs", b"") == 404
    assert post(receiver, "/v1/traces", b"\xff not protobuf") == 400
    assert post(receiver, "/v1/traces", b"not gzip", {"content-encoding": "gzip"}) == 400
    assert post(receiver, "/v1/traces", gzip.compress(b""), {"content-encoding": "gzip"}) == 200
    assert receiver.spans == []


def post(receiver: OtlpReceiver, path: str, body: bytes, headers: Any = None) -> int:
    connection = HTTPConnection(receiver.endpoint.removeprefix("http://"))
    try:
        connection.request("POST", path, body, headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_receiver_says_what_came_when_the_wait_is_over(receiver: OtlpReceiver) -> None:
    run(WRITE, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)

    receiver.wait_for(lambda spans: any(span.name == "outbox.write" for span in spans))
    with pytest.raises(TimeoutError, match=r"within 0\.01 s; received: .*outbox\.write"):
        receiver.wait_for(4, timeout=0.01)


def test_a_wait_that_began_before_the_spans_came_ends_with_them(receiver: OtlpReceiver) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(receiver.wait_for, 3, timeout=30)
        run(WRITE, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)

        assert len(waiting.result(timeout=5)) == 3
