"""Outbox rows as the relay reads them, and the messages that they become."""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from msgspec.structs import force_setattr

from dsql_outbox.outbox import Message, broken_header, subject_key

_headers: Final = msgspec.json.Decoder(dict[str, str])

_NUMBER: Final = re.compile("[0-9]{1,9}").fullmatch

REPLAY_HEADER: Final = "replay"
"""The header with the number of a replay, from 1; an original message does not have it."""


class RowId(NamedTuple):
    """The primary key of an outbox row; `position` in microseconds."""

    shard: int
    position: int
    event_id: str


class Headers(NamedTuple):
    """The headers of a row; `fault` says why they are invalid, or is None."""

    by_name: dict[str, str]
    fault: str | None = None


def read_headers(text: str) -> Headers:
    """Parse the headers of a row; `by_name` is empty unless the text is an object of strings."""
    try:
        headers = _headers.decode(text)
    except msgspec.DecodeError:  # its text may quote the headers
        return Headers({}, "headers are no JSON object of texts")
    number = headers.get(REPLAY_HEADER, "0")
    if not _NUMBER(number):
        return Headers(headers, f"header {REPLAY_HEADER} is no number")
    return Headers(headers, broken_header(headers))


_UNSET: Final = RowId(0, 0, "")
_NONE: Final = Headers({})


class OutboxRow(msgspec.Struct, frozen=True):
    """One row of ``outbox_read``, with its columns in order.

    `seen` is the number of rows that the read found in the shard before the limit of
    bytes. `id` is the primary key. `key` is the subject, whose messages are sent in
    order. A program with a writer's rights can insert any row, so every value may be
    wrong; `fault` says why the row cannot become a message, or is None.
    """

    shard: int
    position: int
    event_id: UUID
    previous_position: int
    subject_type: str
    subject_id: str
    subject_version: int
    topic: str
    headers: str
    payload: str
    created_us: int
    seen: int
    predecessor: bool
    id: RowId = _UNSET
    key: str = ""
    stored: Headers = _NONE

    def __post_init__(self) -> None:
        """Compute the values that are used many times."""
        force_setattr(self, "stored", read_headers(self.headers))
        force_setattr(self, "id", RowId(self.shard, self.position, str(self.event_id)))
        force_setattr(self, "key", subject_key(self.subject_type, self.subject_id))

    def __hash__(self) -> int:
        """The hash of the primary key."""
        return hash(self.id)

    @property
    def fault(self) -> str | None:
        """Why this row cannot become a message, or None."""
        if self.position < 1:
            return f"position {self.position} is below 1"
        if self.previous_position >= self.position:
            return f"it would wait for position {self.previous_position}, which is not before it"
        return self.stored.fault

    @property
    def size(self) -> int:
        """Bytes of payload and headers."""
        return sum(
            len(text) if text.isascii() else len(text.encode())
            for text in (self.payload, self.headers)
        )

    def message(self, *, attempt: int, picked_up_ns: int, epoch: int) -> Message:
        """The message of this row; equal arguments give an equal message.

        `attempt` counts from 1, `picked_up_ns` is in nanoseconds since the Unix epoch,
        and `epoch` is that of the lease of the shard.
        """
        key = self.key
        headers = self.stored.by_name | {
            "subject": key,
            "partitionkey": key,
            "sequence": str(self.subject_version),
            "position": str(self.position),
            "leaseepoch": str(epoch),
        }
        return Message(
            event_id=self.event_id,
            topic=self.topic,
            key=key,
            headers=headers,
            payload=self.payload.encode(),
            dedupe_id=self._dedupe_id(headers.get(REPLAY_HEADER)),
            committed_ns=self.created_us * 1000,
            picked_up_ns=picked_up_ns,
            attempt=attempt,
        )

    def _dedupe_id(self, replay: str | None) -> str:
        """The dedupe id; a replay has its own, or the broker would drop it as a duplicate."""
        event_id = self.id.event_id
        return event_id if replay is None else f"{event_id}/r{replay}"


def rows_of(found: Sequence[Sequence[Any]]) -> list[OutboxRow]:
    """The rows of a read, from the tuples of the driver."""
    return [OutboxRow(*row) for row in found]
