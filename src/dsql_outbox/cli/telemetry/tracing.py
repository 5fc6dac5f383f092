"""Spans from the command line: whether to send any, and where to.

A library only uses the OpenTelemetry API; a command is a program of its own,
so it sets up the SDK. It does so only when asked: the SDK takes a tenth of a
second to import.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dsql_outbox.outbox import MissingExtra

from .otel_environment import is_disabled, named_exporters, refuse_grpc

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter


@contextmanager
def tracing(
    service_name: str, *, endpoint: str | None = None, exporters: Sequence["SpanExporter"] = ()
) -> Generator[None]:
    """Record spans inside the `with` block and send them before it is left.

    They go to `exporters`, and by OTLP over HTTP to `endpoint`, a base URL such
    as ``http://localhost:4318``; without `endpoint`, to where the OTEL_*
    variables say. If none of these asks for spans, or OTEL_SDK_DISABLED is
    ``true``, nothing is set up. OTEL_SERVICE_NAME goes before `service_name`.
    Leaving the block takes at most 5 seconds, also when nobody takes the spans.

    Raises `MissingExtra` if OTLP is asked for without the extra ``[otlp]``, and
    `SettingsError` for an OTEL_* value that cannot be honoured.
    """
    if is_disabled():
        yield
        return
    names = ["otlp"] if endpoint else named_exporters("TRACES")
    if not names and not exporters:
        yield
        return
    from .sdk_spans import exporting  # noqa: PLC0415 - the SDK takes 100 ms to import

    with exporting(service_name, [*exporters, *(_open(name, endpoint) for name in names)]):
        yield


def _open(name: str, endpoint: str | None) -> "SpanExporter":
    from .sdk_spans import console  # noqa: PLC0415 - the SDK takes 100 ms to import

    return console() if name == "console" else _open_otlp(endpoint)


def _open_otlp(endpoint: str | None) -> "SpanExporter":
    refuse_grpc("TRACES")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - extra
            OTLPSpanExporter,
        )
    except ImportError as error:
        raise MissingExtra("otlp", "sending spans by OTLP") from error
    return OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None)
