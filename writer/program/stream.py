"""Read the events of one entity in version order, in pages. No I/O."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from dsql_outbox.outbox.database.exchange import Row
from dsql_outbox.outbox.receipt import JsonStruct
from dsql_outbox.writer.core import Core

from .call_arguments import entity_key

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
    data: str
    seen: int


class EntityStream:
    """The progress of reading the events of one entity. `events` are those of the last page.

    A page starts after the last version that was read. No connection is held between
    two pages, so events that are stored during the reading are read too.
    """

    def __init__(self, core: Core, entity_type: str, entity_id: str, after: int) -> None:
        self._core = core
        self.events: list[StoredEvent] = []
        self.is_at_end = False
        self._key = entity_key(entity_type, entity_id)
        self._after = after

    @property
    def query(self) -> tuple[bytes, Mapping[str, object]]:
        """The statement that reads the next page, and its parameters."""
        bounds = {"after": self._after, "rows": PAGE_ROWS, "bytes": _PAGE_BYTES}
        return self._core.stream, {**self._key, **bounds}

    def take(self, rows: Sequence[Row]) -> None:
        """Take the rows of a page."""
        found = [StreamRow._make(row) for row in rows]
        self.events = [_stored(row) for row in found]
        seen = found[0].seen if rows else 0
        self.is_at_end = seen < PAGE_ROWS and len(rows) == seen
        if rows:
            self._after = self.events[-1].version


def _stored(row: StreamRow) -> StoredEvent:
    return StoredEvent(
        row.event_id,
        row.version,
        row.event_name,
        row.event_type,
        row.created_date,
        row.saved_date,
        row.data,
    )
