"""Forget archived events: their rows, and their lines in the files, go for good."""

from collections.abc import AsyncGenerator, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from anyio import to_thread

from dsql_outbox.operations.run import Run
from dsql_outbox.operations.tool import OperationEntry
from dsql_outbox.outbox.archive.archived_event import ArchivedEvent
from dsql_outbox.outbox.archive.place import ArchivePlace
from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.schema.session import Session, SessionTransaction

from .archive import MAX_ROWS
from .job import LifeJob, refuse_filling
from .rewrite import ArchiveRow, archive_rows, place_of, rewrite
from .stored_touches import header_keys, touches_of

if TYPE_CHECKING:
    from dsql_outbox.outbox.archive.archive_file import ArchiveFile


class ForgetProgress(msgspec.Struct, frozen=True, rename="camel"):
    """How far a forget job is.

    `events` are forgotten now. `kept` are as old, but a waiting message or a dead letter names
    them. `files` were removed or written anew.
    """

    events: int = 0
    kept: int = 0
    files: int = 0


class ForgetRun(Run[ForgetProgress, ForgetProgress]):
    """A run of `Archives.forget`."""

    def __init__(
        self,
        session: Session,
        places: Sequence[ArchivePlace],
        before: datetime,
        entry: OperationEntry,
        *,
        dry_run: bool,
    ) -> None:
        self._session = session
        self._places = places
        self._before = before
        self._entry = entry
        self._dry_run = dry_run
        super().__init__(ForgetProgress())

    async def _work(self) -> AsyncGenerator[ForgetProgress]:
        if self._dry_run:
            async for row in archive_rows(self._session, self._before):
                _, events = await self._read(row)
                old = self._old(events)
                named = await self._named(self._session, old)
                self._count(len(old) - len(named), len(named))
                yield self.progress
            return
        async with LifeJob.running(self._session, "forget", self._places) as job:
            await refuse_filling(self._session)
            # Before the first row goes, so that `verify` knows why it is missing.
            await job.step(None, forgotten_before=self._before)
            async for row in archive_rows(self._session, self._before):
                if self.is_stopping:
                    return
                await self._entry.write()
                await self._forget(job, row)
                yield self.progress
            await job.step(None)

    async def _forget(self, job: LifeJob, row: ArchiveRow) -> None:
        place, events = await self._read(row)
        facts: ArchiveFile | None = row.facts
        old = self._old(events)
        named, done = await self._named(self._session, old), 0
        while facts is not None and (gone := await self._fitting(events, old - named)):
            kept = [event for event in events if event.id not in gone]
            forgotten = [event for event in events if event.id in gone]
            try:
                facts = await rewrite(
                    self._session,
                    job,
                    place,
                    facts,
                    kept,
                    work=partial(self._delete, facts.number, forgotten),
                    forgotten=len(gone),
                )
            except _NamedNow as error:
                named |= error.ids
                continue
            events, old, done = kept, old - gone, done + len(gone)
        self._count(done, len(named))

    async def _fitting(
        self, events: Sequence[ArchivedEvent], wanted: Collection[UUID]
    ) -> frozenset[UUID]:
        """The first of the wanted events: as many as one transaction may delete, or one."""
        ids = {"event_ids": array_literal(wanted)}
        replays: dict[UUID, int] = dict(await self._session.fetch_rows("forget_counts", ids))  # type: ignore[arg-type]
        fitting, rows = set[UUID](), 0
        for event in events:
            if event.id in wanted:
                rows += 1 + len(touches_of(event.id, event.touches)) + replays.get(event.id, 0)
                if fitting and rows > MAX_ROWS:
                    break
                fitting.add(event.id)
        return frozenset(fitting)

    async def _delete(
        self, number: int, events: Sequence[ArchivedEvent], transaction: SessionTransaction
    ) -> None:
        ids = {"event_ids": array_literal(each.id for each in events)}
        await transaction.fetch_rows("event_lock", ids)
        await refuse_filling(transaction)
        # After the lock: whatever names an event has committed, or waits for us.
        if named := await self._named(transaction, {each.id for each in events}):
            raise _NamedNow(named)
        touches = [each for event in events for each in touches_of(event.id, event.touches)]
        await transaction.execute("forget_headers", header_keys(touches))
        # Not before: they keep the numbers that are used, and say where a replay waits.
        await transaction.execute("forget_replays", ids)
        await transaction.change("forget_events", ids | {"number": number}, len(events))

    async def _named(
        self, reader: Session | SessionTransaction, ids: Collection[UUID]
    ) -> frozenset[UUID]:
        asked = {"event_ids": array_literal(ids)}
        return frozenset(found for (found,) in await reader.fetch_rows("archive_named", asked))

    async def _read(self, row: ArchiveRow) -> tuple[ArchivePlace, list[ArchivedEvent]]:
        return await to_thread.run_sync(partial(_read, self._places, row))

    def _old(self, events: Sequence[ArchivedEvent]) -> frozenset[UUID]:
        return frozenset(event.id for event in events if event.saved_date < self._before)

    def _count(self, events: int, kept: int) -> None:
        done = self.progress
        files = done.files + (events > 0)
        self.progress = ForgetProgress(done.events + events, done.kept + kept, files)


class _NamedNow(Exception):
    """A row names some of the events now."""

    def __init__(self, ids: frozenset[UUID]) -> None:
        super().__init__(f"{len(ids)} events are named by a row now")
        self.ids = ids


def _read(
    places: Sequence[ArchivePlace], row: ArchiveRow
) -> tuple[ArchivePlace, list[ArchivedEvent]]:
    place = place_of(places, row)
    return place, row.facts.read(place)
