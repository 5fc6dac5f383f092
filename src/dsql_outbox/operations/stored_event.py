"""What the row of a stored event says of its touches and its headers. No I/O."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec

from dsql_outbox.outbox.message import listed_key, message_headers
from dsql_outbox.outbox.receipt import Touched
from dsql_outbox.schema.outbox_rows import Headers, read_headers

_touches: Final = msgspec.json.Decoder(tuple[Touched, ...])
_headers: Final = msgspec.json.Decoder(dict[str, str])


def touches_in(text: str) -> tuple[Touched, ...] | None:
    """The touched entities; None for a text of another form, which no writer stores."""
    try:
        return _touches.decode(text)
    except msgspec.MsgspecError:  # its text may quote the touches
        return None


def headers_in(text: str | None) -> dict[str, str] | None:
    """The headers of an event or a message; None for a text of another form."""
    try:
        return _headers.decode(text or "{}")
    except msgspec.MsgspecError:
        return None


def stored_headers(
    event_id: UUID, event_type: str, created: datetime | None, touches: str, source: str
) -> Headers:
    """The headers of a stored event as the writer made them, without the trace context.

    The trace context is not stored.
    """
    found = touches_in(touches)
    headers = made_headers(event_id, event_type, created, found or (), source)
    fault = "the stored touches are no JSON array of entities" if found is None else None
    return Headers(headers, fault)


def all_headers(own: str | None, ours: Headers) -> Headers:
    """The headers that a hook of the writer added, and those that the writer made."""
    found = Headers({}) if own is None else read_headers(own)
    return Headers(found.by_name | ours.by_name, found.fault or ours.fault)


def made_headers(
    event_id: UUID,
    event_type: str,
    created: datetime | None,
    touches: Iterable[Touched],
    source: str,
) -> dict[str, str]:
    """The headers that the writer makes of an event that touched these entities."""
    time = None if created is None else created.astimezone(UTC)
    listed = [f"{listed_key(each.entity_type, each.entity_id)}@{each.version}" for each in touches]
    headers = message_headers(str(event_id), event_type, time, source)
    return headers | {"entities": ",".join(listed)}
