"""What a receiver took, as a collector's file exporter writes it: JSON, one request a line."""

import json
from base64 import b64decode
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_IDS = ("traceId", "spanId", "parentSpanId")


def as_otlp_json(request: ExportTraceServiceRequest) -> dict[str, Any]:
    """Protobuf's own JSON, but for what OTLP does otherwise: ids in hex, enums as numbers."""
    found: dict[str, Any] = MessageToDict(request, use_integers_for_enums=True)
    for resource in found.get("resourceSpans", []):
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for holder in (span, *span.get("links", [])):
                    holder |= {key: b64decode(holder[key]).hex() for key in _IDS if key in holder}
    return found


def save(requests: Iterable[ExportTraceServiceRequest], path: Path) -> None:
    """Write the requests to a file."""
    lines = (json.dumps(as_otlp_json(request)) + "\n" for request in requests)
    path.write_text("".join(lines), encoding="utf-8")


def spans_by_service(
    requests: Iterable[ExportTraceServiceRequest],
) -> dict[str, list[dict[str, Any]]]:
    """The spans of each ``service.name``, in OTLP's JSON."""
    services: dict[str, list[dict[str, Any]]] = {}
    for request in requests:
        for resource in as_otlp_json(request)["resourceSpans"]:
            pairs = {pair["key"]: pair["value"] for pair in resource["resource"]["attributes"]}
            spans = services.setdefault(pairs["service.name"]["stringValue"], [])
            spans += [span for scope in resource["scopeSpans"] for span in scope["spans"]]
    return services
