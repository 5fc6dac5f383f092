"""Outbox rows as the relay reads them, and the messages that they become."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple, cast
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

REPLAY_NAME: Final = f'"{REPLAY_HEADER}"'
"""What the headers of a replay contain."""


class RowId(NamedTuple):
    """The primary key of an outbox row; `position` in microseconds."""

    shard: int
    position: int
    event_id: str


_new: Final = cast("Callable[[type[RowId], tuple[int, int, str]], RowId]", tuple.__new__)


def row_ids(
    shards: Iterable[int], positions: Iterable[int], event_ids: Iterable[str]
) -> list[RowId]:
    """The keys of several rows. `RowId` itself would take three times as long."""
    return list(map(_new, repeat(RowId), zip(shards, positions, event_ids, strict=True)))


def row_keys(rows: Collection[RowId]) -> dict[str, Any]:
    """The parameters of a statement that name rows by their keys."""
    shards, positions, event_ids = zip(*rows, strict=True) if rows else ((), (), ())
    return {
        "shards": plain_array(shards),
        "positions": plain_array(positions),
        "event_ids": plain_array(event_ids),
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


RawRow = Sequence[Any]
"""A row of ``outbox_read`` as the driver has it: the number of its range, the columns of an
`OutboxRow` in their order, and NULL."""


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

    @classmethod
    def read(cls, row: RawRow) -> "OutboxRow":
        """A row of a read."""
        return cls(*row[1:-1])

    def __post_init__(self) -> None:
        """Compute the primary key and the subject, which are used many times."""
        self.share = self.topic
        self.id = RowId(self.shard, self.position, self.event_id)
        self.key = subject_key(self.subject_type, self.subject_id)
        self.is_replay = REPLAY_NAME in self.headers

    @property
    def raw(self) -> RawRow:
        """The row as a read has it."""
        return 0, *_columns(self), None

    @property
    def waits(self) -> bool:
        """Whether it has a predecessor."""
        return waits(self.predecessor, self.previous_position, self.position)

    def bytes(self) -> int:
        """Bytes of payload and headers."""
        return bytes_of(self.headers, self.payload)

    def message(self, *, attempt: int, picked_up_ns: int, epoch: int) -> "Message | Fault":
        """The message of this row, or why it cannot be one.

        `attempt` counts from 1, `picked_up_ns` is in nanoseconds since the Unix epoch,
        and `epoch` is that of the lease of the shard. Equal arguments give an equal
        message.
        """
        return next(
            messages_of([self.raw], [self.key], picked_up_ns, attempts=[attempt], epochs=[epoch])
        )


def messages_of(
    rows: Sequence[RawRow],
    keys: Iterable[str],
    picked_up_ns: int,
    *,
    attempts: Iterable[int],
    epochs: Iterable[int],
) -> Iterator[Message | Fault]:
    """The message of each row, or why it cannot be one, as `OutboxRow.message` says.

    `keys` are the subjects. Headers and ids of all rows are decoded at once, which takes half of
    the time.
    """
    texts = [row[_HEADERS] for row in rows]
    stored = (len(rows) > 1 and _plain_headers(texts)) or map(read_headers, texts)
    uuids = msgspec.convert([row[_EVENT_ID] for row in rows], list[UUID])
    for row, (headers, broken), uuid, key, attempt, epoch in zip(
        rows, stored, uuids, keys, attempts, epochs, strict=False
    ):
        _, shard, position, event_id, before, _, _, version, topic, _, payload, created_us, *_ = row
        if fault := _place_fault(position, before) or broken:
            yield Fault(fault)
            continue
        if payload is None:
            # The row names its event, which is gone.
            yield Fault(f"the bytes of event {event_id} are not stored any more")
            continue
        dedupe_id = dedupe_id_of(shard, event_id, headers.get(REPLAY_HEADER))
        headers["subject"] = headers["partitionkey"] = key
        headers["sequence"] = str(version)
        headers["position"] = str(position)
        headers["previousposition"] = str(before)
        headers["leaseepoch"] = str(epoch)
        yield Message(
            event_id=uuid,
            topic=topic,
            key=key,
            headers=headers,
            payload=payload.encode(),
            dedupe_id=dedupe_id,
            committed_ns=created_us * 1000,
            picked_up_ns=picked_up_ns,
            attempt=attempt,
        )


ROW_COLUMNS: Final = OutboxRow.__struct_fields__[: OutboxRow.__struct_fields__.index("id")]
"""The columns of ``outbox_read`` between the number of the range and whether it is cut.

They are the fields of a row but for the computed ones. A row is decoded by position, because
every message takes this way; tests/integration/schema/test_row_columns.py compares the names.
"""

_columns: Final = attrgetter(*ROW_COLUMNS)
_EVENT_ID: Final = 1 + ROW_COLUMNS.index("event_id")
_HEADERS: Final = 1 + ROW_COLUMNS.index("headers")


def waits(predecessor: bool, previous: int, position: int) -> bool:
    """Whether a row has a predecessor. An invalid row may name a later one, which is none."""
    return predecessor and previous < position


def bytes_of(headers: str, payload: str | None) -> int:
    """Bytes of headers and payload."""
    body = payload or ""
    return (len(body) if body.isascii() else len(body.encode())) + (
        len(headers) if headers.isascii() else len(headers.encode())
    )


def _place_fault(position: int, previous: int) -> str | None:
    """Why the positions of a row are not valid, or None."""
    if position < 1:
        return f"position {position} is below 1"
    if previous >= position:
        return f"it would wait for position {previous}, which is not before it"
    return None


def dedupe_id_of(shard: int, event_id: str, replay: str | None) -> str:
    """The dedupe id. Each row of an event has its own, or a broker would drop all but one.

    An event has a row in each target, and one more for each replay.
    """
    target = shard // TARGET_SHARDS
    name = f"{event_id}/t{target}" if target else event_id
    return name if replay is None else f"{name}/r{replay}"


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
