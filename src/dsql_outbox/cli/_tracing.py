"""Spans from the command line: whether to send any, and where to.

A library only uses the OpenTelemetry API; a command is a program of its own,
so it sets up the SDK. It does so only when asked: the SDK takes a tenth of a
second to import.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from os import environ
from typing import TYPE_CHECKING, Final

from dsql_outbox.outbox import MissingExtra, SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_KNOWN: Final = frozenset({"otlp", "console", "none"})


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
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield
        return
    names = ["otlp"] if endpoint else _named_exporters()
    if not names and not exporters:
        yield
        return
    from ._sdk import exporting  # noqa: PLC0415 - the SDK takes 100 ms to import

    with exporting(service_name, [*exporters, *(_open(name, endpoint) for name in names)]):
        yield


def _named_exporters() -> list[str]:
    """What the variables ask for; an endpoint alone asks for ``otlp``."""
    default = "otlp" if any(environ.get(name) for name in _ENDPOINTS) else "none"
    names = [name.strip() for name in (environ.get("OTEL_TRACES_EXPORTER") or default).split(",")]
    for name in names:
        if name not in _KNOWN:
            raise SettingsError(f"OTEL_TRACES_EXPORTER={name}: use otlp, console or none")
    return [name for name in names if name != "none"]


def _open(name: str, endpoint: str | None) -> "SpanExporter":
    from ._sdk import console  # noqa: PLC0415 - the SDK takes 100 ms to import

    return console() if name == "console" else _open_otlp(endpoint)


def _open_otlp(endpoint: str | None) -> "SpanExporter":
    _refuse_grpc()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - extra
            OTLPSpanExporter,
        )
    except ImportError as error:
        raise MissingExtra("otlp", "sending spans by OTLP") from error
    return OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None)


def _refuse_grpc() -> None:
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: only http/protobuf is spoken here; "
            "set that, and the collector's HTTP port, usually 4318, in the endpoint"
        )
