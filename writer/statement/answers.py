"""Parse the answers of statements. No I/O."""

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.outbox.database.exchange import Row
from dsql_outbox.outbox.failure import driver_error, sqlstate_of
from dsql_outbox.outbox.receipt import Touched

from .chunks import TargetCounts
from .parameters import PreparedEvent

_COLUMNS_OF_ONE: Final = 4
"""``event_write_one`` returns a version, a position and the two numbers of `TargetCounts`.

``event_write_batch`` returns more, these two last.
"""

_BAD_CAST: Final = "22P02"
_STALE: Final = re.compile(r"\bstale (?P<id>[0-9a-f-]{36}) (?P<actual>-?\d+)")
"""The text in the failing cast of a write statement. Each language has its own quotes around it."""

_touched: Final = msgspec.json.Decoder(tuple[Touched, ...])


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A written event: the position of its subject, and the version of each touch, in order."""

    position: int
    versions: tuple[int, ...]


class Found(msgspec.Struct, frozen=True):
    """A stored event that a look-up found. `write_id` (hex) identifies the call that wrote it."""

    write_id: str
    fingerprint: bytes
    is_erased: bool
    position: int
    entities: tuple[Touched, ...]

    def has_content(self, fingerprint: bytes) -> bool:
        """Whether a write with this fingerprint has the content of the stored event.

        Of an erased event nobody can know it, and a repeat must not fail because of an erasure.
        """
        return self.is_erased or self.fingerprint == fingerprint


class StoredEntity(msgspec.Struct, frozen=True):
    """An entity after its last event.

    `Writer.entity` returns it.

        >>> with Writer(database) as writer:
        ...     receipt = writer.write(event)
        ...     stored = writer.entity("Car", "C-1")
        >>> stored.data, stored.version
        ('{"id":"C-1","km":9}', 1)
    """

    type: str
    """The type, as its events have it."""

    id: str
    """The id, as its events have it."""

    version: int
    """The number of events that have touched the entity."""

    data: str
    """The JSON text of its attributes, as the last event had them."""


def entity_of(key: Mapping[str, str], rows: Sequence[Row]) -> StoredEntity | None:
    """Return the entity of a key from the answer of its query, or None if no event touched it."""
    for version, data in rows:
        return StoredEntity(key["entity_type"], key["entity_id"], int(version), data)
    return None


def stored_events(batch: Sequence[PreparedEvent], rows: Sequence[Row]) -> list[Stored]:
    """Parse the answer of a write statement, with one entry per event.

    Numbers in `rows` may be text.
    """
    if len(rows[0]) == _COLUMNS_OF_ONE:
        ((version, position, *_),) = rows
        return [Stored(int(position), (int(version),))]
    answers = iter(rows)
    stored: list[Stored] = []
    for prepared in batch:
        subject, *others = islice(answers, len(prepared.event.touches))
        versions = (int(subject[2]), *(int(row[2]) for row in others))
        stored.append(Stored(int(subject[3]), versions))
    return stored


def target_counts_of(rows: Sequence[Row]) -> TargetCounts:
    """Return the targets that get messages from the answer of a write, or from the layout."""
    return TargetCounts(*map(int, rows[0][-2:]))


class FoundRow(NamedTuple):
    """A row of ``event_find``."""

    id: UUID
    write_id: UUID
    fingerprint: bytes
    is_erased: bool
    position: int
    touches: str


def found_events(rows: Sequence[Row]) -> Mapping[UUID, Found]:
    """Parse the answer of ``event_find``."""
    return {
        row.id: Found(
            row.write_id.hex,
            bytes(row.fingerprint),
            row.is_erased,
            row.position,
            _touched.decode(row.touches),
        )
        for row in map(FoundRow._make, rows)
    }


def touched_entities(prepared: PreparedEvent, stored: Stored) -> tuple[Touched, ...]:
    """Return each entity that the event touches, with the version that it gave."""
    touches = prepared.event.touches
    return tuple(
        Touched(touch.entity_type, touch.entity_id, version)
        for touch, version in zip(touches, stored.versions, strict=True)
    )


def stale_version(error: BaseException) -> tuple[UUID, int] | None:
    """Return the event whose subject was not at the expected version, and the actual version.

    The statement casts the text ``stale <id> <version>`` to a number, and the error of any
    driver quotes it. None for any other error.
    """
    quoting = driver_error(error)
    if quoting is None or sqlstate_of(quoting) != _BAD_CAST:
        return None
    found = _STALE.search(str(quoting))
    return (UUID(found["id"]), int(found["actual"])) if found else None
