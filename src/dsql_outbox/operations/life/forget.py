"""Forget archived events: their rows, and their lines in the files, go for good."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from uuid import UUID

import msgspec
from anyio import to_thread

from dsql_outbox.operations.pace import Pace
from dsql_outbox.operations.pages import Step, change_pages, count_fitting
from dsql_outbox.operations.run import RowFence, Run
from dsql_outbox.operations.tool import OperationEntry
from dsql_outbox.outbox.archive.archived_event import ArchivedEvent
from dsql_outbox.outbox.archive.place import ArchivePlace
from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.schema.session import Session, SessionTransaction

from .archive import MAX_ROWS
from .job import LifeJob, refuse_filling
from .rewrite import ArchiveRow, OpenFile, archive_rows, place_of, rewrite
from .stored_touches import header_keys, touches_of


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

    def __init__(  # noqa: PLR0913 - one argument per option
        self,
        session: Session,
        places: Sequence[ArchivePlace],
        before: datetime,
        entry: OperationEntry,
        *,
        rate: float | None,
        dry_run: bool,
    ) -> None:
        self._session = session
        self._places = places
        self._before = before
        self._entry = entry
        self._dry_run = dry_run
        super().__init__(ForgetProgress(), Pace(rate))

    async def _work(self) -> AsyncGenerator[ForgetProgress]:
        if self._dry_run:
            async with aclosing(change_pages(self, RowFence(), self._pages(), self._look)) as steps:
                async for each in steps:
                    yield each
            return
        async with LifeJob.running(self._session, "forget", self._places) as job:
            await refuse_filling(self._session)
            # Before the first row goes, so that `verify` knows why it is missing.
            await job.step(None, forgotten_before=self._before)
            change = partial(self._forget, job)
            async with aclosing(change_pages(self, job, self._pages(), change)) as steps:
                async for each in steps:
                    yield each
            if not self.is_stopping:
                await job.step(None)

    async def _pages(self) -> AsyncGenerator[Sequence[ArchivedEvent]]:
        """The events of each file to forget, without those that a row names."""
        async for row in archive_rows(self._session, self._before):
            place, events = await to_thread.run_sync(partial(_read, self._places, row))
            old = [event for event in events if event.saved_date < self._before]
            named = await self._named(self._session, old)
            self._count(kept=len(named))
            self._file = OpenFile(place, row.facts, events)
            yield [event for event in old if event.id not in named]

    async def _look(self, some: Sequence[ArchivedEvent]) -> Step[ForgetProgress]:
        """Count what would be forgotten."""
        self._count(events=len(some), files=1)
        return Step(len(some), 0, [self.progress])

    async def _forget(self, job: LifeJob, some: Sequence[ArchivedEvent]) -> Step[ForgetProgress]:
        """Delete as many of the events as fit one transaction, and write their file without them.

        Those that a row names by now are kept.
        """
        await self._entry.write()
        some = some[: await self._fitting(some)]
        gone = {event.id for event in some}
        file = self._file
        while gone:
            kept = [event for event in file.events if event.id not in gone]
            forgotten = [event for event in some if event.id in gone]
            try:
                facts = await rewrite(
                    self._session,
                    job,
                    file.place,
                    file.facts,
                    kept,
                    work=partial(self._delete, file.facts.number, forgotten),
                    forgotten=len(gone),
                )
            except _NamedNow as error:
                gone -= error.ids
                continue
            self._count(events=len(gone), files=not file.is_counted)
            self._file = OpenFile(file.place, facts or file.facts, kept, is_counted=True)
            break
        self._count(kept=len(some) - len(gone))
        return Step(len(some), len(gone), [self.progress])

    async def _fitting(self, events: Sequence[ArchivedEvent]) -> int:
        """How many of the first events one transaction may delete."""
        ids = {"event_ids": array_literal(event.id for event in events)}
        replays: dict[UUID, int] = dict(await self._session.fetch_rows("forget_counts", ids))  # type: ignore[arg-type]
        sizes = (
            (1 + len(touches_of(event.id, event.touches)) + replays.get(event.id, 0), 0)
            for event in events
        )
        return count_fitting(sizes, rows=MAX_ROWS, bytes_=0)

    async def _delete(
        self, number: int, events: Sequence[ArchivedEvent], transaction: SessionTransaction
    ) -> None:
        ids = {"event_ids": array_literal(each.id for each in events)}
        await transaction.fetch_rows("event_lock", ids)
        await refuse_filling(transaction)
        # After the lock: whatever names an event has committed, or waits for us.
        if named := await self._named(transaction, events):
            raise _NamedNow(named)
        touches = [each for event in events for each in touches_of(event.id, event.touches)]
        await transaction.execute("forget_headers", header_keys(touches))
        # Not before: they keep the numbers that are used, and say where a replay waits.
        await transaction.execute("forget_replays", ids)
        await transaction.change("forget_events", ids | {"number": number}, len(events))

    async def _named(
        self, reader: Session | SessionTransaction, events: Sequence[ArchivedEvent]
    ) -> frozenset[UUID]:
        asked = {"event_ids": array_literal(event.id for event in events)}
        return frozenset(found for (found,) in await reader.fetch_rows("archive_named", asked))

    def _count(self, *, events: int = 0, kept: int = 0, files: int = 0) -> None:
        done = self.progress
        self.progress = ForgetProgress(done.events + events, done.kept + kept, done.files + files)


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
