"""Read the events of one entity in version order, in pages. No I/O."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.database.exchange import Row
from dsql_outbox.outbox.errors import OutboxError
from dsql_outbox.outbox.receipt import JsonStruct
from dsql_outbox.writer.core import Core

from .call_arguments import entity_key

if TYPE_CHECKING:
    from dsql_outbox.outbox.archive.archive_file import ArchiveFile
    from dsql_outbox.outbox.archive.archive_reader import ArchiveReader

PAGE_ROWS: Final = 200
_PAGE_BYTES: Final = 4 << 20
"""4 MiB of event texts per page. A larger event is its own page."""


class StoredEvent(JsonStruct, frozen=True):
    """A stored event.

    `Writer.stream` yields the events of an entity.

        >>> with Writer(database) as writer:
        ...     receipt = writer.write(event)
        ...     [stored.version for stored in writer.stream("Car", "C-1")]
        [1]
    """

    event_id: UUID
    """The id of the event."""

    version: int
    """The version that the event gave the entity whose stream is read."""

    event_name: str
    """The name, such as ``Car Sold``."""

    event_type: str
    """The type, such as ``CarSold``."""

    created_date: datetime | None
    """The date of the event, as its sender gave it."""

    saved_date: datetime
    """The time at which it was stored, by the database's clock."""

    data: str
    """Its JSON text as received."""


class StreamRow(NamedTuple):
    """A row of ``event_stream``; `seen` counts the events of the page before it was cut."""

    version: int
    event_id: UUID
    event_name: str
    event_type: str
    created_date: datetime | None
    saved_date: datetime
    data: str | None
    seen: int


class ArchivedRow(NamedTuple):
    """A row of ``archived_events``: an event, the place of its file, and the file."""

    event_id: UUID
    place: str
    file: "ArchiveFile"


class EntityStream:
    """The progress of reading the events of one entity. `events` are those of the last page.

    A page starts after the last version that was read. No connection is held between
    two pages, so events that are stored during the reading are read too. The events of a page
    that are in an archive have no text until `complete` reads it.
    """

    def __init__(self, core: Core, entity_type: str, entity_id: str, after: int) -> None:
        self._core = core
        self.events: list[StoredEvent] = []
        self.archived: list[ArchivedRow] = []
        self.is_at_end = False
        self._key = entity_key(entity_type, entity_id)
        self._after = after

    @property
    def query(self) -> tuple[bytes, Mapping[str, object]]:
        """The statement that reads the next page, and its parameters."""
        bounds = {"after": self._after, "rows": PAGE_ROWS, "bytes": _PAGE_BYTES}
        return self._core.stream, {**self._key, **bounds}

    def take(self, rows: Sequence[Row]) -> tuple[bytes, Mapping[str, object]] | None:
        """Take the rows of a page.

        Returns the statement that reads where its archived events are, if there are any.
        """
        found = [StreamRow._make(row) for row in rows]
        self.events = [_stored(row) for row in found]
        self.archived = []
        seen = found[0].seen if rows else 0
        self.is_at_end = seen < PAGE_ROWS and len(rows) == seen
        if rows:
            self._after = self.events[-1].version
        bare = [row.event_id for row in found if row.data is None]
        return (self._core.archived, {"event_ids": array_literal(bare)}) if bare else None

    def take_archived(self, rows: Sequence[Row]) -> None:
        """Take the rows that say where the archived events of the page are."""
        from dsql_outbox.outbox.archive.archive_file import ArchiveFile  # noqa: PLC0415 - as there

        self.archived = [
            ArchivedRow(event_id, place, ArchiveFile.from_columns(facts))
            for event_id, place, *facts in rows
        ]

    def complete(self, reader: "ArchiveReader") -> None:
        """Read the texts of the archived events of the page; this blocks.

        Raises `EventArchived` and `ArchiveError`, and `OutboxError` for an event whose bytes are
        nowhere.
        """
        archived = {row.event_id: row for row in self.archived}
        for n, event in enumerate(self.events):
            if event.data:
                continue
            if event.event_id not in archived:
                raise OutboxError(f"the bytes of event {event.event_id} are not stored any more")
            row = archived[event.event_id]
            text = reader.event(row.event_id, row.file, row.place).event
            self.events[n] = msgspec.structs.replace(event, data=text)


def _stored(row: StreamRow) -> StoredEvent:
    return StoredEvent(
        row.event_id,
        row.version,
        row.event_name,
        row.event_type,
        row.created_date,
        row.saved_date,
        row.data or "",
    )
