"""Erase what is stored of one entity: in its events and their messages."""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from hashlib import sha256
from typing import Final, Protocol
from uuid import UUID

import msgspec

from dsql_outbox.operations.pace import Pace
from dsql_outbox.operations.pages import Step, change_pages, pack
from dsql_outbox.operations.run import Fence, RowFence, Run
from dsql_outbox.operations.tool import OperationEntry
from dsql_outbox.outbox.database.array_literals import plain_array
from dsql_outbox.outbox.errors import JobRefused, SettingsError
from dsql_outbox.outbox.event.erasure import EntityErasure
from dsql_outbox.outbox.message import subject_key
from dsql_outbox.schema.session import Session, SessionTransaction

from .erased_rows import EraseBatch, Notice, StreamRow
from .job import LifeJob

_EVENTS: Final = 300
_EVENT_BYTES: Final = 2 << 20
_encode: Final = msgspec.json.Encoder().encode

_PSEUDONYM: Final = re.compile("erased-([0-9a-f]{32})")


def erasure_id(event_id: UUID, erasure: EntityErasure, *, ids: bool) -> UUID:
    """The id of an erasure: that of its event, and a hash of what is erased.

    So the same command can go on with it, though the row does not say what is erased.
    """
    fields = None if erasure.fields is None else erasure.fields.texts
    return UUID(bytes=sha256(event_id.bytes + _encode([fields, ids])).digest()[:16])


def pseudonym_of(erasure: UUID) -> str:
    """The pseudonym that an erasure gives to an entity."""
    return f"erased-{erasure.hex}"


class EraseProgress(msgspec.Struct, frozen=True, rename="camel"):
    """How far an erasure is.

    `read` events of the entity were looked at, of `total`. `events` of them were changed, with
    `messages` in the outbox and `dead_letters`.
    `version` is that of the event that says so; None if nothing was to be erased. `entity_id` is
    the pseudonym, if there is one.
    """

    read: int = 0
    total: int = 0
    events: int = 0
    messages: int = 0
    dead_letters: int = 0
    version: int | None = None
    entity_id: str | None = None


class Announce(Protocol):
    """Writes the event that says that an entity is erased, and records the erasure.

    If the entity gets a pseudonym, its id is closed: the given pseudonym, or else a new one.
    """

    async def __call__(self, pseudonym: str | None, *, renames: bool) -> None:
        """Do so in one transaction."""


class EraseRun(Run[EraseProgress, EraseProgress]):
    """A run of `Erasures.erase`."""

    def __init__(  # noqa: PLR0913 - one argument per option
        self,
        session: Session,
        erasure: EntityErasure,
        entry: OperationEntry,
        announce: Announce,
        *,
        ids: bool,
        rate: float | None,
        dry_run: bool,
    ) -> None:
        self._session = session
        self._erasure = erasure
        self._entry = entry
        self._announce = announce
        self._ids = ids
        self._renames = ids
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
            if self._ids:
                await self._refuse_unfinished_pseudonym()
            self._renames = self._ids and not await self._is_renamed()
            notice = await self._noticed(job)
            if notice is None:
                return
            if self._renames:
                self._erasure = self._erasure._replace(pseudonym=await self._pseudonym())
            self._count(version=notice.version, entity_id=self._erasure.pseudonym)
            self._count(read=-self.progress.read)
            # The event that says so gets the pseudonym, too.
            before = notice.version + 1 if self._renames else notice.version
            async with aclosing(self._pass(before, job, notice)) as steps:
                async for each in steps:
                    yield each
            if not self.is_stopping:
                await self._finish(job, notice)
                yield self.progress

    async def _noticed(self, job: LifeJob) -> Notice | None:
        """The notice of this erasure, or of an unfinished one.

        None if nothing is to be erased, or if the run is stopped before it is written.
        """
        version, state = await self._state()
        if version == 0:
            return None
        is_clean = self._erasure.of_state(state) is None
        unfinished = await self._unfinished()
        # The event of an unfinished one closed the id, so a state that is new is another entity's.
        if not unfinished or not (is_clean or self._renames):
            if is_clean and not self._renames and not await self._finds_any(version):
                return None
            if self.is_stopping:
                return None
            await job.renew()
            await self._entry.write()
            pseudonym = await self._pseudonym() if self._renames else None
            await self._announce(pseudonym, renames=self._renames)
            unfinished = await self._unfinished()
        return unfinished[0]

    async def _refuse_unfinished_pseudonym(self) -> None:
        """Raise `JobRefused` if an entity is still on its way to this id: half would follow it."""
        found = _PSEUDONYM.fullmatch(self._erasure.entity_id)
        if found is None:
            return
        asked = self._key() | {"id": UUID(found[1])}
        ((is_unfinished,),) = await self._session.fetch_rows("erasure_of_pseudonym", asked)
        if is_unfinished:
            raise JobRefused(
                "the erasure that gives an entity this id is not finished: finish it first"
            )

    async def _is_renamed(self) -> bool:
        """Whether the id is the pseudonym of an erasure that is not finished."""
        name = self._erasure.entity_id
        rows = await self._session.fetch("erasure_list", Notice, self._key())
        return any(pseudonym_of(row.id) == name for row in rows if not row.is_finished)

    async def _unfinished(self) -> Sequence[Notice]:
        """The unfinished erasures of the same fields, the latest first."""
        rows = await self._session.fetch("erasure_list", Notice, self._key())
        return [
            row
            for row in rows
            if not row.is_finished
            and row.id == erasure_id(row.event_id, self._erasure, ids=self._ids)
        ]

    async def _pseudonym(self) -> str | None:
        """The pseudonym to which an unfinished erasure moves the entity; None if it has none.

        The erasure that gave the entity this id stands under it, and moves nothing any more.
        """
        for row in await self._session.fetch("erasure_list", Notice, self._key()):
            named = self._key() | {"entity_id": pseudonym_of(row.id)}
            if named != self._key() and await self._session.fetch_rows("entity_version", named):
                return named["entity_id"]
        return None

    async def _finds_any(self, version: int) -> bool:
        is_found = False
        async with aclosing(self._pass(version + 1)) as steps:
            async for done in steps:
                if is_found := bool(done.events or done.messages or done.dead_letters):
                    break
        self.progress = EraseProgress(total=self.progress.total)
        return is_found

    async def _state(self) -> tuple[int, str]:
        """The version and the state. Version 0: it may have got a pseudonym, which is not known."""
        rows = await self._session.fetch_rows("entity_state", self._key())
        if not rows and self._ids:
            return 0, "{}"
        if not rows:
            name = subject_key(*self._erasure[:2])
            raise SettingsError(f"no event has touched entity {name} of {self._session.schema}")
        return rows[0][0], rows[0][1]

    async def _pass(
        self, before: int, job: LifeJob | None = None, notice: Notice | None = None
    ) -> AsyncGenerator[EraseProgress]:
        """Erase in all events before a version. Without a job, only count what would be."""
        self._count(total=before - 1 - self.progress.total)
        fence = job or RowFence()
        change = partial(self._change, job, notice)
        most = self.pace.most(_EVENTS)
        rows = self._stream(fence, before)
        events = pack(self, rows, StreamRow.changes, rows=most, bytes_=_EVENT_BYTES)
        async with aclosing(change_pages(self, fence, events, change, most)) as steps:
            async for each in steps:
                yield each

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
            self._count(read=len(found))

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
        self._count(events=batch.events, messages=batch.messages, dead_letters=batch.dead_letters)
        return Step(len(rows), batch.events, [self.progress])

    async def _finish(self, job: LifeJob, notice: Notice) -> None:
        key = self._key()
        done = plain_array(row.id for row in await self._unfinished())
        row = {**key, "new_id": self._erasure.pseudonym, "version": notice.version}

        async def finish(transaction: SessionTransaction) -> None:
            await job.step_in(transaction)
            is_moved = self._renames and await transaction.execute("erase_entity_open", row)
            if is_moved:
                await transaction.execute("erase_entity_delete", row)
            new_id = self._erasure.pseudonym if is_moved else key["entity_id"]
            await transaction.execute("erasure_finish", {**row, "done": done, "new_id": new_id})

        await self._session.transaction(finish)

    def _key(self) -> dict[str, str]:
        return {"entity_type": self._erasure.entity_type, "entity_id": self._erasure.entity_id}

    def _count(
        self, *, version: int | None = None, entity_id: str | None = None, **more: int
    ) -> None:
        sums = {name: getattr(self.progress, name) + count for name, count in more.items()}
        if version is not None:
            sums |= {"version": version}
        self.progress = msgspec.structs.replace(
            self.progress, **sums, entity_id=entity_id or self.progress.entity_id
        )
