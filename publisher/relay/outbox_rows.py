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
"""Which replay of its event a message is, from 1; one that was never replayed has none."""


class RowId(NamedTuple):
    """The whole key of an outbox row."""

    shard: int
    position: int
    event_id: str


class Headers(NamedTuple):
    """The headers that a row holds; `fault` says why they can be no message's, if so."""

    by_name: dict[str, str]
    fault: str | None = None


def read_headers(text: str) -> Headers:
    """The headers in the JSON of a row; there are none if they cannot be read."""
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
    """One row of ``outbox_read``, in its order of columns.

    `seen` is how many rows the read found in the shard before its bytes limit.
    `id` is the row's whole key, and `key` the subject: what order is promised for.
    Anybody with a writer's rights can insert a row, so any value may be wrong;
    `fault` says why the row can be no message, if so.
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
        """Fill in what is asked for many times."""
        force_setattr(self, "stored", read_headers(self.headers))
        force_setattr(self, "id", RowId(self.shard, self.position, str(self.event_id)))
        force_setattr(self, "key", subject_key(self.subject_type, self.subject_id))

    def __hash__(self) -> int:
        """That of its key."""
        return hash(self.id)

    @property
    def fault(self) -> str | None:
        """Why no broker can get this row, if so."""
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
        """The message of this row, the same each time but for the arguments.

        `epoch` is that of the shard's lease.
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
        """A replay has one of its own, or the broker would swallow it as sent before."""
        event_id = self.id.event_id
        return event_id if replay is None else f"{event_id}/r{replay}"


def rows_of(found: Sequence[Sequence[Any]]) -> list[OutboxRow]:
    """The rows of a read."""
    return [OutboxRow(*row) for row in found]
