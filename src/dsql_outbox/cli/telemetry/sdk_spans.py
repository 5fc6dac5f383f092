"""OpenTelemetry's SDK for spans, set up for the process; imported only when spans are requested."""

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from socket import gethostname
from threading import Thread
from time import monotonic
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.resources import HOST_NAME, SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

FLUSH_SECONDS: Final = 5.0
"""How many seconds sending the last spans or metrics may take."""

logger = logging.getLogger("dsql_outbox")


def memory_exporter() -> InMemorySpanExporter:
    """Spans kept in memory, for a command that draws them itself."""
    return InMemorySpanExporter()


@contextmanager
def exporting(service_name: str, exporters: Sequence[SpanExporter]) -> Generator[Sequence[str]]:
    """Give every span that ends inside the `with` block to each of `exporters`.

    Yields a list that holds, after the block, a reason for each exporter that lost spans.

    Leaving the block takes `FLUSH_SECONDS` at most.
    """
    # The exporters log each retry and failure. `_GuardedSpanExporter` warns once instead.
    # The level is not reset, because an export may still fail after the block.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    lost: list[str] = []
    guarded = [_GuardedSpanExporter(exporter, lost) for exporter in exporters]
    provider = _global_provider(service_name)
    for exporter in guarded:
        provider.add_span_processor(exporter.processor)
    try:
        yield lost
    finally:
        _shut_down(guarded)


def _global_provider(service_name: str) -> TracerProvider:
    """The global provider, if ``opentelemetry-instrument`` or others set one; else a new one."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(resource=resource_of(service_name), shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    return provider


def resource_of(service_name: str) -> Resource:
    """The resource (service name, host name and attributes) of spans and metrics.

    Without the host name Jaeger takes each process for its own host, and corrects clocks that
    agree.
    """
    # `Resource.create` prefers its argument over the OTEL_* variables. Adding the variables
    # to the argument makes them win.
    return Resource.create(
        {
            SERVICE_NAME: service_name,
            HOST_NAME: gethostname(),
            **OTELResourceDetector().detect().attributes,
        }
    )


class _GuardedSpanExporter(SpanExporter):
    """An exporter that logs its first failure, adds it to `lost`, and never raises."""

    def __init__(self, exporter: SpanExporter, lost: list[str]) -> None:
        self._exporter = exporter
        self._lost = lost
        self._warned = False
        self.processor = BatchSpanProcessor(self)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - lost spans must not disturb the command
            self.warn(type(error).__name__)
            return SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self.warn("the collector cannot be reached or refused them")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            self._lost.append(reason)
            logger.warning("spans are lost, check the OTLP endpoint: %s", reason)


def _shut_down(exporters: Sequence[_GuardedSpanExporter]) -> None:
    """Flush and close all exporters in parallel.

    This uses threads, because the SDK's own flush has no time limit.
    """
    deadline = monotonic() + FLUSH_SECONDS
    threads = [Thread(target=exporter.processor.shutdown, daemon=True) for exporter in exporters]
    for thread in threads:
        thread.start()
    for thread, exporter in zip(threads, exporters, strict=True):
        thread.join(max(0.0, deadline - monotonic()))
        if thread.is_alive():
            exporter.warn(f"they could not be sent within {FLUSH_SECONDS:.0f} s")
