"""The queue of a command's spans: as many as a publisher makes at once, or as the user says."""

from collections.abc import Iterator, Sequence
from threading import Event

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from dsql_outbox.cli.telemetry.sdk_spans import span_processor
from dsql_outbox.publisher.relay.sender import MAX_IN_FLIGHT


class Held(SpanExporter):
    """Takes spans once it is let go."""

    def __init__(self) -> None:
        self.go = Event()
        self.took: list[int] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.go.wait(30)
        self.took.append(len(spans))
        return SpanExportResult.SUCCESS


@pytest.fixture
def exporter() -> Iterator[Held]:
    exporter = Held()
    yield exporter
    exporter.go.set()


def make_spans(exporter: Held, number: int) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(span_processor(exporter))
    tracer = provider.get_tracer("test")
    for _ in range(number):
        tracer.start_span("publish").end()
    exporter.go.set()
    provider.shutdown()


def test_no_span_is_lost_of_all_messages_that_a_publisher_has_on_their_way(exporter: Held) -> None:
    make_spans(exporter, 2 * MAX_IN_FLIGHT)
    assert sum(exporter.took) == 2 * MAX_IN_FLIGHT


@pytest.mark.parametrize(("queue", "batch"), [("4096", "100"), ("4096", None), (None, "100")])
def test_the_variables_of_opentelemetry_win(
    exporter: Held, monkeypatch: pytest.MonkeyPatch, queue: str | None, batch: str | None
) -> None:
    if queue is not None:
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", queue)
    if batch is not None:
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", batch)
    make_spans(exporter, 6_000)
    assert max(exporter.took) == int(batch or 512)
    held = int(queue or 2048)
    assert held <= sum(exporter.took) <= held + int(batch or 512), "the first batch left the queue"
