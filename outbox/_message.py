"""What the broker gets, and the names of its headers."""

import re
from typing import Final
from urllib.parse import quote
from uuid import UUID

import msgspec

TRACE_HEADERS: Final = ("traceparent", "tracestate", "baggage")
"""W3C trace context; it travels under its own names, outside CloudEvents."""


_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch
"""What needs no encoding (RFC 3986, 2.3); nearly every key, so `quote` is not asked for it."""


class Message(msgspec.Struct, frozen=True):
    """One event on its way to a broker.

    `payload` is the event exactly as it was received. `headers` are CloudEvents
    1.0 attributes under their plain names (``id``, ``type``, ..) and the W3C
    trace headers; a sink writes them by its broker's binding. `key` is the
    subject; messages of one key must be stored in the order they are given.
    `dedupe_id` is the same each time the message is sent. `committed_ns` is the
    database's time of the commit and `picked_up_ns` ours of the read, both in
    nanoseconds since the Unix epoch; `attempt` counts from 1, over restarts too.
    """

    event_id: UUID
    topic: str
    key: str
    headers: dict[str, str]
    payload: bytes
    dedupe_id: str
    committed_ns: int
    picked_up_ns: int
    attempt: int = 1


def subject_key(entity_type: str, entity_id: str) -> str:
    """``type/id``, each part percent-encoded, so that no id can forge another's key."""
    return f"{_quoted(entity_type)}/{_quoted(entity_id)}"


def _quoted(part: str) -> str:
    return part if _PLAIN(part) else quote(part, safe="")
