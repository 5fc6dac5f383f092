"""A message as a consumer gets it, whatever broker brought it.

Any sender can put a message on a stream. So each value that the inbox stores is checked here:
its form, its length, and the range of its column. One foreign message fails alone then, with
its fault named, and neither stops its consumer nor moves a subject.
"""

import json
from collections.abc import Mapping
from time import time
from typing import Any, Final
from uuid import UUID

import msgspec

from dsql_outbox.outbox.content_type import JSON, MAX_SHOWN, is_json
from dsql_outbox.outbox.errors import SettingsError, UnreadableMessage
from dsql_outbox.outbox.message import TRACE_HEADERS, parse_subject_key, subject_key
from dsql_outbox.outbox.settings import (
    MAX_ENTITY_ID,
    MAX_ENTITY_TYPE,
    MAX_SOURCE,
    is_source,
    is_unicode,
)

MAX_ID: Final = 128
"""The most characters of an id by which a message is remembered."""

MAX_AHEAD: Final = 300
"""Seconds. A position is a time of the outbox's database, in microseconds.

One that is ahead for longer is no message's: stored, it would make every later message of its
subject late.
"""

_MAX_BIGINT: Final = 2**63 - 1
_MAX_DIGITS: Final = len(str(_MAX_BIGINT))


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A received message.

    `id` is the event's id, the same in each delivery and in each replay. `dedupe_id` is
    that of the message: each target and replay has its own. `source` is the CloudEvents
    source, which tells outboxes apart. `subject_type` and `subject_id` are the entity as the
    event names it; `position` rises with each message of a subject, and `previous_position` is
    that of the message before it, or 0 for the first; both are in microseconds. `replay` is the
    number of the replay, or None for an original.

    `trace` holds the W3C trace headers, to continue the trace. `headers` are the other
    attributes under their CloudEvents names. `data` is the payload: the event's JSON as it was
    written, unless the publisher has a map. `content_type` says which, and `json` decodes JSON.
    With `is_deletion` it is empty: the map made a deletion of it.
    """

    id: UUID
    dedupe_id: str
    source: str
    topic: str
    subject_type: str
    subject_id: str
    position: int
    previous_position: int
    replay: int | None
    trace: dict[str, str]
    headers: dict[str, str]
    data: bytes
    is_deletion: bool = False

    @property
    def key(self) -> str:
        """The subject in one text, as in ``Loan/LOAN-7``."""
        return subject_key(self.subject_type, self.subject_id)

    @property
    def content_type(self) -> str:
        """The content type of `data`, which is JSON if the message names none."""
        return self.headers.get("datacontenttype", JSON)

    def json(self) -> Any:
        """Return `data` decoded from JSON.

        Raises `UnreadableMessage` if its content type is another one, or if it is no JSON.
        """
        if self.is_deletion:
            raise UnreadableMessage("JSON", "it is a deletion: look at `is_deletion` first")
        if not is_json(self.content_type):
            shown = repr(self.content_type[:MAX_SHOWN])
            rule = f"its content type is {shown}; decode `data` by that format"
            raise UnreadableMessage("JSON", rule)
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError):
            raise UnreadableMessage("JSON", "`data` cannot be decoded") from None


def received_message(
    headers: Mapping[str, str], *, dedupe_id: str, topic: str, data: bytes | None
) -> Received:
    """Return the message with these attributes and trace headers; without `data` it deletes.

    Raises `UnreadableMessage` if an attribute is missing or not valid, or if its position is
    over five minutes ahead of this machine's clock.
    """
    subject_type, subject_id = _subject(headers)
    return Received(
        id=_event_id(headers),
        dedupe_id=_dedupe_id(dedupe_id),
        source=_source(headers),
        topic=topic,
        subject_type=subject_type,
        subject_id=subject_id,
        position=_position(headers),
        previous_position=_number(headers, "previousposition"),
        replay=_number(headers, "replay") if "replay" in headers else None,
        trace={name: headers[name] for name in TRACE_HEADERS if name in headers},
        headers={name: text for name, text in headers.items() if name not in TRACE_HEADERS},
        data=data or b"",
        is_deletion=data is None,
    )


_HINT: Final = "is it a message of a publisher of dsql-outbox?"


def require_header(headers: Mapping[str, str], name: str) -> str:
    """Return a header. Raises `UnreadableMessage` if it is missing."""
    if name not in headers:
        raise _unreadable(name, "it is missing")
    return headers[name]


def is_id(text: str) -> bool:
    """Return whether a message can be remembered by this id."""
    return _fits(text, MAX_ID)


def _unreadable(part: str, rule: str) -> UnreadableMessage:
    return UnreadableMessage(part, f"{rule}; {_HINT}")


def _fits(text: str, limit: int) -> bool:
    """Return whether a text fits a column of up to `limit` characters, and is not empty."""
    return 0 < len(text) <= limit and "\0" not in text and is_unicode(text)


def _event_id(headers: Mapping[str, str]) -> UUID:
    text = require_header(headers, "id")
    try:
        return UUID(text)
    except ValueError:
        raise _unreadable("id", "it is no UUID") from None


def _dedupe_id(text: str) -> str:
    if not is_id(text):
        rule = f"it has {len(text)} characters, of 1 to {MAX_ID} without NUL"
        raise _unreadable("dedupe id", rule)
    return text


def _source(headers: Mapping[str, str]) -> str:
    source = require_header(headers, "source")
    if not is_source(source):
        rule = f"it has {len(source)} characters, of 1 to {MAX_SOURCE} that are visible ASCII"
        raise _unreadable("source", rule)
    return source


def _subject(headers: Mapping[str, str]) -> tuple[str, str]:
    try:
        subject_type, subject_id = parse_subject_key(require_header(headers, "subject"))
    except SettingsError:
        raise _unreadable("subject", "it is no TYPE/ID in percent-encoded UTF-8") from None
    if not (_fits(subject_type, MAX_ENTITY_TYPE) and _fits(subject_id, MAX_ENTITY_ID)):
        rule = (
            f"its type has {len(subject_type)} characters, of 1 to {MAX_ENTITY_TYPE}, and its id "
            f"{len(subject_id)}, of 1 to {MAX_ENTITY_ID}, both without NUL"
        )
        raise _unreadable("subject", rule)
    return subject_type, subject_id


def _position(headers: Mapping[str, str]) -> int:
    position = _number(headers, "position")
    ahead = position // 1_000_000 - int(time())
    if ahead > MAX_AHEAD:
        raise UnreadableMessage(
            "position",
            f"it is {ahead:,} s ahead of this machine's clock, over the limit of {MAX_AHEAD} s: "
            "compare the clock with that of the outbox's database; if both are right, it is no "
            "message of a publisher",
        )
    return position


def _number(headers: Mapping[str, str], name: str) -> int:
    text = require_header(headers, name)
    digits = text.lstrip("0") or "0"
    is_whole = text.isascii() and text.isdigit()
    # The length first: int() refuses thousands of digits with an error of its own.
    if not is_whole or len(digits) > _MAX_DIGITS or (number := int(digits)) > _MAX_BIGINT:
        raise _unreadable(name, f"it is no whole number from 0 to {_MAX_BIGINT}")
    return number
