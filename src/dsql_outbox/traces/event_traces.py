"""The traces in which a span names an event."""

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from dsql_outbox.observability import attributes as names

from .span_tree import SpanView


def traces_of(event_id: UUID, spans: Iterable[SpanView]) -> dict[str, list[SpanView]]:
    """The traces in which a span names the event, by trace id; repeated spans appear once."""
    traces: dict[str, dict[str, SpanView]] = defaultdict(dict)
    wanted: set[str] = set()
    for span in spans:
        traces[span.trace_id][span.span_id] = span
        if names_event(span, event_id):
            wanted.add(span.trace_id)
    return {trace_id: list(traces[trace_id].values()) for trace_id in sorted(wanted)}


def names_event(span: SpanView, event_id: UUID) -> bool:
    """Whether an attribute of the span is the id of the event."""
    found = (span.attributes.get(n) for n in (names.EVENT_ID, names.MESSAGING_MESSAGE_ID))
    return str(event_id) in found
