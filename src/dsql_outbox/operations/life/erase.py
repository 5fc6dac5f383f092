"""Erase what is stored of one entity: in its events and their messages."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final

import msgspec

from dsql_outbox.operations.pace import Pace
from dsql_outbox.operations.pages import Step, change_pages, pack
from dsql_outbox.operations.run import Fence, RowFence, Run
from dsql_outbox.operations.tool import OperationEntry
from dsql_outbox.outbox.database.array_literals import plain_array
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.event.erasure import EntityErasure
from dsql_outbox.outbox.message import subject_key
from dsql_outbox.schema.session import Session, SessionTransaction

from .erased_rows import EraseBatch, Notice, StreamRow
from .job import LifeJob

_EVENTS: Final = 300
_EVENT_BYTES: Final = 2 << 20


class EraseProgress(msgspec.Struct, frozen=True, rename="camel"):
    """How far an erasure is.

    `read` events of the entity were looked at, of `total`. `events` of them were changed, with
    `messages` in the outbox and `dead_letters`.
    `version` is that of the event that says so; None if nothing was to be erased.
    """

    read: int = 0
    total: int = 0
    events: int = 0
    messages: int = 0
    dead_letters: int = 0
    version: int | None = None


class EraseRun(Run[EraseProgress, EraseProgress]):
    """A run of `Erasures.erase`.

    `announce` writes the event that says so, and records the erasure, in one transaction.
    """

    def __init__(  # noqa: PLR0913 - one argument per option
        self,
        session: Session,
        erasure: EntityErasure,
        entry: OperationEntry,
        announce: Callable[[], Awaitable[None]],
        *,
        rate: float | None,
        dry_run: bool,
    ) -> None:
        self._session = session
        self._erasure = erasure
        self._entry = entry
        self._announce = announce
        self._dry_run = dry_run
        super().__init__(EraseProgress(), Pace(None if dry_run else rate))

    async def _work(self) -> AsyncGenerator[EraseProgress]:
        if self._dry_run:
            version, _ = await self._state()
            async with aclosing(self._pass(version + 1)) as steps:
                async for each in steps:
                    yield each
            return
        async with LifeJob.running(self._session, "erase") as job:
            notice = await self._noticed(job)
            if notice is None:
                return
            self.note(version=notice.version, read=0)
            async with aclosing(self._pass(notice.version, job, notice)) as steps:
                async for each in steps:
                    yield each
            if not self.is_stopping:
                await self._finish(job)
                yield self.progress

    async def _noticed(self, job: LifeJob) -> Notice | None:
        """The notice of this erasure, or of an unfinished one.

        None if nothing is to be erased, or if the run is stopped before it is written.
        """
        version, state = await self._state()
        is_clean = self._erasure.of_state(state) is None
        unfinished = await self._unfinished()
        if not unfinished or not is_clean:
            if is_clean and not await self._finds_any(version):
                return None
            if self.is_stopping:
                return None
            await job.renew()
            await self._entry.write()
            await self._announce()
            unfinished = await self._unfinished()
        return unfinished[0]

    async def _unfinished(self) -> Sequence[Notice]:
        """The unfinished erasures of the entity, the latest first."""
        rows = await self._session.fetch("erasure_list", Notice, self._key())
        return [row for row in rows if not row.is_finished]

    async def _finds_any(self, version: int) -> bool:
        is_found = False
        async with aclosing(self._pass(version + 1)) as steps:
            async for done in steps:
                if is_found := bool(done.events or done.messages or done.dead_letters):
                    break
        self.progress = EraseProgress(total=self.progress.total)
        return is_found

    async def _state(self) -> tuple[int, str]:
        """The version and the state."""
        rows = await self._session.fetch_rows("entity_state", self._key())
        if not rows:
            name = subject_key(*self._erasure)
            raise SettingsError(f"no event has touched entity {name} of {self._session.schema}")
        return rows[0][0], rows[0][1]

    def _pass(
        self, before: int, job: LifeJob | None = None, notice: Notice | None = None
    ) -> AsyncGenerator[EraseProgress]:
        """Erase in all events before a version. Without a job, only count what would be."""
        self.note(total=before - 1)
        fence = job or RowFence()
        change = partial(self._change, job, notice)
        most = self.pace.most(_EVENTS)
        rows = self._stream(fence, before)
        events = pack(self, rows, StreamRow.changes, rows=most, bytes_=_EVENT_BYTES)
        return change_pages(self, fence, events, change, most)

    async def _stream(self, fence: Fence, before: int) -> AsyncGenerator[Sequence[StreamRow]]:
        """The events before a version."""
        after = 0
        while True:
            asked = {**self._key(), "after": after, "before": before, "rows": _EVENTS}
            found = await self._session.fetch("erase_stream", StreamRow, asked)
            if not found:
                return
            await fence.renew()
            yield found
            after = found[-1].entity_version
            self.count(read=len(found))

    async def _change(
        self, job: LifeJob | None, notice: Notice | None, rows: Sequence[StreamRow]
    ) -> Step[EraseProgress]:
        """Erase in some events, and in what names them."""
        batch = EraseBatch(self._erasure, rows, notice)

        async def work(transaction: SessionTransaction) -> None:
            if job is None:
                await batch.look(transaction)
            else:
                await batch.change(transaction)
                await job.step_in(transaction, erased=batch.events)

        await self._session.transaction(work)
        self.count(events=batch.events, messages=batch.messages, dead_letters=batch.dead_letters)
        return Step(len(rows), batch.events, [self.progress])

    async def _finish(self, job: LifeJob) -> None:
        done = plain_array(row.event_id for row in await self._unfinished())

        async def finish(transaction: SessionTransaction) -> None:
            await job.step_in(transaction)
            await transaction.execute("erasure_finish", self._key() | {"done": done})

        await self._session.transaction(finish)

    def _key(self) -> dict[str, str]:
        return {"entity_type": self._erasure.entity_type, "entity_id": self._erasure.entity_id}
