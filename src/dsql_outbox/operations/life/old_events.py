"""Events that were saved before a time, and are neither waiting nor dead."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from dsql_outbox.operations.pages import Size
from dsql_outbox.outbox.archive.archived_event import ArchivedEvent
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.schema.session import Session

from .stored_touches import EventTouch, touches_of

_PAGE: Final = 5_000
_LAST: Final = UUID(int=(1 << 128) - 1)


class OldEvent(NamedTuple):
    """An event that no row names, with the size of its text in bytes, and what it touches."""

    id: UUID
    bytes: int
    touches: Sequence[EventTouch]

    @classmethod
    def of(cls, event: ArchivedEvent) -> "OldEvent":
        """An event of an archive file."""
        return cls(event.id, len(event.event.encode()), touches_of(event.id, event.touches))

    def changes(self) -> Size:
        """What its archiving changes: a stored header of a touch is a part of the event."""
        return self.rows, self.bytes * self.rows

    @property
    def rows(self) -> int:
        """How many rows the event and its touches have."""
        return 1 + len(self.touches)


class OldPage(NamedTuple):
    """A page of the table, of `seen` rows.

    `events` are old. `kept` more are as old, but a row names them. `oldest` is the saved date of
    the oldest event with bytes that is not among `events`.
    """

    seen: int
    kept: int
    oldest: datetime | None
    events: Sequence[OldEvent]


async def old_pages(session: Session, before: datetime) -> AsyncGenerator[OldPage]:
    """Read the whole table in the order of the ids, but no bytes."""
    first: UUID | None = UUID(int=0)
    while first is not None:
        asked = {"first": str(first), "before": before, "rows": _PAGE}
        rows = await session.fetch("archive_scan", _ScanRow, asked)
        page, reached = rows[0], UUID(rows[0].reached or str(_LAST))
        is_last = page.seen < _PAGE or reached == _LAST
        first = None if is_last else UUID(int=reached.int + 1)
        events = [found for row in rows if (found := _old_event(row)) is not None]
        yield OldPage(page.seen, page.kept, page.oldest, events)


def require_zone(before: datetime) -> None:
    """Raise `SettingsError` for a time without a zone."""
    if before.tzinfo is None:
        raise SettingsError(f"the time {before} has no time zone")


class _ScanRow(NamedTuple):
    """A row of ``archive_scan``: the last three columns are NULL if no event matches."""

    seen: int
    reached: str | None
    kept: int
    oldest: datetime | None
    id: UUID | None
    bytes: int | None
    touches: str | None


def _old_event(row: _ScanRow) -> OldEvent | None:
    if row.id is None or row.touches is None or row.bytes is None:
        return None
    return OldEvent(row.id, row.bytes, touches_of(row.id, row.touches))
