"""Archive stored events: their bytes go to files, and their rows keep the rest."""

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from anyio import to_thread

from dsql_outbox.operations.pace import Pace
from dsql_outbox.operations.pages import Step, change_pages, pack
from dsql_outbox.operations.replay import rows_estimate
from dsql_outbox.operations.run import RowFence, Run
from dsql_outbox.operations.tool import OperationEntry
from dsql_outbox.outbox.archive.archive_file import ArchiveFile
from dsql_outbox.outbox.archive.archived_event import ArchivedEvent
from dsql_outbox.outbox.archive.file_rules import new_file_name
from dsql_outbox.outbox.archive.place import ArchivePlace, claim
from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.errors import JobRefused
from dsql_outbox.schema.session import Session, SessionTransaction

from .job import LifeJob, PendingFile, refuse_filling
from .old_events import OldEvent, OldPage, old_pages
from .stored_touches import header_keys, touches_of

MAX_ROWS: Final = 1_000
"""Most rows of one transaction, and so of one file. Aurora DSQL allows 3,000; a transaction of as
many rows is felt by every writer beside it."""

MAX_BYTES: Final = 8 << 20
"""Most bytes of one transaction. Aurora DSQL allows 10 MiB."""


class ArchiveProgress(msgspec.Struct, frozen=True, rename="camel"):
    """How far an archive job is.

    `read` is the number of events that were looked at, out of about `total`; None if that is not
    known. `events` are archived now, with `bytes` of JSON, in `files` of `file_bytes`.
    """

    read: int = 0
    total: int | None = None
    events: int = 0
    bytes: int = 0
    files: int = 0
    file_bytes: int = 0


class ArchiveRun(Run[ArchiveProgress, ArchiveProgress]):
    """A run of `Archives.archive`."""

    def __init__(  # noqa: PLR0913 - one argument per option
        self,
        session: Session,
        place: ArchivePlace,
        before: datetime,
        entry: OperationEntry,
        *,
        rate: float | None,
        dry_run: bool,
    ) -> None:
        self._session = session
        self._place = place
        self._before = before
        self._entry = entry
        self._dry_run = dry_run
        self._number = 0
        self._file = ""
        self._oldest: datetime | None = None
        super().__init__(ArchiveProgress(), Pace(rate, gives_way=True))

    async def _work(self) -> AsyncGenerator[ArchiveProgress]:
        total = await rows_estimate(self._session, "business_events")
        self.progress = msgspec.structs.replace(self.progress, total=total)
        files = pack(self, self._pages(), OldEvent.changes, rows=MAX_ROWS, bytes_=MAX_BYTES)
        if self._dry_run:
            async with aclosing(change_pages(self, RowFence(), files, self._look)) as steps:
                async for each in steps:
                    yield each
            return
        async with LifeJob.running(self._session, "archive", [self._place]) as job:
            await refuse_filling(self._session)
            await self._open(job)
            change = partial(self._archive, job)
            async with aclosing(change_pages(self, job, files, change)) as steps:
                async for each in steps:
                    yield each
            if not self.is_stopping:
                await job.step(None)
                await job.end(is_archived=True, oldest_at=self._oldest)

    async def _open(self, job: LifeJob) -> None:
        """Make the place ours, and name the first file before it is written."""
        asked = {"place": self._place.name}
        ((last, is_known),) = await self._session.fetch_rows("archive_last", asked)
        await to_thread.run_sync(partial(claim, self._place, job.store, is_known=is_known))
        self._number = last + 1
        self._file = new_file_name(self._number)
        await job.step(PendingFile(self._place.name, self._file))

    async def _pages(self) -> AsyncGenerator[Sequence[OldEvent]]:
        """The events to archive, in order of their ids."""
        async with aclosing(old_pages(self._session, self._before)) as pages:
            async for page in pages:
                self._see(page)
                yield page.events

    def _see(self, page: OldPage) -> None:
        read = self.progress.read + page.seen
        self.progress = msgspec.structs.replace(self.progress, read=read)
        if page.oldest is not None and (self._oldest is None or page.oldest < self._oldest):
            self._oldest = page.oldest

    async def _look(self, some: Sequence[OldEvent]) -> Step[ArchiveProgress]:
        """Count what would be archived."""
        self._count(len(some), sum(each.bytes for each in some))
        return Step(len(some), 0, [self.progress])

    async def _archive(self, job: LifeJob, some: Sequence[OldEvent]) -> Step[ArchiveProgress]:
        """Write the events to one file, and take their bytes from the table.

        Events that something names now, or that have changed, are left out or read again.
        """
        await self._entry.write()
        left = {each.id for each in some}
        while events := await read_stored(self._session, left):
            facts, data = await to_thread.run_sync(
                partial(ArchiveFile.of, self._number, self._file, events)
            )
            await to_thread.run_sync(partial(facts.write, self._place, job.store, data))
            following = PendingFile(self._place.name, new_file_name(self._number + 1))
            try:
                await self._session.transaction(partial(self._take, job, facts, events, following))
            except _Changed as error:
                await to_thread.run_sync(partial(facts.remove, self._place))
                left -= error.named
                await job.renew()
                continue
            except JobRefused:  # nothing is committed, and another job may not know of the file
                await to_thread.run_sync(partial(facts.remove, self._place))
                raise
            self._number, self._file = self._number + 1, following.file
            job.stepped(following)
            self._count(len(events), sum(len(each.event.encode()) for each in events), facts)
            break
        return Step(len(some), len(events), [self.progress])

    async def _take(
        self,
        job: LifeJob,
        facts: ArchiveFile,
        events: Sequence[ArchivedEvent],
        following: PendingFile,
        transaction: SessionTransaction,
    ) -> None:
        """The transaction of one file. Raises `_Changed` unless all events are as in the file."""
        ids = {"event_ids": array_literal(each.id for each in events)}
        await job.step_in(transaction, pending=following, archived=len(events))
        fingerprints = array_literal(each.fingerprint for each in events)
        asked = ids | {"fingerprints": fingerprints, "number": facts.number}
        taken = await transaction.execute("archive_take", asked)
        # After the rows are locked: whatever names an event has committed, or waits for us.
        named = frozenset(found for (found,) in await transaction.fetch_rows("archive_named", ids))
        await refuse_filling(transaction)
        if taken != len(events) or named:
            raise _Changed(named)
        touches = [each for event in events for each in touches_of(event.id, event.touches)]
        await transaction.execute("archive_strip", header_keys(touches))
        await transaction.change("archive_record", file_columns(facts, self._place.name), 1)

    def _count(self, events: int, size: int, facts: ArchiveFile | None = None) -> None:
        done = self.progress
        self.progress = msgspec.structs.replace(
            done,
            events=done.events + events,
            bytes=done.bytes + size,
            files=done.files + 1,
            file_bytes=done.file_bytes + (facts.file_size if facts else 0),
        )


class _StoredRow(NamedTuple):
    """A row of ``archive_events``."""

    id: UUID
    saved_date: datetime
    fingerprint: str
    event: str
    headers: str | None
    touches: str


class _HeaderRow(NamedTuple):
    """A row of ``archive_headers``."""

    n: int
    data: str | None


class _Changed(Exception):
    """Events of a file changed before the transaction: `named` are those that a row names now."""

    def __init__(self, named: frozenset[UUID]) -> None:
        super().__init__(f"{len(named)} events are named by a row now, or some have changed")
        self.named = named


async def read_stored(session: Session, ids: Collection[UUID]) -> list[ArchivedEvent]:
    """What a file keeps of those of the events that have their bytes, in order of their ids."""
    if not ids:
        return []
    rows = await session.fetch("archive_events", _StoredRow, {"event_ids": array_literal(ids)})
    touches = [each for row in rows for each in touches_of(row.id, row.touches)]
    numbers = {"numbers": array_literal(range(len(touches)))}
    stored = await session.fetch("archive_headers", _HeaderRow, header_keys(touches) | numbers)
    found = {row.n: row.data for row in stored}
    headers: dict[UUID, list[str | None]] = {row.id: [] for row in rows}
    for n, touch in enumerate(touches):
        headers[touch.event_id].append(found.get(n))
    return [
        ArchivedEvent(
            id=row.id,
            saved_date=row.saved_date,
            fingerprint=row.fingerprint,
            event=row.event,
            headers=row.headers,
            touches=row.touches,
            header_data=tuple(headers[row.id]),
        )
        for row in rows
    ]


def file_columns(facts: ArchiveFile, place: str) -> dict[str, Any]:
    """The columns of a file in ``outbox_archives``."""
    return {"place": place} | msgspec.structs.asdict(facts)
