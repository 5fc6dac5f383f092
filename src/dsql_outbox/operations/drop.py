"""Giving up failing and dead messages."""

from collections.abc import AsyncGenerator, Sequence

import msgspec

from dsql_outbox.schema.burial import Burial, Letter
from dsql_outbox.schema.outbox_rows import RowId
from dsql_outbox.schema.session import Session

from .letters import LetterKey, letter_columns
from .pace import Pace
from .pages import Size, Step, change_pages, pack
from .requeue import MAX_BYTES, MAX_ROWS
from .run import RowFence, Run
from .selection import Selection
from .tool import OperationEntry
from .undelivered import Keyed, UndeliveredMessage, state_pages


class DropProgress(msgspec.Struct, frozen=True, rename="camel"):
    """How many messages were given up, or would be; `behind` were left alone."""

    dropped: int = 0
    behind: int = 0


class Drop(Run[DropProgress, UndeliveredMessage]):
    """A run of `Messages.drop`."""

    def __init__(  # noqa: PLR0913 - one argument per option
        self,
        session: Session,
        which: Selection,
        entry: OperationEntry,
        *,
        pace: Pace,
        limit: int | None,
        dry_run: bool,
    ) -> None:
        self._session = session
        self._which = which
        self._entry = entry
        self._limit = limit
        self._dry_run = dry_run
        self._burial = Burial(session)
        self._behind: list[UndeliveredMessage] = []
        super().__init__(DropProgress(), pace)

    def _work(self) -> AsyncGenerator[UndeliveredMessage]:
        if self._which.state == "dead":
            found = state_pages(self._session, self._which, "dead", self._limit)
            fit = pack(self, found, _size, rows=MAX_ROWS, bytes_=MAX_BYTES)
            return change_pages(self, RowFence(), fit, self._delete)
        found = state_pages(self._session, self._which, "failing", self._limit)
        return self.one_by_one(
            change_pages(self, RowFence(), found, self._bury),
            change_pages(self, RowFence(), self._behind_others(), self._bury_behind),
        )

    async def _delete(self, some: Sequence[Keyed]) -> Step[UndeliveredMessage]:
        some = some[: self.pace.most(MAX_ROWS)]
        if not self._dry_run:
            await self._entry.write()
            keys = letter_columns([LetterKey.of(each) for each in some])
            await self._session.execute("letter_delete", keys)
        return self._step(len(some), [each.message for each in some])

    async def _bury(self, some: Sequence[Keyed]) -> Step[UndeliveredMessage]:
        message = some[0].message
        if self._dry_run:
            return self._step(1, [message])
        await self._entry.write()
        if message.behind:
            self._behind.append(message)
            return Step(1, 0, ())
        return self._step(1, await self._buried(message))

    async def _behind_others(self) -> AsyncGenerator[Sequence[UndeliveredMessage]]:
        """Those that were behind another: one that was selected with it is not any more."""
        yield sorted(self._behind, key=lambda each: each.position)

    async def _bury_behind(self, some: Sequence[UndeliveredMessage]) -> Step[UndeliveredMessage]:
        message = some[0]
        if (await self._session.fetch_rows("failure_behind", message.row_key))[0][0]:
            return self._step(1, [message])
        return self._step(1, await self._buried(msgspec.structs.replace(message, behind=False)))

    async def _buried(self, message: UndeliveredMessage) -> Sequence[UndeliveredMessage]:
        row = RowId(message.shard, message.position, str(message.event_id))
        letter = Letter(row, message.error or "", message.attempts)
        return [message] * await self._burial.bury([letter])

    def _step(self, settled: int, told: Sequence[UndeliveredMessage]) -> Step[UndeliveredMessage]:
        behind = sum(each.behind for each in told)
        dropped = len(told) - behind
        self.count(dropped=dropped, behind=behind)
        return Step(settled, 0 if self._dry_run else dropped, told)


def _size(found: Keyed) -> Size:
    message = found.message
    return 1, message.payload_bytes + sum(map(len, message.headers.values()))
