"""A message as a consumer gets it, whatever broker brought it."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import msgspec

from dsql_outbox.outbox import TRACE_HEADERS, SettingsError, UnreadableMessage, parse_subject_key


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A received message.

    `id` is the event's id, the same in each delivery and in each replay. `dedupe_id` is
    that of the message: a replay has one of its own. `key` is the subject, as in
    ``Loan/LOAN-7``. `position` rises with each message of a subject, and
    `previous_position` is that of the message before it, or 0 for the first; both are
    in microseconds. `replay` is the number of the replay, or None for an original.

    `trace` holds the W3C trace headers, to continue the trace. `headers` are the other
    attributes under their CloudEvents names. `data` is the event's JSON as it was written.
    """

    id: UUID
    dedupe_id: str
    topic: str
    key: str
    position: int
    previous_position: int
    replay: int | None
    trace: dict[str, str]
    headers: dict[str, str]
    data: bytes

    @property
    def subject(self) -> tuple[str, str]:
        """The type and the id of the subject, decoded."""
        return parse_subject_key(self.key)


def received(headers: Mapping[str, str], *, dedupe_id: str, topic: str, data: bytes) -> Received:
    """Return the message with these attributes and trace headers.

    Raises `UnreadableMessage` if an attribute is missing or not valid.
    """
    replay = headers.get("replay")
    return Received(
        id=_event_id(headers),
        dedupe_id=dedupe_id,
        topic=topic,
        key=_key(headers),
        position=_number(headers, "position"),
        previous_position=_number(headers, "previousposition"),
        replay=None if replay is None else _number(headers, "replay"),
        trace={name: headers[name] for name in TRACE_HEADERS if name in headers},
        headers={name: text for name, text in headers.items() if name not in TRACE_HEADERS},
        data=data,
    )


_HINT: Final = "is it a message of a publisher of dsql-outbox?"


def required(headers: Mapping[str, str], name: str) -> str:
    """Return a header. Raises `UnreadableMessage` if it is missing."""
    if name not in headers:
        raise UnreadableMessage(name, f"it is missing; {_HINT}")
    return headers[name]


def _event_id(headers: Mapping[str, str]) -> UUID:
    try:
        return UUID(required(headers, "id"))
    except ValueError as error:
        if isinstance(error, UnreadableMessage):
            raise
        raise UnreadableMessage("id", f"it is no UUID; {_HINT}") from None


def _key(headers: Mapping[str, str]) -> str:
    key = required(headers, "subject")
    try:
        parse_subject_key(key)
    except SettingsError:
        raise UnreadableMessage("subject", f"it is no TYPE/ID; {_HINT}") from None
    return key


def _number(headers: Mapping[str, str], name: str) -> int:
    text = required(headers, name)
    if not (text.isascii() and text.isdigit()):
        raise UnreadableMessage(name, f"it is no whole number; {_HINT}")
    return int(text)
