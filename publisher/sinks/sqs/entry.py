"""Build the entries of SendMessageBatch from messages.

The body is the exact text of the event. CloudEvents has no binding for SQS, and a
message has at most ten attributes, so all CloudEvents attributes are one JSON
attribute, ``cloudevent``. The limits come from the SQS Developer Guide, "Message
quotas", and the API reference of SendMessageBatch.
"""

import json
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, Final

from dsql_outbox.outbox import TRACE_HEADERS, Message
from dsql_outbox.publisher.sinks.cloudevents import binary_headers

MAX_BYTES: Final = 1 << 20
"""The limit for a message with its attributes, and for a request (256 KiB until 2025)."""
MAX_ENTRIES: Final = 10
"""The limit of messages per request."""

_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that SQS refuses, or replaces by U+FFFD."""

# Letters, digits and punctuation of ASCII. A deduplication id has the same limit of 128.
_GROUP: Final = re.compile(r"[!-~]{1,128}")

_TYPE: Final = "String"


def make_entry(entry_id: str, message: Message, *, is_fifo: bool) -> dict[str, Any]:
    """The entry of a message; `entry_id` identifies it within its request.

    For a FIFO queue it has a group id and the message's dedupe id.
    """
    entry: dict[str, Any] = {
        "Id": entry_id,
        "MessageBody": message.payload.decode(),
        "MessageAttributes": {
            name: {"DataType": _TYPE, "StringValue": value}
            for name, value in _attributes(message).items()
            if value  # SQS refuses an empty attribute
        },
    }
    if is_fifo:
        entry["MessageGroupId"] = group_id(message.key)
        entry["MessageDeduplicationId"] = message.dedupe_id
    return entry


def group_id(key: str) -> str:
    """The message group id of a key: the key itself, or its SHA-256 if SQS would refuse the key."""
    if _GROUP.fullmatch(key):
        return key
    return f"sha256:{sha256(key.encode(errors='replace')).hexdigest()}"


def broken_rule(entry: dict[str, Any]) -> str | None:
    """The reason why SQS would refuse or change the message, or None."""
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
    """The bytes that count against the limits: body, and names, types and values of attributes."""
    names = sum(len(name) + len(_TYPE) for name in entry["MessageAttributes"])
    texts = [entry["MessageBody"], *_values(entry)]
    return names + sum(len(text.encode(errors="surrogatepass")) for text in texts)


def cut(entries: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Cut entries into requests of at most `MAX_ENTRIES` and `MAX_BYTES`, in the given order."""
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
        "cloudevent": json.dumps(own, separators=(",", ":")),  # ASCII only: SQS accepts all of it
        "dedupe-id": message.dedupe_id,
        "topic": message.topic,
        **{name: wire[name] for name in TRACE_HEADERS if name in wire},
    }


def _values(entry: dict[str, Any]) -> list[str]:
    return [attribute["StringValue"] for attribute in entry["MessageAttributes"].values()]
