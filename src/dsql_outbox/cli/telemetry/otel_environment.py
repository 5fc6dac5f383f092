"""The OTEL_* environment variables, read in one way for spans and metrics.

The start-up of OpenTelemetry's SDK, which ``opentelemetry-instrument`` runs, does not fit: it has
no public name, makes its meter provider global, and lets the exporter ``console`` print on standard
output, which holds the results of a command. The SDK and its exporters read all other variables.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from os import environ
from typing import Final, Literal

from dsql_outbox.outbox.errors import SettingsError

Signal = Literal["TRACES", "METRICS"]

_KNOWN: Final = frozenset({"otlp", "console", "none"})


def is_disabled() -> bool:
    """Whether OTEL_SDK_DISABLED is ``true``."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def named_exporters(signal: Signal) -> list[str]:
    """The exporters that are requested, ``otlp`` and ``console``.

    An endpoint without OTEL_*_EXPORTER requests ``otlp``. Raises `SettingsError`
    for any other exporter.
    """
    asked = any(map(environ.get, _names(signal, "ENDPOINT")))
    given = environ.get(f"OTEL_{signal}_EXPORTER") or ("otlp" if asked else "none")
    names = [name.strip() for name in given.split(",")]
    for name in names:
        if name not in _KNOWN:
            hint = "; for Prometheus use --listen" if name == "prometheus" else ""
            raise SettingsError(f"OTEL_{signal}_EXPORTER={name}: use otlp, console or none{hint}")
    return [name for name in names if name != "none"]


def refuse_grpc(signal: Signal) -> None:
    """Raise `SettingsError` if the variables request OTLP over anything but HTTP/protobuf."""
    given = filter(None, map(environ.get, _names(signal, "PROTOCOL")))
    protocol = next(given, "http/protobuf")
    if protocol != "http/protobuf":
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: only http/protobuf is supported; "
            "set that, and the collector's HTTP port, usually 4318, in the endpoint"
        )


def _names(signal: Signal, what: str) -> tuple[str, str]:
    return f"OTEL_EXPORTER_OTLP_{signal}_{what}", f"OTEL_EXPORTER_OTLP_{what}"
