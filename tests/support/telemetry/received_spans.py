"""Spans that a collector of the tests has received, in the form of the trees."""

from collections.abc import Iterable
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from dsql_outbox.cli.demo.span_tree import SpanView


def view_received(spans: Iterable[OtlpSpan]) -> list[SpanView]:
    """Convert spans as received by OTLP."""
    return [
        SpanView(
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex() or None,
            name=span.name,
            kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            start_ns=span.start_time_unix_nano,
            end_ns=span.end_time_unix_nano,
            failed=span.status.code == span.status.STATUS_CODE_ERROR,
            attributes={pair.key: _plain(pair.value) for pair in span.attributes},
        )
        for span in spans
    ]


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None
