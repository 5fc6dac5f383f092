"""The fill of a target: the messages of the events that were stored before it was added.

Nobody relays the target meanwhile, so the order in which its messages are inserted does not matter:
their positions are those that they have in every target. Each page commits with its progress, and
only for the last worker that took the fill, so a worker that was stopped adds nothing later.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID

import anyio
import msgspec
import psycopg

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.schema.session import Session, SessionTransaction
from dsql_outbox.schema.target_rows import TargetRow, TargetState

from .pace import Pace
from .pages import LEAVE
from .stored_event import all_headers, stored_headers

PAGE_ROWS: Final = 2_500
"""Most events of one transaction. Aurora DSQL allows 3,000 changed rows."""

_PAGE_BYTES: Final = 2 << 20
"""Most bytes of touches and own headers in one transaction, if it has two events or more.

Aurora DSQL allows 10 MiB of changes. In headers, a character of an entity's id may be three times
as long as in the touches.
"""

LEASE: Final = 10.0
"""Seconds after its last page for which a worker keeps the fill."""

_encode: Final = msgspec.json.Encoder().encode


class FillProgress(msgspec.Struct, frozen=True, rename="camel"):
    """How far a fill is.

    `read` is the number of stored events that were read, out of about `total` (None: not known, or
    the fill has ended). `messages` is the number of messages that were inserted; events that were
    stored meanwhile have theirs already. `forgotten` is the number of events, of any type, that had
    been forgotten for good: the target lacks them.
    """

    read: int
    messages: int
    forgotten: int = 0
    total: int | None = None


FillCounts = tuple[int | None, int | None, int | None]
"""The columns ``events``, ``messages`` and ``forgotten`` of a fill: NULL without one."""


def fill_progress(state: TargetState, counts: FillCounts, total: int | None) -> FillProgress | None:
    """How far the fill of a target is, of about `total` stored events; None if it has none."""
    events, messages, forgotten = counts
    if events is None:
        return None
    known = total if state == "filling" else None
    return FillProgress(events, messages or 0, forgotten or 0, known)


class FillLost(Exception):
    """Another worker has taken the fill, or it has ended."""


class _Taken(NamedTuple):
    """A row of ``fill_take``."""

    epoch: int
    source: str
    event_id: UUID
    events: int
    messages: int
    forgotten: int


class _EventRow(NamedTuple):
    """A row of ``fill_page``; the columns from `id` on are NULL if no event is to be inserted."""

    seen: int
    reached: UUID | None
    id: UUID | None
    event_type: str
    created_date: datetime | None
    touches: str
    headers: str | None


class FillPage(NamedTuple):
    """A page of stored events: the last one, and how many there are.

    `headers` are those of the messages to insert, by the ids of their events.
    """

    reached: UUID
    seen: int
    headers: Mapping[UUID, str]


async def run_target(name: str, transaction: SessionTransaction) -> None:
    """Let publishers relay a target, unless another call has done so, or it was dropped."""
    await transaction.execute("target_lock", {})
    if await transaction.execute("target_run", {"name": name}):
        await transaction.execute("target_lease", {"name": name})


async def take_fill(session: Session, target: TargetRow, total: int | None) -> "Fill | None":
    """Become the worker of a target's fill; None while another one works, or after its end."""
    found = await session.fetch_rows("fill_take", {"target": target.name, "lease": LEASE})
    return Fill(session, target, _Taken(*found[0]), total) if found else None


class Fill:
    """A fill, for its worker: the pages, and the fence (see `run.Fence`).

    Its methods raise `FillLost` if another worker has taken the fill, or it has ended.
    """

    def __init__(
        self,
        session: Session,
        target: TargetRow,
        taken: _Taken,
        total: int | None,
    ) -> None:
        self._session = session
        self._target = target
        self._source = taken.source
        self._mine = {"target": target.name, "epoch": taken.epoch}
        self._place = taken.event_id
        self._has_ended = False
        self.progress = FillProgress(*taken[3:], total)

    @property
    def lease(self) -> float:
        """Seconds after its last page for which the worker keeps the fill."""
        return LEASE

    async def renew(self) -> None:
        """Keep the fill."""
        nothing = {"reached": self._place, "events": 0, "messages": 0, "lease": LEASE}
        if not await self._session.execute("fill_advance", self._mine | nothing):
            raise FillLost

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[None]:
        """Work in the block, and leave the rest to the next worker at once if it ends early.

        The block ends early, too, when another worker has taken the fill.
        """
        try:
            yield
        except FillLost:
            self._has_ended = True
        finally:
            if not self._has_ended:
                with anyio.move_on_after(LEAVE, shield=True), suppress(psycopg.Error):
                    await self._session.execute("fill_leave", self._mine)

    async def pages(self, pace: Pace) -> AsyncGenerator[Sequence["FillPage"]]:
        """The stored events, page by page."""
        while page := await self._read(pace.most(PAGE_ROWS)):
            yield [page]

    async def store(self, pages: Sequence["FillPage"]) -> None:
        """Insert the messages of a page."""
        (page,) = pages
        inserted = await self._session.transaction(partial(self._store, page))
        self._place = page.reached
        done = self.progress
        self.progress = msgspec.structs.replace(
            done,
            read=done.read + page.seen,
            messages=done.messages + inserted,
        )

    async def end(self) -> None:
        """Let publishers relay the target, after the last page."""
        await self._session.transaction(self._end)
        self._has_ended = True

    async def _read(self, most: int) -> "FillPage | None":
        """Read the next events; None if there are none."""
        asked = {
            "after": self._place,
            "is_first": self.progress.read == 0,
            "types": self._target.types,
            "rows": most,
            "size": _PAGE_BYTES,
        }
        rows = await self._session.fetch("fill_page", _EventRow, asked)
        end = rows[0]
        if end.reached is None:
            return None
        headers = {row.id: self._headers(row.id, row) for row in rows if row.id is not None}
        return FillPage(end.reached, end.seen, headers)

    async def _store(self, page: FillPage, transaction: SessionTransaction) -> int:
        """Insert the messages of a page. Returns how many were not there.

        On PostgreSQL the next worker waits for this transaction, so nothing is computed in it.
        """
        inserted = await transaction.execute(
            "fill_insert",
            {
                "first": self._target.first_shard,
                "event_ids": array_literal(page.headers),
                "headers": array_literal(page.headers.values()),
            },
        )
        advanced = {
            "reached": page.reached,
            "events": page.seen,
            "messages": inserted,
            "lease": LEASE,
        }
        if not await transaction.execute("fill_advance", self._mine | advanced):
            raise FillLost
        return inserted

    def _headers(self, event_id: UUID, row: _EventRow) -> str:
        """The headers of a message as the writer made them.

        Invalid ones are replaced by the fault, which is no object: the relay makes a dead letter of
        such a row, while leaving it out would be a hole that nobody sees.
        """
        ours = stored_headers(event_id, row.event_type, row.created_date, row.touches, self._source)
        found = all_headers(row.headers, ours)
        return _encode(found.fault or found.by_name).decode()

    async def _end(self, transaction: SessionTransaction) -> None:
        """Let publishers relay the target, in the transaction that ends the fill."""
        await transaction.execute("target_lock", {})  # before the row of the fill, as a drop does
        if not await transaction.execute("fill_end", self._mine):
            raise FillLost
        await run_target(self._target.name, transaction)
