"""OpenTelemetry's SDK for metrics; imported only when metrics are requested."""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)

from dsql_outbox.outbox import MissingExtra

from .sdk_spans import FLUSH_SECONDS, resource_of

logger = logging.getLogger("dsql_outbox")


@contextmanager
def measuring(
    service_name: str, exporters: Sequence[MetricExporter], *, prometheus: bool
) -> Generator[tuple[MeterProvider, Callable[[], bytes] | None]]:
    """Yield a provider that exports to `exporters`, and a function that answers a scrape.

    The function is None without `prometheus`. Leaving the block takes
    `FLUSH_SECONDS` at most. Raises `MissingExtra` without the extra
    ``[prometheus]``.
    """
    # The exporters log each retry and failure. `_GuardedMetricExporter` warns once instead.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    readers: list[MetricReader] = []
    exposition = None
    if prometheus:
        reader, exposition = _prometheus()
        readers.append(reader)
    guarded = [_GuardedMetricExporter(exporter) for exporter in exporters]
    readers += map(PeriodicExportingMetricReader, guarded)
    provider = MeterProvider(readers, resource_of(service_name), shutdown_on_exit=False)
    try:
        yield provider, exposition
    finally:
        _shut_down(provider, guarded)


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
    """An exporter that logs its first failure as one warning, and never raises."""

    def __init__(self, exporter: MetricExporter) -> None:
        super().__init__(
            exporter._preferred_temporality,  # noqa: SLF001 - the reader asks for it by this name
            exporter._preferred_aggregation,  # noqa: SLF001 - as above
        )
        self._exporter: Any = exporter  # its methods take options without a type
        self._warned = False

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **options: Any
    ) -> MetricExportResult:
        try:
            result: MetricExportResult = self._exporter.export(
                metrics_data, timeout_millis, **options
            )
        except Exception as error:  # noqa: BLE001 - lost metrics must not disturb the command
            self.warn(type(error).__name__)
            return MetricExportResult.FAILURE
        if result is not MetricExportResult.SUCCESS:
            self.warn("the collector cannot be reached or refused them")
            return MetricExportResult.FAILURE
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))

    def shutdown(self, timeout_millis: float = 30_000, **options: Any) -> None:
        self._exporter.shutdown(timeout_millis, **options)

    def warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("metrics are lost, check the OTLP endpoint: %s", reason)


def _shut_down(provider: MeterProvider, exporters: Sequence[_GuardedMetricExporter]) -> None:
    """Send the last metrics and close.

    This uses a thread, because the SDK does not report whether it finished in time.
    """
    thread = Thread(target=provider.shutdown, daemon=True)
    thread.start()
    thread.join(FLUSH_SECONDS)
    if thread.is_alive():
        for exporter in exporters:
            exporter.warn(f"they could not be sent within {FLUSH_SECONDS:.0f} s")
