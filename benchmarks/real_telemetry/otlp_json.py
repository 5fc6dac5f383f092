"""OTLP in JSON, the format of collectors' files and of Jaeger's answers.

Ids are hexadecimal, times are nanoseconds, and 64-bit numbers may be strings:
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final

import msgspec

from dsql_outbox.cli.demo.span_tree import SpanView

_KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_ERROR: Final = (2, "STATUS_CODE_ERROR")


_Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")


class _Pair(msgspec.Struct):
    key: str
    value: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class _SpanStatus(msgspec.Struct):
    code: Any = 0


class _Span(msgspec.Struct, rename="camel"):
    trace_id: str
    span_id: str
    parent_span_id: str = ""
    name: str = ""
    kind: Any = 0
    start_time_unix_nano: _Nanoseconds = 0
    end_time_unix_nano: _Nanoseconds = 0
    status: _SpanStatus = msgspec.field(default_factory=_SpanStatus)
    attributes: list[_Pair] = []


class _Scope(msgspec.Struct):
    spans: list[_Span] = []


class _Resource(msgspec.Struct, rename="camel"):
    scope_spans: list[_Scope] = []


class ExportRequest(msgspec.Struct, rename="camel"):
    """An ``ExportTraceServiceRequest``; JSON without ``resourceSpans`` is refused."""

    resource_spans: list[_Resource]


class TraceData(ExportRequest, rename="camel"):
    """A ``TracesData``: as `ExportRequest`, but the key may be missing if there are no spans."""

    resource_spans: list[_Resource] = []


def views(data: ExportRequest) -> Iterator[SpanView]:
    """The spans of a request, as the tree needs them.

    Raises `ValueError` for an attribute that is not of its type.
    """
    for resource in data.resource_spans:
        for scope in resource.scope_spans:
            yield from map(_view, scope.spans)


def _view(span: _Span) -> SpanView:
    return SpanView(
        trace_id=span.trace_id.lower(),
        span_id=span.span_id.lower(),
        parent_id=span.parent_span_id.lower() or None,
        name=span.name,
        kind=_kind(span.kind),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        failed=span.status.code in _ERROR,
        attributes=_plain(span.attributes),
    )


def _kind(kind: Any) -> str:
    """The name of a span kind.

    The OTLP specification writes the kind as a number, protobuf's own JSON as a name.
    """
    if isinstance(kind, int) and 0 <= kind < len(_KINDS):
        return _KINDS[kind]
    return str(kind).removeprefix("SPAN_KIND_")


def _plain(pairs: Iterable[_Pair]) -> dict[str, Any]:
    return {
        pair.key: _integer(value) if kind == "intValue" else value
        for pair in pairs
        for kind, value in pair.value.items()
    }


def _integer(value: Any) -> int:
    """The value of an ``intValue``, which is a number or a text."""
    text = str(value)
    if not _INTEGER.fullmatch(text):
        raise ValueError("an intValue is no integer of 64 bits")
    return int(text)
