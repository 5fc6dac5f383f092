"""What the broker gets, and the names of its headers."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote, unquote
from uuid import UUID

import msgspec

from .errors import SettingsError

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


def message_headers(
    event_id: str, event_type: str, created: datetime | None, source: str
) -> dict[str, str]:
    """The CloudEvents 1.0 attributes of an event's message, as long as no version is known.

    `created` is in UTC, and None if the database is to add its own date; `source` is
    the CloudEvents source.
    """
    headers = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": event_type,
        "datacontenttype": "application/json",
    }
    if created is not None:
        headers["time"] = created.isoformat(timespec="microseconds")
    return headers


_SHOWN: Final = 40
"""Characters of a bad header name that an error shows."""

_NO_TOKEN: Final = re.compile(r"[^!#$%&'*+.^_`|~0-9A-Za-z-]").search


def broken_header(headers: Mapping[str, str]) -> str | None:
    """Which of these headers no broker need take, and why; None if all are well.

    A name is a token of RFC 9110, section 5.6.2, as HTTP and NATS demand.
    """
    if "" not in headers and _NO_TOKEN("".join(headers)) is None:  # so it is for nearly all
        return None
    name = next(name for name in headers if not name or _NO_TOKEN(name))
    shown = ascii(name[:_SHOWN])
    return f"header name {shown} is no token: letters, digits and !#$%&'*+-.^_`|~ only"


def subject_key(entity_type: str, entity_id: str) -> str:
    """``type/id``, each part percent-encoded, so that no id can forge another's key."""
    return f"{_quoted(entity_type)}/{_quoted(entity_id)}"


def _quoted(part: str) -> str:
    return part if _PLAIN(part) else quote(part, safe="")


def parse_subject_key(key: str) -> tuple[str, str]:
    """The type and id in a `subject_key`; what need not be encoded may be, or not.

    Raises `SettingsError` for a text without both.
    """
    entity_type, _, entity_id = key.partition("/")
    if not entity_type or not entity_id:
        raise SettingsError(f"{key!r} is no TYPE/ID, as in Loan/LOAN-7")
    return unquote(entity_type), unquote(entity_id)
