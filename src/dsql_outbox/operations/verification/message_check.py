"""Compare a message or a dead letter with its event: with what a writer or a replay makes of it.

No I/O.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.operations.replay import stored_headers
from dsql_outbox.outbox.receipt import Touched
from dsql_outbox.schema.outbox_rows import REPLAY_HEADER

from .finding import Fault, Finding

_decode_headers: Final = msgspec.json.Decoder(dict[str, str]).decode
_decode_touches: Final = msgspec.json.Decoder(tuple[Touched, ...]).decode
_encode: Final = msgspec.json.Encoder().encode


class MessageRow(NamedTuple):
    """A row of ``verify_messages`` or ``verify_letters``: a message, and what its event says.

    `faults` are words for what the statement has compared. `number` is that of the replay, and
    `told_id` the id in the message that tells of an erasure, while its event has the pseudonym.
    `payload` is None if it is the text of the event's bytes; of such a message, `data` says what it
    should be. `died_at` is that of a letter.
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
    told_id: str | None
    payload: str | None
    data: str | None

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
        if not _has_payload(row):
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


def _has_payload(row: MessageRow) -> bool:
    if row.payload is None:
        return True
    if row.told_id is None or row.data is None:
        return False
    return _tells_of(row.told_id, row.payload, row.data)


def _tells_of(told_id: str, payload: str, data: str) -> bool:
    """Whether a payload is the event that says that an entity was erased, but for its id."""
    told, stored = _load(payload), _load(data)
    try:
        name, _ = _take_id(told), _take_id(stored)
    except (LookupError, TypeError, AttributeError):  # of another form than ours
        return False
    return name == told_id and bool(told == stored)


def _load(text: str) -> Any:
    try:
        return json.loads(text, parse_float=str, parse_int=str)
    except ValueError:
        return None


def _take_id(event: Any) -> str:
    """Take the id of the entity out of an event."""
    entity = event["entities"][0]
    found: str = entity["entityHeader"].pop("entityId")
    if entity.get("id") == found:
        del entity["id"]
    return found


def _has_headers(row: MessageRow, *, is_placed: bool) -> bool:
    """Whether it has the headers that a writer or a replay makes. Hooks may have added others.

    If it is not placed where its event or a replay is, nobody knows the number of the replay.
    """
    try:
        found = _decode_headers(row.headers)
        own = {} if row.own is None else _decode_headers(row.own)
    except msgspec.MsgspecError:
        return False
    touches = row.touches if row.told_id is None else _with_id(row.touches, row.told_id)
    # The source is stored nowhere else.
    source = found.get("source") or "-"
    ours = stored_headers(row.event_id, row.event_type, row.created, touches, source)
    replay = None if row.number is None else str(row.number)
    if ours.fault or (is_placed and found.get(REPLAY_HEADER) != replay):
        return False
    return (own | ours.by_name).items() <= found.items()


def _with_id(touches: str, entity_id: str) -> str:
    """The touches of an event with another id of its subject."""
    try:
        subject, *others = _decode_touches(touches)
    except (msgspec.MsgspecError, ValueError):  # found with the event
        return touches
    return _encode([msgspec.structs.replace(subject, entity_id=entity_id), *others]).decode()
