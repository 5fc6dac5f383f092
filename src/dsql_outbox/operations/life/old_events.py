"""Events that were saved before a time, and are neither waiting nor dead."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.schema.session import Session

from .stored_touches import EventTouch, touches_of

_PAGE: Final = 5_000
_LAST: Final = UUID(int=(1 << 128) - 1)


class OldEvent(NamedTuple):
    """An event that no row names, and what it touches."""

    id: UUID
    touches: Sequence[EventTouch]

    @property
    def rows(self) -> int:
        """How many rows the event and its touches have."""
        return 1 + len(self.touches)


class OldPage(NamedTuple):
    """A page of the table, of `seen` rows.

    `events` are old. `kept` more are as old, but a row names them.
    """

    seen: int
    kept: int
    events: Sequence[OldEvent]


async def old_pages(session: Session, before: datetime) -> AsyncGenerator[OldPage]:
    """Read the whole table in the order of the ids, but no bytes."""
    first: UUID | None = UUID(int=0)
    while first is not None:
        asked = {"first": str(first), "before": before, "rows": _PAGE}
        rows = await session.fetch("forget_scan", _ScanRow, asked)
        page, reached = rows[0], UUID(rows[0].reached or str(_LAST))
        is_last = page.seen < _PAGE or reached == _LAST
        first = None if is_last else UUID(int=reached.int + 1)
        events = [found for row in rows if (found := _old_event(row)) is not None]
        yield OldPage(page.seen, page.kept, events)


def require_zone(before: datetime) -> None:
    """Raise `SettingsError` for a time without a zone."""
    if before.tzinfo is None:
        raise SettingsError(f"the time {before} has no time zone")


class _ScanRow(NamedTuple):
    """A row of ``forget_scan``: the last two columns are NULL if no event matches."""

    seen: int
    reached: str | None
    kept: int
    id: UUID | None
    touches: str | None


def _old_event(row: _ScanRow) -> OldEvent | None:
    if row.id is None or row.touches is None:
        return None
    return OldEvent(row.id, touches_of(row.id, row.touches))
