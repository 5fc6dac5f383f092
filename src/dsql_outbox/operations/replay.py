"""Replay of stored events; their messages are rebuilt from ``business_events`` alone."""

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.message import parse_subject_key, subject_key
from dsql_outbox.schema.session import Session, SessionTransaction
from dsql_outbox.schema.target_rows import TargetRow, require_running

from .event_pages import START, EntityVersion, EventPage, StoredKey, all_pages, entity_pages
from .pace import Pace
from .pages import Step, change_pages
from .replay_positions import Candidate, Placed
from .requeue import MAX_ROWS, MessageResult, Requeue, RequeueProgress, ResultStatus
from .run import RowFence, Run
from .selection import Selection
from .stored_event import all_headers, stored_headers


class ReplayProgress(RequeueProgress, frozen=True, rename="camel"):
    """How far a replay is.

    `read` is the number of rows that were read to find the events, out of about `total`;
    None if that is not known. Everything up to `place` is replayed and committed, so `after` of the
    same method continues there; it is None at the start, and for a replay by id.
    """

    replayed: int = 0
    read: int = 0
    total: int | None = None
    place: str | None = None


class Replay(Run[ReplayProgress, MessageResult]):
    """A run of `Messages.replay`. Memory does not grow with the number of events."""

    def __init__(  # noqa: PLR0913 - one argument per part
        self,
        session: Session,
        requeue: Requeue[StoredKey],
        pages: AsyncGenerator[EventPage],
        target: str,
        *,
        table: str | None,
        pace: Pace,
    ) -> None:
        """`table` is the one that the pages read as a whole."""
        self._session = session
        self._requeue = requeue
        self._pages = pages
        self._target = target
        self._table = table
        super().__init__(ReplayProgress(), pace)

    @property
    def again(self) -> Mapping[str, str] | None:
        """The arguments to add to the same call, so that it goes on; None when all is done."""
        same, place = super().again, self.progress.place
        return same if same is None or place is None else {"after": place}

    def _work(self) -> AsyncGenerator[MessageResult]:
        return change_pages(self, RowFence(), self._keys(), self._change)

    async def _keys(self) -> AsyncGenerator[Sequence[StoredKey]]:
        targets = await self._session.fetch("target_known", TargetRow, {})
        require_running(targets, self._target)
        if self._table is not None:
            self.note(total=await rows_estimate(self._session, self._table))
        async with aclosing(self._pages) as pages:
            async for page in pages:
                yield page.keys
                self.count(read=page.read)
                self.note(place=page.place)

    async def _change(self, some: Sequence[StoredKey]) -> Step[MessageResult]:
        step = await self._requeue.change(some, self.pace.most(MAX_ROWS))
        self.count(**Counter[str](each.status for each in step.told))
        self.note(place=some[step.settled - 1].place)
        return step


def selected_pages(
    session: Session, which: Selection, entity: str | None, after: str | None
) -> tuple[AsyncGenerator[EventPage], str | None]:
    """The pages of the selected events, and the table that they read as a whole, if any.

    Raises `SettingsError` for a malformed place or entity, and fields that an event has not.
    """
    narrowing = {"id"} if which.ids else {"type", "topic", "since", "until"}
    if foreign := set(which.texts()) - narrowing:
        raise SettingsError(
            f"a replay of stored events has no {min(foreign)}: it takes ids alone, or type, "
            "topic, since and until"
        )
    if which.ids:
        if entity is not None or after is not None:
            raise SettingsError("a replay by ids takes neither entity nor after")
        return _pages_of(which.ids), None
    if entity is None:
        place = START if after is None else EntityVersion.parse(after)
        return all_pages(session, which, place), "event_headers"
    if after is not None and not after.isdecimal():
        raise SettingsError(f"after {after!r} is no version of the entity, as in 12")
    return entity_pages(session, parse_subject_key(entity), which, int(after or 0)), None


async def rows_estimate(session: Session, table: str) -> int | None:
    """The number of rows in a table, from the database's statistics; None if it has none."""
    rows = await session.fetch_rows("rows_estimate", {"schema": session.schema, "table": table})
    return rows[0][0] if rows and rows[0][0] >= 0 else None


async def _pages_of(event_ids: Iterable[UUID]) -> AsyncGenerator[EventPage]:
    rest = iter(event_ids)
    while keys := [StoredKey(event_id) for event_id in islice(rest, MAX_ROWS)]:
        yield EventPage(keys, len(keys))


class StoredEvents:
    """The stored events as a source of messages to replay (see `requeue.Source`)."""

    done: ResultStatus = "replayed"

    def __init__(self, source: str, target: str) -> None:
        self._source = source
        self._target = {"target": target}

    async def candidates(
        self, transaction: SessionTransaction, keys: Sequence[StoredKey], /
    ) -> list[Candidate | UUID]:
        """The candidates of these events (see `requeue.Source`)."""
        ids = {"event_ids": array_literal(key.event_id for key in keys)}
        rows = await transaction.fetch("replay_candidates", self.candidate, ids | self._target)
        found = {row.event_id: row for row in rows}
        return [found.get(key.event_id, key.event_id) for key in keys]

    async def put(
        self, transaction: SessionTransaction, placed: Sequence[Placed], columns: dict[str, str], /
    ) -> None:
        """Insert the outbox rows."""
        await transaction.change("replay_requeue", columns | self._target, len(placed))

    def candidate(  # noqa: PLR0913 - one argument per column that is not a field
        self,
        *,
        event_id: UUID,
        type: str,  # noqa: A002 - a column
        created_date: datetime | None,
        touches: str,
        headers: str | None,
        subject_type: str,
        subject_id: str,
        **rest: Any,
    ) -> Candidate:
        """The candidate of a row of ``replay_candidates``."""
        ours = stored_headers(event_id, type, created_date, touches, self._source)
        found = all_headers(headers, ours)
        return Candidate(
            event_id=event_id,
            type=type,
            key=subject_key(subject_type, subject_id),
            headers=found.by_name,
            fault=found.fault,
            **rest,
        )
