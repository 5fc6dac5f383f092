"""Replay of stored events; their messages are rebuilt from ``business_events`` alone."""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.message import listed_key, message_headers, parse_subject_key, subject_key
from dsql_outbox.outbox.receipt import Touched
from dsql_outbox.schema.outbox_rows import Headers, read_headers
from dsql_outbox.schema.session import Session, SessionTransaction
from dsql_outbox.schema.target_rows import TargetRow, require_running

from .event_pages import START, EntityVersion, EventPage, StoredKey, all_pages, entity_pages
from .pace import Pace
from .pages import Step, change_pages
from .replay_positions import Candidate, Placed
from .requeue import MAX_ROWS, MessageResult, Requeue, RequeueProgress, ResultStatus
from .run import RowFence, Run
from .selection import Selection

_touches: Final = msgspec.json.Decoder(tuple[Touched, ...])


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

    async def _work(self) -> AsyncGenerator[MessageResult]:
        targets = await self._session.fetch("target_known", TargetRow, {})
        require_running(targets, self._target)
        if self._table is not None:
            self._note(total=await rows_estimate(self._session, self._table))
        async with aclosing(change_pages(self, RowFence(), self._keys(), self._change)) as told:
            async for each in told:
                yield each

    async def _keys(self) -> AsyncGenerator[Sequence[StoredKey]]:
        async with aclosing(self._pages) as pages:
            async for page in pages:
                yield page.keys
                self._note(read=self.progress.read + page.read, place=page.place)

    async def _change(self, some: Sequence[StoredKey]) -> Step[MessageResult]:
        step = await self._requeue.change(some, self.pace.most(MAX_ROWS))
        self.progress = self.progress.counting(step.told)
        self._note(place=some[step.settled - 1].place)
        return step

    def _note(self, **changes: int | str | None) -> None:
        self.progress = msgspec.structs.replace(self.progress, **changes)


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
    ) -> tuple[list[Candidate | UUID], int]:
        """The candidates of these events, and the time of the database (see `requeue.Source`)."""
        ids = {"event_ids": array_literal(key.event_id for key in keys)}
        rows = await transaction.fetch("replay_candidates", _EventRow, ids | self._target)
        found = {row.id: self._candidate(row) for row in rows}
        now_us = rows[-1].now_us if rows else 0
        return [found.get(key.event_id, key.event_id) for key in keys], now_us

    async def put(
        self, transaction: SessionTransaction, placed: Sequence[Placed], columns: dict[str, str], /
    ) -> None:
        """Insert the outbox rows."""
        await transaction.change("replay_requeue", columns | self._target, len(placed))

    def _candidate(self, row: "_EventRow") -> Candidate:
        stored = Headers({}) if row.headers is None else read_headers(row.headers)
        ours = stored_headers(row.id, row.event_type, row.created_date, row.touches, self._source)
        return Candidate(
            event_id=row.id,
            key=subject_key(row.subject_type, row.subject_id),
            type=row.event_type,
            topic=row.topic,
            shard=row.shard,
            at=row.saved_date,
            headers=stored.by_name | ours.by_name,
            size=row.bytes,
            last_position=row.last_position,
            replays=row.replays,
            waiting=row.waiting,
            is_taken=row.is_taken,
            fault=stored.fault or ours.fault,
        )


class _EventRow(NamedTuple):
    """A row of ``replay_candidates``."""

    id: UUID
    event_type: str
    topic: str
    shard: int
    created_date: datetime | None
    saved_date: datetime
    subject_type: str
    subject_id: str
    bytes: int
    touches: str
    headers: str | None
    last_position: int
    replays: int
    waiting: bool
    is_taken: bool
    now_us: int


def stored_headers(
    event_id: UUID, event_type: str, created: datetime | None, touches: str, source: str
) -> Headers:
    """The headers of a stored event as the writer made them, without the trace context.

    The trace context is not stored.
    """
    try:
        found = _touches.decode(touches)
    except msgspec.MsgspecError:  # its text may quote the touches
        headers = made_headers(event_id, event_type, created, (), source)
        return Headers(headers, "the stored touches are no JSON array of entities")
    return Headers(made_headers(event_id, event_type, created, found, source))


def made_headers(
    event_id: UUID,
    event_type: str,
    created: datetime | None,
    touches: Iterable[Touched],
    source: str,
) -> dict[str, str]:
    """The headers that the writer makes of an event that touched these entities."""
    time = None if created is None else created.astimezone(UTC)
    listed = [f"{listed_key(each.entity_type, each.entity_id)}@{each.version}" for each in touches]
    headers = message_headers(str(event_id), event_type, time, source)
    return headers | {"entities": ",".join(listed)}
