"""The ids of the current trace and span, for log records."""

from opentelemetry import trace


def trace_ids() -> dict[str, object]:
    """``trace_id`` and ``span_id`` as hex, empty outside of a span."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(span.trace_id),
        "span_id": trace.format_span_id(span.span_id),
    }
