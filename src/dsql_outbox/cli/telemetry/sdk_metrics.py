"""OpenTelemetry's SDK for metrics; imported only when metrics are requested."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)

from dsql_outbox.outbox.errors import MissingExtra

from .exports import Exports
from .sdk_spans import resource_of


def export_metrics(
    exports: Exports, service_name: str, exporters: Sequence[MetricExporter], *, prometheus: bool
) -> tuple[MeterProvider, Callable[[], bytes] | None]:
    """Return a provider that exports to `exporters`, and a function that answers a scrape.

    The function is None without `prometheus`. Raises `MissingExtra` without the extra
    ``[prometheus]``.
    """
    # The exporters log each retry and failure. `Exports` warns once instead.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    readers: list[MetricReader] = []
    exposition = None
    if prometheus:
        reader, exposition = _prometheus()
        readers.append(reader)
    guarded = (_GuardedMetricExporter(exporter, exports) for exporter in exporters)
    readers += map(PeriodicExportingMetricReader, guarded)
    provider = MeterProvider(readers, resource_of(service_name), shutdown_on_exit=False)
    exports.add("metrics", provider.shutdown)
    return provider, exposition


def _prometheus() -> tuple[MetricReader, Callable[[], bytes]]:
    try:
        from opentelemetry.exporter.prometheus import (  # noqa: PLC0415 - an extra
            PrometheusMetricReader,
        )
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtra("prometheus", "--listen, which has /metrics,") from error
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    return reader, lambda: generate_latest(registry)


class _GuardedMetricExporter(MetricExporter):
    """An exporter that reports its losses, and never raises."""

    def __init__(self, exporter: MetricExporter, exports: Exports) -> None:
        super().__init__(
            exporter._preferred_temporality,  # noqa: SLF001 - the reader asks for it by this name
            exporter._preferred_aggregation,  # noqa: SLF001 - as above
        )
        self._exporter: Any = exporter  # its methods take options without a type
        self._exports = exports

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **options: Any
    ) -> MetricExportResult:
        try:
            result: MetricExportResult = self._exporter.export(
                metrics_data, timeout_millis, **options
            )
        except Exception as error:  # noqa: BLE001 - lost metrics must not disturb the command
            self._exports.lose("metrics", type(error).__name__)
            return MetricExportResult.FAILURE
        if result is MetricExportResult.SUCCESS:
            self._exports.arrived()
        else:
            self._exports.lose("metrics", "the collector cannot be reached or refused them")
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))

    def shutdown(self, timeout_millis: float = 30_000, **options: Any) -> None:
        self._exporter.shutdown(timeout_millis, **options)
