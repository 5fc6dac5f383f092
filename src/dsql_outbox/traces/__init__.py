"""Traces of events: read from Jaeger or as OTLP, and laid out as a tree of lines.

- `jaeger` reads spans from Jaeger, in the format of `otlp_json`.
- `span_tree` finds the traces that name an event, and lays a trace out. A terminal
  and the console draw its lines.
"""

from .jaeger import (
    DEFAULT_JAEGER,
    OLDEST_JAEGER,
    JaegerUnreachable,
    NotJaeger,
    check_url,
    jaeger_beside,
    page_of,
    spans_of_jaeger,
)
from .otlp_json import ExportRequest, TraceData, views
from .span_tree import (
    Sent,
    SpanView,
    TreeRow,
    names_event,
    sent_of,
    traces_of,
    tree_rows,
    view_recorded,
)

__all__ = [
    "DEFAULT_JAEGER",
    "OLDEST_JAEGER",
    "ExportRequest",
    "JaegerUnreachable",
    "NotJaeger",
    "Sent",
    "SpanView",
    "TraceData",
    "TreeRow",
    "check_url",
    "jaeger_beside",
    "names_event",
    "page_of",
    "sent_of",
    "spans_of_jaeger",
    "traces_of",
    "tree_rows",
    "view_recorded",
    "views",
]
