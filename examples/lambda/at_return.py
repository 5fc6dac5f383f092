"""A span processor without a thread."""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExportResult

MAX_KEPT = 2048
"""Spans; more are dropped, as when no time was left to send them in many invocations."""


class AtReturn(SpanProcessor):
    """Keeps the spans that have ended, and sends them by OTLP over HTTP when told to flush."""

    def __init__(self) -> None:
        self._ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span, if it is sampled."""
        if span.context.trace_flags.sampled and len(self._ended) < MAX_KEPT:
            self._ended.append(span)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what is kept, from this thread; what cannot be sent in time is lost."""
        if not self._ended:
            return True
        spans, self._ended = self._ended, []
        # A new exporter each time: the old one's socket may not have survived a freeze. Its
        # limit is for connecting and for the answer, one after the other: half of ours. That
        # is too short for its own retries, so a collector that is down costs no time.
        exporter = OTLPSpanExporter(timeout=timeout_millis / 2000)
        try:
            return exporter.export(spans) is SpanExportResult.SUCCESS
        finally:
            exporter.shutdown()  # type: ignore[no-untyped-call]
