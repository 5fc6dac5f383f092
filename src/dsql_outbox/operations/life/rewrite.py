"""Write an archive file anew: with fewer events, or with other bytes."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, NamedTuple

import psycopg
from anyio import to_thread

from dsql_outbox.outbox.archive.archive_file import ArchiveFile, remove_file
from dsql_outbox.outbox.archive.archived_event import ArchivedEvent
from dsql_outbox.outbox.archive.file_rules import new_file_name
from dsql_outbox.outbox.archive.place import ArchivePlace
from dsql_outbox.outbox.errors import ArchiveError
from dsql_outbox.schema.session import Session, SessionTransaction

from .archive import file_columns
from .job import LifeJob, PendingFile

_PAGE: Final = 100
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


async def rewrite(  # noqa: PLR0913 - what is changed, where, and by whom
    session: Session,
    job: LifeJob,
    place: ArchivePlace,
    old: ArchiveFile,
    events: Sequence[ArchivedEvent],
    *,
    work: Callable[[SessionTransaction], Awaitable[None]],
    erased: int = 0,
    forgotten: int = 0,
) -> ArchiveFile | None:
    """Put a new file with `events` in the place of `old`, and return its facts.

    Without events, no file takes its place: None. `work` changes the rows in the same
    transaction, which runs again after a conflict. A kill leaves the old file or the new one,
    and another job removes the one that no row names. Raises `ArchiveError`, and `JobRefused` if
    another job has begun; then nothing has changed.
    """
    new, data = None, b""
    if events:
        name = new_file_name(old.number)
        await job.step(PendingFile(place.name, name))
        new, data = await to_thread.run_sync(partial(ArchiveFile.of, old.number, name, events))
        await to_thread.run_sync(partial(new.write, place, job.store, data))
    left = PendingFile(place.name, old.file)

    async def change(transaction: SessionTransaction) -> None:
        await job.step_in(transaction, pending=left, erased=erased, forgotten=forgotten)
        await work(transaction)
        if new is None:
            named = {"number": old.number, "old": old.file}
            await transaction.change("archive_remove", named, 1)
        else:
            columns = file_columns(new, place.name) | {"old": old.file}
            await transaction.change("archive_replace", columns, 1)

    try:
        await session.transaction(change)
    except psycopg.Error:  # perhaps it has committed: the next job looks
        raise
    except Exception:  # nothing has, and another job may not know of the file
        if new is not None:
            await to_thread.run_sync(partial(new.remove, place))
        raise
    job.stepped(left)
    await to_thread.run_sync(partial(remove_file, place, old.file))
    return new


class ArchiveRow(NamedTuple):
    """A file of the archive, and the place that it was written to."""

    place: str
    facts: ArchiveFile


class OpenFile(NamedTuple):
    """A file that a run works on, as it is now, and whether the run has counted it."""

    place: ArchivePlace
    facts: ArchiveFile
    events: Sequence[ArchivedEvent]
    is_counted: bool = False


async def archive_rows(
    session: Session, before: datetime | None = None
) -> AsyncGenerator[ArchiveRow]:
    """The files in order of their numbers: those with an event saved before a time, or all."""
    after, seen = 0, _PAGE
    while seen == _PAGE:
        asked = {"after": after, "before": before or _LATEST, "rows": _PAGE}
        rows = await session.fetch_rows("archive_page", asked)
        seen = len(rows)
        for place, *facts in rows:
            yield ArchiveRow(place, ArchiveFile.from_columns(facts))
            after = facts[0]


def place_of(places: Sequence[ArchivePlace], row: ArchiveRow) -> ArchivePlace:
    """The place among `places` that has a file; it blocks. Raises `ArchiveError`."""
    ordered = sorted(places, key=lambda place: place.name != row.place)
    for place in ordered:
        if place.exists(row.facts.file):
            return place
    listed = ", ".join(place.name for place in ordered)
    told = f"it is not in {listed}" if listed else "it is not there"
    raise ArchiveError(row.facts.file, row.place, told)
