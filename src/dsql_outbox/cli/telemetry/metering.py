"""Metrics from the command line: whether to measure, and for whom."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry import metrics

from dsql_outbox.observability import Hook, MetricFacts
from dsql_outbox.outbox import MissingExtra

from .otel_environment import is_disabled, named_exporters, refuse_grpc

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter


class Metering(NamedTuple):
    """The hooks to tell facts to; and with Prometheus, what a scrape is answered with."""

    hooks: Sequence[Hook] = ()
    exposition: Callable[[], bytes] | None = None


@contextmanager
def metering(service_name: str, *, prometheus: bool = False) -> Generator[Metering]:
    """Measure inside the `with` block, and send the last metrics before it is left.

    They go to where the OTEL_* variables say, and with `prometheus` to whoever
    calls `exposition`. If nobody asks, nothing is set up and there are no
    hooks. The provider is of the command's own: the global one, as
    ``opentelemetry-instrument`` may have set it, is told by the hook that is on
    by default, and then it is the one that sends.

    Raises `MissingExtra` without the extra that a way needs, and
    `SettingsError` for an OTEL_* value that cannot be honoured.
    """
    sends = not is_disabled() and not _is_instrumented()
    names = named_exporters("METRICS") if sends else []
    if not names and not prometheus:
        yield Metering()
        return
    exporters = [_open(name) for name in names]
    from .sdk_metrics import measuring  # noqa: PLC0415 - the SDK takes 100 ms to import

    with measuring(service_name, exporters, prometheus=prometheus) as (provider, exposition):
        yield Metering((MetricFacts(provider),), exposition)


def _is_instrumented() -> bool:
    provider = type(metrics.get_meter_provider())
    return not provider.__module__.startswith(metrics.__name__)


def _open(name: str) -> "MetricExporter":
    if name == "console":
        from .sdk_metrics import console  # noqa: PLC0415 - the SDK takes 100 ms to import

        return console()
    refuse_grpc("METRICS")
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415 - extra
            OTLPMetricExporter,
        )
    except ImportError as error:
        raise MissingExtra("otlp", "sending metrics by OTLP") from error
    return OTLPMetricExporter()
