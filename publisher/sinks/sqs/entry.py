"""From messages to entries of SendMessageBatch.

The body is the event's exact text. SQS has no CloudEvents binding, and ten
attributes at most: so all attributes of the event are one, as JSON.
Limits: SQS Developer Guide, "Message quotas"; API reference, SendMessageBatch.
"""

import json
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, Final

from dsql_outbox.outbox import TRACE_HEADERS, Message
from dsql_outbox.publisher.sinks.cloudevents import binary_headers

MAX_BYTES: Final = 1 << 20
"""Of a message with its attributes, and of all messages of a request (256 KiB until 2025)."""
MAX_ENTRIES: Final = 10

_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Where SQS does not refuse these, it puts U+FFFD in their place."""

# Letters, digits and punctuation of ASCII; 128 is also the limit of a deduplication id.
_GROUP: Final = re.compile(r"[!-~]{1,128}")

_TYPE: Final = "String"


def make_entry(entry_id: str, message: Message, *, is_fifo: bool) -> dict[str, Any]:
    """The entry of a message; `entry_id` names it within its request."""
    entry: dict[str, Any] = {
        "Id": entry_id,
        "MessageBody": message.payload.decode(),
        "MessageAttributes": {
            name: {"DataType": _TYPE, "StringValue": value}
            for name, value in _attributes(message).items()
            if value  # SQS refuses an empty one
        },
    }
    if is_fifo:
        entry["MessageGroupId"] = group_id(message.key)
        entry["MessageDeduplicationId"] = message.dedupe_id
    return entry


def group_id(key: str) -> str:
    """The key; if it is over 128 characters or none that SQS takes, its SHA-256."""
    if _GROUP.fullmatch(key):
        return key
    return f"sha256:{sha256(key.encode(errors='replace')).hexdigest()}"


def broken_rule(entry: dict[str, Any]) -> str | None:
    """Why SQS would not keep the message as it is, if so."""
    texts = [entry["MessageBody"], *_values(entry)]
    if not entry["MessageBody"]:
        return "SQS takes no empty message"
    for text in texts:
        if found := _FORBIDDEN.search(text):
            return f"SQS takes no character U+{ord(found[0]):04X}"
    if (size := entry_bytes(entry)) > MAX_BYTES:
        return f"message of {size} bytes is over the limit of SQS of {MAX_BYTES} bytes"
    return None


def entry_bytes(entry: dict[str, Any]) -> int:
    """What counts against the limits: body, and names, types and values of attributes."""
    names = sum(len(name) + len(_TYPE) for name in entry["MessageAttributes"])
    texts = [entry["MessageBody"], *_values(entry)]
    return names + sum(len(text.encode(errors="surrogatepass")) for text in texts)


def cut(entries: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Requests of at most 10 entries and 1 MiB, in the given order."""
    request: list[dict[str, Any]] = []
    total = 0
    for entry in entries:
        size = entry_bytes(entry)
        if request and (len(request) == MAX_ENTRIES or total + size > MAX_BYTES):
            yield request
            request, total = [], 0
        request.append(entry)
        total += size
    if request:
        yield request


def _attributes(message: Message) -> dict[str, str]:
    wire = binary_headers(message, "ce-")
    own = {name: value for name, value in message.headers.items() if name not in TRACE_HEADERS}
    return {
        "cloudevent": json.dumps(own, separators=(",", ":")),  # only ASCII: SQS takes all of it
        "dedupe-id": message.dedupe_id,
        "topic": message.topic,
        **{name: wire[name] for name in TRACE_HEADERS if name in wire},
    }


def _values(entry: dict[str, Any]) -> list[str]:
    return [attribute["StringValue"] for attribute in entry["MessageAttributes"].values()]
