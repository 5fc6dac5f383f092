"""OpenTelemetry as a program has it: metrics that are read, and spans that are encoded."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from io import StringIO

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from dsql_outbox.cli.telemetry.sdk_spans import span_processor
from dsql_outbox.observability import MetricFacts, TraceFacts

_INTERVAL = 1_000  # milliseconds between two reads of the metrics


class Encoded(SpanExporter):
    """Encodes spans as the OTLP exporter does, counts them, and sends them nowhere."""

    def __init__(self) -> None:
        self.spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Encode some spans."""
        self.spans += len(spans)
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


@contextmanager
def metered() -> Generator[MetricFacts]:
    """A hook whose metrics are read once a second."""
    nowhere = ConsoleMetricExporter(StringIO(), lambda _: "")
    reader = PeriodicExportingMetricReader(nowhere, export_interval_millis=_INTERVAL)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield MetricFacts(provider)
    provider.shutdown()


@contextmanager
def traced(encoded: Encoded) -> Generator[tuple[TracerProvider, TraceFacts]]:
    """A provider whose spans a thread encodes, as the commands set it up, and its hook."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(span_processor(encoded))
    yield provider, TraceFacts(provider)
    provider.shutdown()
