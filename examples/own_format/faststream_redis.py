"""The envelope in which FastStream reads an entry of a stream of Redis, with its trace.

The sink is ``redis://..?field=__data__``.
"""

from dsql_outbox import Message

TRACE = ("traceparent", "tracestate", "baggage")


def to_faststream(message: Message) -> object:
    """Return the event as JSON text, and the headers that FastStream takes from an envelope."""
    headers = {name: message.headers[name] for name in TRACE if name in message.headers}
    headers["content-type"] = message.content_type
    headers["correlation_id"] = str(message.event_id)
    return {"data": message.payload.decode(), "headers": headers}
