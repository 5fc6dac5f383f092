"""Outbox rows as the relay reads them, and the messages that they become."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from msgspec.structs import force_setattr

from dsql_outbox.outbox import Message, subject_key

_headers: Final = msgspec.json.Decoder(dict[str, str])

REPLAY_HEADER: Final = "replay"
"""Which replay of its event a message is, from 1; one that was never replayed has none."""


class RowId(NamedTuple):
    """The whole key of an outbox row."""

    shard: int
    position: int
    event_id: str


_UNSET: Final = RowId(0, 0, "")


class OutboxRow(msgspec.Struct, frozen=True):
    """One row of ``outbox_read``, in its order of columns.

    `seen` is how many rows the read found in the shard before its bytes limit.
    `id` is the row's whole key, and `key` the subject: what order is promised for.
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

    def __post_init__(self) -> None:
        """Fill in what is asked for many times."""
        force_setattr(self, "id", RowId(self.shard, self.position, str(self.event_id)))
        force_setattr(self, "key", subject_key(self.subject_type, self.subject_id))

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
        headers = _headers.decode(self.headers) | {
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
