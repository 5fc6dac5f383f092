"""Metrics of a command: whether to measure, and where to send the metrics."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry import metrics

from dsql_outbox.observability.hooks import Hook
from dsql_outbox.observability.otel.metrics import MetricFacts
from dsql_outbox.outbox.errors import MissingExtra

from .exports import Exports
from .otel_environment import is_disabled, named_exporters, refuse_grpc

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter


class Metering(NamedTuple):
    """The hooks that measure, and `exposition`, which answers a Prometheus scrape, or None."""

    hooks: Sequence[Hook] = ()
    exposition: Callable[[], bytes] | None = None


def measure(
    exports: Exports, service_name: str, *, prometheus: bool = False, target: str | None = None
) -> Metering:
    """Measure until `exports` is closed, which sends the last metrics.

    Metrics are sent to the exporters that the OTEL_* variables name. With
    `prometheus`, `exposition` returns them as text. Without either, nothing is
    set up and there are no hooks. `target` is that of a publisher, as in `MetricFacts`.

    The provider belongs to the command. If ``opentelemetry-instrument`` has set
    a global provider, that one measures through the default hook and sends the
    metrics, so the OTEL_* variables are left to it.

    Raises `MissingExtra` if the extra of an exporter is not installed, and
    `SettingsError` for an OTEL_* value that is not supported.
    """
    sends = not is_disabled() and not _is_instrumented()
    names = named_exporters("METRICS") if sends else []
    if not names and not prometheus:
        return Metering()
    exporters = [_open(name) for name in names]
    from .sdk_metrics import export_metrics  # noqa: PLC0415 - the SDK takes 100 ms to import

    provider, exposition = export_metrics(exports, service_name, exporters, prometheus=prometheus)
    return Metering((MetricFacts(provider, target=target),), exposition)


def _is_instrumented() -> bool:
    provider = type(metrics.get_meter_provider())
    return not provider.__module__.startswith(metrics.__name__)


def _open(name: str) -> "MetricExporter":
    if name == "console":
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter  # noqa: PLC0415 - 100 ms

        return ConsoleMetricExporter(out=sys.stderr)  # standard output holds results
    refuse_grpc("METRICS")
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415 - extra
            OTLPMetricExporter,
        )
    except ImportError as error:
        raise MissingExtra("otlp", "sending metrics by OTLP") from error
    return OTLPMetricExporter()
