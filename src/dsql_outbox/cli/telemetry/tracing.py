"""Spans of a command: whether to record, and where to send the spans."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dsql_outbox.outbox.errors import MissingExtra

from .exports import Exports
from .otel_environment import is_disabled, named_exporters, refuse_grpc

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter


def record_spans(
    exports: Exports,
    service_name: str,
    *,
    endpoint: str | None = None,
    exporters: Sequence["SpanExporter"] = (),
) -> None:
    """Record spans until `exports` is closed, which sends the last ones.

    Spans are sent to `exporters`, and by OTLP over HTTP to `endpoint`, a base URL
    such as ``http://localhost:4318``. Without `endpoint`, the OTEL_* variables
    name the exporters. Without any exporter, or if OTEL_SDK_DISABLED is
    ``true``, nothing is set up. OTEL_SERVICE_NAME overrides `service_name`.

    Raises `MissingExtra` for OTLP without the extra ``[otlp]``, and
    `SettingsError` for an OTEL_* value that is not supported.
    """
    if is_disabled():
        return
    names = ["otlp"] if endpoint else named_exporters("TRACES")
    if not names and not exporters:
        return
    from .sdk_spans import export_spans  # noqa: PLC0415 - the SDK takes 100 ms to import

    opened = [*exporters, *(_open(name, endpoint) for name in names)]
    export_spans(exports, service_name, opened)


def _open(name: str, endpoint: str | None) -> "SpanExporter":
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415 - 100 ms

        return ConsoleSpanExporter(out=sys.stderr)  # standard output holds results
    refuse_grpc("TRACES")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - extra
            OTLPSpanExporter,
        )
    except ImportError as error:
        raise MissingExtra("otlp", "sending spans by OTLP") from error
    return OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None)
