"""Outbox rows as the relay reads them, and the messages that they become."""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.outbox.database.array_literals import plain_array
from dsql_outbox.outbox.message import Message, broken_header, broken_names, subject_key
from dsql_outbox.outbox.settings import TARGET_SHARDS

_headers: Final = msgspec.json.Decoder(dict[str, str])
_all_headers: Final = msgspec.json.Decoder(list[dict[str, str]])

_NUMBER: Final = re.compile("[0-9]{1,9}").fullmatch

REPLAY_HEADER: Final = "replay"
"""The header with the number of a replay, from 1; an original message does not have it."""

_REPLAY_NAME: Final = f'"{REPLAY_HEADER}"'


class RowId(NamedTuple):
    """The primary key of an outbox row; `position` in microseconds."""

    shard: int
    position: int
    event_id: str


def row_keys(rows: Collection[RowId]) -> dict[str, Any]:
    """The parameters of a statement that name rows by their keys."""
    return {
        "shards": plain_array(row.shard for row in rows),
        "positions": plain_array(row.position for row in rows),
        "event_ids": plain_array(row.event_id for row in rows),
    }


class Fault(NamedTuple):
    """Why a row is not a valid message."""

    reason: str


class Headers(NamedTuple):
    """The headers of a row; `fault` says why they are invalid, or is None."""

    by_name: dict[str, str]
    fault: str | None = None


def read_headers(text: str) -> Headers:
    """Parse the headers of a row; `by_name` is empty unless the text is an object of strings."""
    try:
        headers = _headers.decode(text)
    except msgspec.DecodeError:  # its text may quote the headers
        return Headers({}, "headers are not a JSON object of texts")
    number = headers.get(REPLAY_HEADER)
    if number is not None and not _NUMBER(number):
        return Headers(headers, f"header {REPLAY_HEADER} is not a number")
    return Headers(headers, broken_header(headers))


Stage = Literal["outbox", "waiting", "sent", "applying", "burying", "acknowledged", "settled"]
"""Where a row is in its life in the relay; `publisher/relay/memory/rows.py` has the steps."""

_NO_ID: Final = RowId(0, 0, "")


class OutboxRow(msgspec.Struct, gc=False):
    """One row of ``outbox_read``, with its columns in order.

    `predecessor` says whether the previous row of the subject was in the same snapshot. `key`
    is the subject, whose messages are sent in order; `size` is in bytes, once the row is in
    memory; `share` names the part of the memory that it takes room of, its topic's as a rule;
    only `Rows.move` changes `stage`. A program with a writer's rights can insert any
    row, so every value may be wrong.
    """

    shard: int
    position: int
    event_id: str
    previous_position: int
    subject_type: str
    subject_id: str
    subject_version: int
    topic: str
    headers: str
    payload: str | None
    created_us: int
    predecessor: bool
    id: RowId = _NO_ID
    key: str = ""
    size: int = 0
    share: str = ""
    is_replay: bool = False
    stage: Stage = "outbox"

    def __post_init__(self) -> None:
        """Compute the primary key and the subject, which are used many times."""
        self.share = self.topic
        self.id = RowId(self.shard, self.position, self.event_id)
        self.key = subject_key(self.subject_type, self.subject_id)
        self.is_replay = _REPLAY_NAME in self.headers

    @property
    def waits(self) -> bool:
        """Whether it has a predecessor. An invalid row may name a later one, which is none."""
        return self.predecessor and self.previous_position < self.position

    def bytes(self) -> int:
        """Bytes of payload and headers."""
        payload, headers = self.payload or "", self.headers
        return (len(payload) if payload.isascii() else len(payload.encode())) + (
            len(headers) if headers.isascii() else len(headers.encode())
        )

    def message(self, *, attempt: int, picked_up_ns: int, epoch: int) -> "Message | Fault":
        """The message of this row, or why it cannot be one.

        `attempt` counts from 1, `picked_up_ns` is in nanoseconds since the Unix epoch,
        and `epoch` is that of the lease of the shard. Equal arguments give an equal
        message.
        """
        return next(messages_of([(self, attempt, epoch)], picked_up_ns))

    @property
    def fault(self) -> str | None:
        """Why its positions are not valid, or None."""
        if self.position < 1:
            return f"position {self.position} is below 1"
        if self.previous_position >= self.position:
            return f"it would wait for position {self.previous_position}, which is not before it"
        return None

    def dedupe_id(self, replay: str | None) -> str:
        """The dedupe id. Each row of an event has its own, or a broker would drop all but one.

        An event has a row in each target, and one more for each replay.
        """
        target = self.shard // TARGET_SHARDS
        name = f"{self.event_id}/t{target}" if target else self.event_id
        return name if replay is None else f"{name}/r{replay}"


def messages_of(
    rows: Sequence[tuple[OutboxRow, int, int]], picked_up_ns: int
) -> Iterator[Message | Fault]:
    """The message of each row, with its attempt and epoch, as `OutboxRow.message` says.

    Headers and ids of all rows are decoded at once, which takes half of the time.
    """
    texts, ids = [row.headers for row, _, _ in rows], [row.event_id for row, _, _ in rows]
    stored = (len(rows) > 1 and _plain_headers(texts)) or map(read_headers, texts)
    uuids = msgspec.convert(ids, list[UUID])
    for (row, attempt, epoch), (headers, broken), event_id in zip(rows, stored, uuids, strict=True):
        if fault := row.fault or broken:
            yield Fault(fault)
            continue
        if row.payload is None:
            # The row names its event, whose bytes are gone, or which is gone itself.
            yield Fault(f"the bytes of event {row.event_id} are not stored any more")
            continue
        dedupe_id = row.dedupe_id(headers.get(REPLAY_HEADER))
        headers["subject"] = headers["partitionkey"] = row.key
        headers["sequence"] = str(row.subject_version)
        headers["position"] = str(row.position)
        headers["previousposition"] = str(row.previous_position)
        headers["leaseepoch"] = str(epoch)
        yield Message(
            event_id=event_id,
            topic=row.topic,
            key=row.key,
            headers=headers,
            payload=row.payload.encode(),
            dedupe_id=dedupe_id,
            committed_ns=row.created_us * 1000,
            picked_up_ns=picked_up_ns,
            attempt=attempt,
        )


def _plain_headers(texts: Sequence[str]) -> list[tuple[dict[str, str], None]] | None:
    """The headers of several rows, or None if those of one are not valid, or of a replay.

    Each text is JSON by itself, since the column has this type. So commas keep them apart.
    """
    try:
        found = _all_headers.decode(f"[{','.join(texts)}]")
    except msgspec.DecodeError:
        return None
    if any(REPLAY_HEADER in names or broken_names(names) for names in {*map(tuple, found)}):
        return None
    return [(headers, None) for headers in found]
