"""OpenTelemetry's SDK for spans, set up for the process; imported only when spans are requested."""

import logging
from collections.abc import Sequence
from os import environ
from socket import gethostname
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.resources import HOST_NAME, SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from .exports import Exports

_QUEUE: Final = 16_384
"""Spans that wait for the exporter: two for each message that a publisher may have on its way.

That is about 60 MB. The default of the SDK, 2048, holds those of two calls of a sink.
"""

_BATCH: Final = 2_048
"""Spans of one request, about a megabyte."""


def memory_exporter() -> InMemorySpanExporter:
    """Spans kept in memory, for a command that draws them itself."""
    return InMemorySpanExporter()


def export_spans(exports: Exports, service_name: str, exporters: Sequence[SpanExporter]) -> None:
    """Give every span to each of `exporters` until `exports` is closed."""
    # The exporters log each retry and failure. `Exports` warns once instead.
    # The level is not reset, because an export may still fail after the end.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    provider = _global_provider(service_name)
    for exporter in exporters:
        processor = span_processor(_GuardedSpanExporter(exporter, exports))
        provider.add_span_processor(processor)
        exports.add("spans", processor.shutdown)


def span_processor(exporter: SpanExporter) -> BatchSpanProcessor:
    """Return what exports spans in batches, by the OTEL_BSP_* variables or by our own sizes."""
    if {"OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"} & environ.keys():
        return BatchSpanProcessor(exporter)  # it reads them
    return BatchSpanProcessor(exporter, max_queue_size=_QUEUE, max_export_batch_size=_BATCH)


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
    """An exporter that reports its losses, and never raises."""

    def __init__(self, exporter: SpanExporter, exports: Exports) -> None:
        self._exporter = exporter
        self._exports = exports

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - lost spans must not disturb the command
            self._exports.lose("spans", type(error).__name__)
            return SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self._exports.arrived()
        else:
            self._exports.lose("spans", "the collector cannot be reached or refused them")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)
