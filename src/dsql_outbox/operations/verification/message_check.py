"""Compare a message or a dead letter with its event: with what a writer or a replay makes of it.

No I/O.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from dsql_outbox.operations.stored_event import headers_in, stored_headers
from dsql_outbox.schema.outbox_rows import REPLAY_HEADER

from .finding import Fault, Finding


class MessageRow(NamedTuple):
    """A row of ``verify_messages`` or ``verify_letters``: a message, and what its event says.

    `faults` are words for what the statement has compared. `number` is that of the replay.
    `payload` is None if it is the text of the event's bytes. `died_at` is that of a letter.
    """

    shard: int
    position: int
    event_id: UUID
    died_at: str | None
    faults: str
    number: int | None
    headers: str
    event_type: str
    created: datetime | None
    touches: str
    own: str | None
    payload: str | None

    @property
    def place(self) -> Mapping[str, object]:
        """The key, as the parameters of the statement that reads the next page."""
        if self.died_at is not None:
            return {"event_id": str(self.event_id), "died_at": self.died_at}
        return {"shard": self.shard, "position": self.position, "event_id": str(self.event_id)}


_TEXTS: Final[Mapping[str, tuple[Fault, str]]] = {
    "event": ("missing-event", "there is no such event"),
    "subject": ("other-entity", "the subject is not that of the event"),
    "shard": (
        "other-position",
        "the shard is that of the event in no target that takes its subject",
    ),
    "position": ("other-position", "the position is neither that of the event nor of a replay"),
    "previous": ("other-position", "the previous position is not that of the message before it"),
}
_CONTENT: Final = ("topic", "headers", "payload_size", "replays")


def message_findings(row: MessageRow) -> Iterator[Finding]:
    """What is wrong with a message."""
    faults = row.faults.split()
    if "event" in faults:
        faults = ["event"]  # nothing says what the rest should be
    else:
        if row.payload is not None:
            text = "the payload is not the bytes of the event"
            yield _finding(row, "other-payload", text)
        if "subject" not in faults and not _has_headers(row, is_placed="position" not in faults):
            faults.append("headers")
    for word in faults:
        if word in _TEXTS:
            yield _finding(row, *_TEXTS[word])
    if other := [word for word in _CONTENT if word in faults]:
        text = f"other than the event says: {', '.join(other)}"
        yield _finding(row, "other-content", text)


def _finding(row: MessageRow, fault: Fault, text: str) -> Finding:
    if row.died_at is not None:
        return Finding(fault, "dead_letters", f"{row.event_id}/{row.died_at}", text)
    return Finding(fault, "outbox", f"{row.shard}/{row.position}/{row.event_id}", text)


def _has_headers(row: MessageRow, *, is_placed: bool) -> bool:
    """Whether it has the headers that a writer or a replay makes. Hooks may have added others.

    If it is not placed where its event or a replay is, nobody knows the number of the replay.
    """
    found, own = headers_in(row.headers), headers_in(row.own)
    if found is None or own is None:
        return False
    # The source is stored nowhere else.
    source = found.get("source") or "-"
    ours = stored_headers(row.event_id, row.event_type, row.created, row.touches, source)
    replay = None if row.number is None else str(row.number)
    if ours.fault or (is_placed and found.get(REPLAY_HEADER) != replay):
        return False
    return (own | ours.by_name).items() <= found.items()
