"""Traces of events: read from Jaeger or as OTLP, and laid out as a tree of lines.

- `jaeger_search` (by `jaeger_answers`) reads spans from Jaeger, in the format of `otlp_json`.
- `jaeger_pages` knows the URLs of its pages.
- `event_traces` finds the traces that name an event.
- `span_tree` lays a trace out. A terminal and the console draw its lines.
"""

from .event_traces import names_event, traces_of
from .jaeger_answers import OLDEST_JAEGER, JaegerUnreachable, NotJaeger
from .jaeger_pages import DEFAULT_JAEGER, jaeger_beside, page_of
from .jaeger_search import check_url, spans_of_jaeger
from .otlp_json import ExportRequest, TraceData, views
from .span_tree import SpanView, TreeRow, tree_rows, view_received, view_recorded

__all__ = [
    "DEFAULT_JAEGER",
    "OLDEST_JAEGER",
    "ExportRequest",
    "JaegerUnreachable",
    "NotJaeger",
    "SpanView",
    "TraceData",
    "TreeRow",
    "check_url",
    "jaeger_beside",
    "names_event",
    "page_of",
    "spans_of_jaeger",
    "traces_of",
    "tree_rows",
    "view_received",
    "view_recorded",
    "views",
]
