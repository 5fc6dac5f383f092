"""Forget old events: their rows go for good."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from uuid import UUID

import msgspec

from dsql_outbox.operations.pace import Pace
from dsql_outbox.operations.pages import Size, Step, change_pages, count_fitting, pack
from dsql_outbox.operations.replay import rows_estimate
from dsql_outbox.operations.run import Fence, RowFence, Run
from dsql_outbox.operations.tool import OperationEntry
from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.schema.session import Session, SessionTransaction

from .job import MAX_ROWS, LifeJob, refuse_filling
from .old_events import OldEvent, old_pages
from .stored_touches import header_keys


class ForgetProgress(msgspec.Struct, frozen=True, rename="camel"):
    """How far a forget job is.

    `read` is the number of rows that were looked at, out of about `total`; None if that is not
    known. `events` are forgotten now. `kept` are as old, but a waiting message or a dead letter
    names them.
    """

    read: int = 0
    total: int | None = None
    events: int = 0
    kept: int = 0


class ForgetRun(Run[ForgetProgress, ForgetProgress]):
    """A run of `Retention.forget`."""

    def __init__(
        self,
        session: Session,
        before: datetime,
        entry: OperationEntry,
        *,
        rate: float | None,
        dry_run: bool,
    ) -> None:
        self._session = session
        self._before = before
        self._entry = entry
        self._dry_run = dry_run
        super().__init__(ForgetProgress(), Pace(rate, gives_way=True))

    def _work(self) -> AsyncGenerator[ForgetProgress]:
        if self._dry_run:
            return change_pages(self, RowFence(), self._packed(RowFence()), self._look)
        return self._as_job()

    async def _as_job(self) -> AsyncGenerator[ForgetProgress]:
        async with LifeJob.running(self._session, "forget") as job:
            await refuse_filling(self._session)
            # Before the first row goes, so that `verify` knows why it is missing.
            # A time to come would excuse for ever what is lost later.
            await job.renew(forgotten_before=min(self._before, datetime.now(UTC)))
            change, pages = partial(self._forget, job), self._packed(job)
            async with aclosing(change_pages(self, job, pages, change)) as steps:
                async for each in steps:
                    yield each
            if not self.is_stopping:
                await job.end(has_forgotten=True)

    def _packed(self, fence: Fence) -> AsyncGenerator[Sequence[OldEvent]]:
        """The events to forget, as many at once as fit one transaction."""
        return pack(self, self._old(fence), _changes, rows=MAX_ROWS, bytes_=0)

    async def _old(self, fence: Fence) -> AsyncGenerator[Sequence[OldEvent]]:
        """The events to forget. After each page it rests for as long as the page took."""
        self.note(total=await rows_estimate(self._session, "business_events"))
        began = monotonic()
        async with aclosing(old_pages(self._session, self._before)) as pages:
            async for page in pages:
                took = monotonic() - began
                self.count(read=page.seen, kept=page.kept)
                yield page.events
                await self.pause(took)
                await fence.renew()
                began = monotonic()

    async def _look(self, some: Sequence[OldEvent]) -> Step[ForgetProgress]:
        """Count what would be forgotten."""
        self.count(events=len(some))
        return Step(len(some), 0, [self.progress])

    async def _forget(self, job: LifeJob, some: Sequence[OldEvent]) -> Step[ForgetProgress]:
        """Delete as many of the events as fit one transaction.

        Those that a row names by now are kept.
        """
        await self._entry.write()
        some = some[: self.pace.most(len(some))]
        some = some[: await self._fitting(some)]
        named = frozenset[UUID]()
        while events := [event for event in some if event.id not in named]:
            try:
                await self._session.transaction(partial(self._delete, job, events))
            except _NamedNow as error:
                named |= error.ids
            else:
                break
        self.count(events=len(events), kept=len(some) - len(events))
        return Step(len(some), len(events), [self.progress])

    async def _fitting(self, events: Sequence[OldEvent]) -> int:
        """How many of the first events one transaction may delete."""
        found = await self._session.fetch_rows("forget_counts", _ids(events))
        replays: dict[UUID, int] = dict(found)  # type: ignore[arg-type]
        sizes = ((event.rows + replays.get(event.id, 0), 0) for event in events)
        return count_fitting(sizes, rows=MAX_ROWS, bytes_=0)

    async def _delete(
        self, job: LifeJob, events: Sequence[OldEvent], transaction: SessionTransaction
    ) -> None:
        """Delete the events. Raises `_NamedNow` if a row names some by now."""
        ids = _ids(events)
        await job.step_in(transaction, forgotten=len(events))
        await transaction.fetch_rows("event_lock", ids)
        await refuse_filling(transaction)
        # After the lock: whatever names an event has committed, or waits for us.
        if named := await transaction.fetch_rows("forget_named", ids):
            raise _NamedNow(frozenset(found for (found,) in named))
        touches = [touch for event in events for touch in event.touches]
        await transaction.execute("forget_headers", header_keys(touches))
        # Not before: they keep the numbers that are used, and say where a replay waits.
        await transaction.execute("forget_replays", ids)
        await transaction.change("forget_events", ids, len(events))


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
