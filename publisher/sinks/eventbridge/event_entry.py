"""Build the entries of PutEvents from messages.

EventBridge takes no attributes beside the detail, so the detail is a CloudEvent in
structured mode (CloudEvents JSON format 1.0.2): the event is its ``data``. The limits
come from the API reference of PutEvents and PutEventsRequestEntry.
"""

import json
from typing import Final

from dsql_outbox.outbox import Message
from dsql_outbox.publisher.sinks.aws.entries import Entry
from dsql_outbox.publisher.sinks.port import Rejected

MAX_BYTES: Final = (1 << 20) - 1
"""The limit for a request: less than 1 MiB (256 KiB until 2026)."""

_MAX_TYPE: Final = 128
"""The limit of characters of a detail type."""


def make_entry(index: int, message: Message, bus: str) -> Entry | Rejected:
    """The entry of the message with this index, or why EventBridge would refuse it."""
    source, kind = message.headers.get("source", ""), message.headers.get("type", "")
    if rule := _broken_rule(message, kind):
        return Rejected(rule)
    detail = _detail(message)
    size = sum(len(text.encode(errors="replace")) for text in (source, kind, detail))
    if size > MAX_BYTES:
        limit = f"the limit of EventBridge of {MAX_BYTES} bytes"
        return Rejected(f"message of {size} bytes is over {limit}")
    request = {"Source": source, "DetailType": kind, "Detail": detail, "EventBusName": bus}
    return Entry(index, request, size)


def _broken_rule(message: Message, kind: str) -> str | None:
    if not 1 <= len(kind) <= _MAX_TYPE:
        return f"EventBridge takes types of 1 to {_MAX_TYPE} characters, this has {len(kind)}"
    try:  # text that is no JSON could end the detail early, and forge attributes
        json.loads(message.payload)
    except (ValueError, RecursionError):
        return "EventBridge takes only JSON, of at most 1000 levels"
    return None


def _detail(message: Message) -> str:
    own = {"topic": message.topic, "dedupeid": message.dedupe_id}
    attributes = json.dumps(message.headers | own, separators=(",", ":"))
    return f'{attributes[:-1]},"data":{message.payload.decode()}}}'
