"""Forget old events: their rows, and their lines in archive files, go for good."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import msgspec
from anyio import to_thread

from dsql_outbox.operations.pace import Pace
from dsql_outbox.operations.pages import Size, Step, change_pages, count_fitting, pack
from dsql_outbox.operations.replay import rows_estimate
from dsql_outbox.operations.run import Fence, RowFence, Run
from dsql_outbox.operations.tool import OperationEntry
from dsql_outbox.outbox.archive.archived_event import ArchivedEvent
from dsql_outbox.outbox.archive.place import ArchivePlace
from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.schema.session import Session, SessionTransaction

from .archive import MAX_ROWS
from .job import LifeJob, refuse_filling
from .old_events import OldEvent, old_pages
from .rewrite import ArchiveRow, OpenFile, archive_rows, place_of, rewrite
from .stored_touches import header_keys


class ForgetProgress(msgspec.Struct, frozen=True, rename="camel"):
    """How far a forget job is.

    `read` is the number of rows that were looked at, out of about `total`; None if that is not
    known. `events` are forgotten now, archived ones among them, whose `files` were removed or
    written anew. `kept` are as old, but a waiting message or a dead letter names them.
    """

    read: int = 0
    total: int | None = None
    events: int = 0
    kept: int = 0
    files: int = 0


class ForgetRun(Run[ForgetProgress, ForgetProgress]):
    """A run of `Retention.forget`."""

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
        self._file: OpenFile | None = None
        """The file of the events at work; None for events that have their bytes in the table."""
        super().__init__(ForgetProgress(), Pace(rate, gives_way=True))

    async def _work(self) -> AsyncGenerator[ForgetProgress]:
        await self._require_places()
        self._count(total=await rows_estimate(self._session, "business_events"))
        if self._dry_run:
            async with aclosing(self._parts(RowFence(), self._look)) as steps:
                async for each in steps:
                    yield each
            return
        async with LifeJob.running(self._session, "forget", self._places) as job:
            await refuse_filling(self._session)
            # Before the first row goes, so that `verify` knows why it is missing.
            # A time to come would excuse for ever what is lost later.
            until = min(self._before, datetime.now(UTC))
            await job.step(None, forgotten_before=until)
            async with aclosing(self._parts(job, partial(self._forget, job))) as steps:
                async for each in steps:
                    yield each
            if not self.is_stopping:
                await job.step(None)

    async def _require_places(self) -> None:
        """Raise `SettingsError` if archived events are to be forgotten, and no archive is named."""
        if self._places:
            return
        async with aclosing(archive_rows(self._session, self._before)) as rows:
            async for row in rows:
                raise SettingsError(
                    f"events from before {self._before} are archived in {row.place}: "
                    "name all archives whose events are forgotten, too"
                )

    async def _parts(self, fence: Fence, change: "_Change") -> AsyncGenerator[ForgetProgress]:
        """Change what is in files, and then what is in the table."""
        stored = pack(self, self._stored(), _changes, rows=MAX_ROWS, bytes_=0)
        for pages in (self._archived(), stored):
            async with aclosing(change_pages(self, fence, pages, change)) as steps:
                async for each in steps:
                    yield each

    async def _archived(self) -> AsyncGenerator[Sequence[OldEvent]]:
        """The events of each file to forget, without those that a row names."""
        async with aclosing(archive_rows(self._session, self._before)) as rows:
            async for row in rows:
                place, events = await to_thread.run_sync(partial(_read, self._places, row))
                old = [event for event in events if event.saved_date < self._before]
                named = await self._named(self._session, [event.id for event in old])
                self._count(kept=len(named))
                self._file = OpenFile(place, row.facts, events)
                yield [OldEvent.of(event) for event in old if event.id not in named]
        self._file = None

    async def _stored(self) -> AsyncGenerator[Sequence[OldEvent]]:
        """The events to forget that have their bytes in the table."""
        async with aclosing(old_pages(self._session, self._before)) as pages:
            async for page in pages:
                self._count(read=page.seen, kept=page.kept)
                yield page.events

    async def _look(self, some: Sequence[OldEvent]) -> Step[ForgetProgress]:
        """Count what would be forgotten."""
        self._count(events=len(some), files=self._file is not None)
        return Step(len(some), 0, [self.progress])

    async def _forget(self, job: LifeJob, some: Sequence[OldEvent]) -> Step[ForgetProgress]:
        """Delete as many of the events as fit one transaction, and write their file without them.

        Those that a row names by now are kept.
        """
        await self._entry.write()
        if self._file is None:  # each transaction on a file writes all of it
            some = some[: self.pace.most(len(some))]
        some = some[: await self._fitting(some)]
        events = some
        while events:
            try:
                await self._remove(job, events)
            except _NamedNow as error:
                events = [event for event in events if event.id not in error.ids]
                continue
            break
        self._count(events=len(events), kept=len(some) - len(events))
        return Step(len(some), len(events), [self.progress])

    async def _fitting(self, events: Sequence[OldEvent]) -> int:
        """How many of the first events one transaction may delete."""
        found = await self._session.fetch_rows("forget_counts", _ids(events))
        replays: dict[UUID, int] = dict(found)  # type: ignore[arg-type]
        sizes = ((event.rows + replays.get(event.id, 0), 0) for event in events)
        return count_fitting(sizes, rows=MAX_ROWS, bytes_=0)

    async def _remove(self, job: LifeJob, events: Sequence[OldEvent]) -> None:
        """Delete the events in one transaction. Raises `_NamedNow` if a row names some by now."""
        file, forgotten = self._file, len(events)
        if file is None:

            async def change(transaction: SessionTransaction) -> None:
                await job.step_in(transaction, pending=None, forgotten=forgotten)
                await self._delete(None, events, transaction)

            await self._session.transaction(change)
            job.stepped(None)
            return
        gone = {event.id for event in events}
        kept = [event for event in file.events if event.id not in gone]
        work = partial(self._delete, file.facts.number, events)
        facts = await rewrite(
            self._session, job, file.place, file.facts, kept, work=work, forgotten=forgotten
        )
        self._count(files=not file.is_counted)
        self._file = OpenFile(file.place, facts or file.facts, kept, is_counted=True)

    async def _delete(
        self, number: int | None, events: Sequence[OldEvent], transaction: SessionTransaction
    ) -> None:
        ids = _ids(events)
        await transaction.fetch_rows("event_lock", ids)
        await refuse_filling(transaction)
        # After the lock: whatever names an event has committed, or waits for us.
        if named := await self._named(transaction, [event.id for event in events]):
            raise _NamedNow(named)
        touches = [touch for event in events for touch in event.touches]
        await transaction.execute("forget_headers", header_keys(touches))
        # Not before: they keep the numbers that are used, and say where a replay waits.
        await transaction.execute("forget_replays", ids)
        await transaction.change("forget_events", ids | {"number": number}, len(events))

    async def _named(
        self, reader: Session | SessionTransaction, ids: Sequence[UUID]
    ) -> frozenset[UUID]:
        asked = {"event_ids": array_literal(ids)}
        return frozenset(found for (found,) in await reader.fetch_rows("archive_named", asked))

    def _count(
        self,
        *,
        read: int = 0,
        total: int | None = None,
        events: int = 0,
        kept: int = 0,
        files: int = 0,
    ) -> None:
        done = self.progress
        self.progress = ForgetProgress(
            done.read + read,
            done.total if total is None else total,
            done.events + events,
            done.kept + kept,
            done.files + files,
        )


_Change = Callable[[Sequence[OldEvent]], Awaitable[Step[ForgetProgress]]]


class _NamedNow(Exception):
    """A row names some of the events now."""

    def __init__(self, ids: frozenset[UUID]) -> None:
        super().__init__(f"{len(ids)} events are named by a row now")
        self.ids = ids


def _changes(event: OldEvent) -> Size:
    """What its deletion changes at least, without its replays."""
    return event.rows, 0


def _ids(events: Sequence[OldEvent]) -> dict[str, str]:
    return {"event_ids": array_literal(event.id for event in events)}


def _read(
    places: Sequence[ArchivePlace], row: ArchiveRow
) -> tuple[ArchivePlace, list[ArchivedEvent]]:
    place = place_of(places, row)
    return place, row.facts.read(place)
