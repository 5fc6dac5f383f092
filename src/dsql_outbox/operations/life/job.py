"""The lease of a job that changes stored events."""

import os
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal, NamedTuple, Self
from uuid import UUID, uuid4

import anyio
import psycopg
from anyio import to_thread

from dsql_outbox.operations.pages import LEAVE
from dsql_outbox.outbox.archive.archive_file import remove_file
from dsql_outbox.outbox.archive.place import ArchivePlace, open_recorded
from dsql_outbox.outbox.errors import ArchiveError, JobRefused, OutboxError
from dsql_outbox.schema.session import Session, SessionTransaction

LifeVerb = Literal["archive", "erase", "forget"]

LEASE: Final = 60.0
"""Seconds that a job has for one step: to read, write and read back a file, and to commit."""


class PendingFile(NamedTuple):
    """A file that a job writes or removes, and that no row of a file names.

    A job that is killed has left it, or a part of it. An archive job records the name of a file one
    file ahead, in the transaction of the file before it.
    """

    place: str
    file: str


class LifeJob:
    """A running job: it has the lease until another job begins, which its next step finds.

    It is the fence of a run (see `run.Fence`).

    Each change is made in a transaction with `step_in`, so that a job that was paused for longer
    than its lease changes nothing after another one has begun.
    """

    def __init__(self, session: Session, owner: str, epoch: int, store: UUID) -> None:
        self.store = store
        """The name of this outbox in its archives."""
        self._session = session
        self._mine = {"owner": owner, "epoch": epoch}
        self._pending: PendingFile | None = None
        self._has_ended = False

    @property
    def lease(self) -> float:
        """Seconds that the job has from one step to the next."""
        return LEASE

    @classmethod
    @asynccontextmanager
    async def running(
        cls, session: Session, verb: LifeVerb, given: Sequence[ArchivePlace]
    ) -> AsyncGenerator[Self]:
        """Begin a job, remove what a killed one left, and give the lease back at the end.

        `given` are the places that the caller named. Raises `JobRefused` if another job runs, or
        has begun in the block, and `ArchiveError` for a file of a killed job that cannot be
        removed.
        """
        owner = f"{socket.gethostname()[:64]}:{os.getpid()}:{uuid4().hex[:8]}"
        asked = {"store": str(uuid4()), "owner": owner, "lease": LEASE, "verb": verb}
        rows = await session.fetch("job_begin", _BegunRow, asked)
        if not rows:
            raise await _refusal(session)
        begun = rows[0]
        job = cls(session, owner, begun.epoch, begun.store)
        try:
            if begun.pending is not None:
                job._pending = PendingFile(begun.pending_place or "", begun.pending)
                await job._remove_left(given)
            yield job
        except ArchiveError:
            with suppress(psycopg.Error):
                await job.renew()  # else another job has begun, and may have removed the file
            raise
        finally:
            # After an error, the lease ends by itself if the database cannot be reached.
            with anyio.move_on_after(LEAVE, shield=True), suppress(OutboxError, psycopg.Error):
                await job.end()

    async def step_in(
        self,
        transaction: SessionTransaction,
        *,
        pending: PendingFile | None,
        archived: int = 0,
        erased: int = 0,
        forgotten: int = 0,
    ) -> None:
        """Record a step in the transaction that makes it, and renew the lease.

        `pending` is the file that no row names when the transaction has committed. Call
        `stepped` then. Raises `JobRefused` if another job has begun.
        """
        transaction.can_be_cancelled()  # else it could hold the row, though its job has ended
        counts = {"archived": archived, "erased": erased, "forgotten": forgotten}
        parameters = self._step(pending) | counts
        if await transaction.execute("job_step", parameters) != 1:
            raise _lost()

    def stepped(self, pending: PendingFile | None) -> None:
        """Note the pending file of a step that has committed."""
        self._pending = pending

    async def step(
        self, pending: PendingFile | None, *, forgotten_before: datetime | None = None
    ) -> None:
        """Record the pending file in a transaction of its own, and renew the lease."""
        parameters = self._step(pending) | {"forgotten_before": forgotten_before}
        if await self._session.execute("job_step", parameters) != 1:
            raise _lost()
        self._pending = pending

    async def renew(self) -> None:
        """Renew the lease."""
        await self.step(self._pending)

    async def end(self, *, is_archived: bool = False, oldest_at: datetime | None = None) -> None:
        """Give the lease back, once. `is_archived`: a whole archive job was done."""
        if not self._has_ended:
            facts = {"is_archived": is_archived, "oldest_at": oldest_at}
            await self._session.execute("job_end", self._mine | facts)
            self._has_ended = True

    def _step(self, pending: PendingFile | None) -> dict[str, Any]:
        place, file = pending or (None, None)
        return {
            **self._mine,
            "lease": LEASE,
            "pending_place": place,
            "pending": file,
            "archived": 0,
            "erased": 0,
            "forgotten": 0,
            "forgotten_before": None,
        }

    async def _remove_left(self, given: Sequence[ArchivePlace]) -> None:
        """Remove the file of a killed job, unless a row names it: then its COMMIT was done."""
        if self._pending is None:
            return
        asked = {"file": self._pending.file}
        ((is_named,),) = await self._session.fetch_rows("archive_named_file", asked)
        if not is_named:
            await to_thread.run_sync(partial(_remove, self._pending, given, self.store))
        await self.step(None)


class JobRow(NamedTuple):
    """A row of ``job_row``; `left` are the seconds of the lease that are left."""

    store: UUID
    owner: str | None
    verb: str
    left: float
    archived: int
    erased: int
    forgotten: int
    archived_at: datetime | None
    oldest_at: datetime | None
    forgotten_before: datetime | None

    @property
    def moved(self) -> tuple[int, int]:
        """How many events were ever archived, and how many forgotten."""
        return self.archived, self.forgotten


class _BegunRow(NamedTuple):
    """A row of ``job_begin``."""

    store: UUID
    epoch: int
    pending_place: str | None
    pending: str | None


async def refuse_filling(reader: Session | SessionTransaction) -> None:
    """Raise `JobRefused` while a target opens or fills: it needs the bytes of every event."""
    for name, state in await reader.fetch_rows("archive_filling", {}):
        raise JobRefused(f"target {name} is {state}, and needs the bytes of every event")


async def _refusal(session: Session) -> JobRefused:
    rows = await session.fetch("job_row", JobRow, {})
    if rows and rows[0].owner is not None:
        found = rows[0]
        left = f"its lease ends in {found.left:.0f} s unless it goes on"
        return JobRefused(f"the job {found.verb} of {found.owner} runs; {left}")
    return JobRefused("another job runs")


def _lost() -> JobRefused:
    return JobRefused("another job has begun, as this one took too long for a step")


def _remove(left: PendingFile, given: Sequence[ArchivePlace], store: UUID) -> None:
    place = open_recorded(left.place, left.file, given, store)
    if place is not None:
        remove_file(place, left.file)
