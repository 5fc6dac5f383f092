"""Retry of failing and dead messages.

One retry, ``dsql-outbox messages retry`` or `Messages.retry`:

1. `state_pages` reads the selected failing messages, and `_forget` deletes the failure of each. The
   row in the outbox stays as it is.
2. Nobody tells the publisher. `Reader._check` compares its failed rows with the table every 10 s,
   finds the failure gone, and lets the row be sent with all its attempts.
3. `_dead` sorts the dead messages by the version of their subject. The loop of `pages` gives the
   next ones to `Requeue.change`, which takes as many as one transaction and the rate allow.
4. Each `change` is one transaction, which the budget `OPERATOR` tries again. `candidates` reads the
   letters and the last position of each subject, `Positions.place` gives each message a position
   behind that one, and `put` inserts the outbox rows and deletes the letters.
5. Each change must meet as many rows as were read. Fewer mean that another operator was first
   (`Moved`): the transaction is tried again and finds less.
6. `MessageResult` tells the result of each message after its transaction. The publisher finds the
   new rows as it finds those of a writer.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from dsql_outbox.schema.outbox_rows import RowId, row_keys
from dsql_outbox.schema.session import Session

from .letters import LetterKey, Letters
from .pace import Pace
from .pages import Step, change_pages
from .requeue import MAX_ROWS, MessageResult, Requeue, RequeueProgress
from .run import RowFence, Run
from .selection import Selection
from .tool import OperationEntry
from .undelivered import Keyed, UndeliveredMessage, state_pages

MAX_RETRIED: Final = 100_000
"""Most messages of one run of `Messages.retry`; their keys are held in memory to sort them."""


class RetryProgress(RequeueProgress, frozen=True, rename="camel"):
    """How many messages of a retry have each result."""

    retried: int = 0


class Retry(Run[RetryProgress, MessageResult]):
    """A run of `Messages.retry`: first the failing messages, and then the dead ones."""

    def __init__(  # noqa: PLR0913 - one argument per option
        self,
        session: Session,
        which: Selection,
        entry: OperationEntry,
        *,
        pace: Pace,
        limit: int,
        dry_run: bool,
    ) -> None:
        self._session = session
        self._which = which
        self._entry = entry
        self._left = min(limit, MAX_RETRIED)
        self._dry_run = dry_run
        self._requeue = Requeue(session, Letters(), entry, dry_run=dry_run)
        super().__init__(RetryProgress(), pace)

    def _work(self) -> AsyncGenerator[MessageResult]:
        failing = state_pages(self._session, self._which, "failing", self._left)
        return self.one_by_one(
            change_pages(self, RowFence(), failing, self._forget),
            change_pages(self, RowFence(), self._dead(), self._send),
        )

    async def _forget(self, some: Sequence[Keyed]) -> Step[MessageResult]:
        """Delete a failure; the publisher notices, because `Reader._check` compares every 10 s."""
        message = some[0].message
        if not self._dry_run:
            await self._entry.write()
            row = RowId(message.shard, message.position, str(message.event_id))
            if not await self._session.execute("failure_forget", row_keys([row])):
                return Step(1, 0, ())
        self._left -= 1
        return self._count(Step(1, int(not self._dry_run), [self._told(message)]))

    async def _dead(self) -> AsyncGenerator[Sequence[LetterKey]]:
        """The keys of the dead messages, by version of their subject, oldest first."""
        found: list[tuple[int, LetterKey]] = []
        async with aclosing(state_pages(self._session, self._which, "dead", self._left)) as pages:
            async for page in pages:
                if self.is_stopping:
                    return
                found += [(each.message.subject_version, LetterKey.of(each)) for each in page]
        yield [key for _, key in sorted(found)]

    async def _send(self, some: Sequence[LetterKey]) -> Step[MessageResult]:
        return self._count(await self._requeue.change(some, self.pace.most(MAX_ROWS)))

    def _count(self, step: Step[MessageResult]) -> Step[MessageResult]:
        self.count(**Counter[str](each.status for each in step.told))
        return step

    def _told(self, message: UndeliveredMessage) -> MessageResult:
        return MessageResult(
            message.event_id,
            "planned" if self._dry_run else "retried",
            message.subject,
            type=message.type,
            topic=message.topic,
            shard=message.shard,
            at=message.created_at,
        )
