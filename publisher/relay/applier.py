"""A function of the user that runs in the transaction in which a row is deleted.

So a read model follows the events in order per subject and exactly once, without a
checkpoint: the row is the checkpoint. If another publisher settled the row, the function's
changes are rolled back.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Final

import anyio
import psycopg

from dsql_outbox.outbox import CONFLICTS, AsyncConnection, Message, kind_of
from dsql_outbox.publisher.outbox_rows import Fault, RowId
from dsql_outbox.publisher.session import FunctionFailed
from dsql_outbox.publisher.sinks import Answer, Delivered, Retry

from .memory.subjects import Subject
from .state import RelayState
from .store import Store

logger: Final = logging.getLogger("dsql_outbox")

Apply = Callable[[AsyncConnection, Message], Awaitable[None]]
"""A function that gets an open transaction and the message whose row leaves the outbox."""

_BATCH: Final = 50
"""The most messages of one transaction; the function changes rows of its own too.

After a transaction that took longer than `_LONG`, or a failure of which no message is suspect,
the next batch has half as many, and after a success twice as many.
"""

_LONG: Final = 1.0
"""Seconds of a transaction during which no failure is recorded and no row is deleted."""

_KINDS: Final = 20
"""The most kinds of failures of a function that are logged."""


class Nowhere:
    """The sink of a publisher without a broker: every message counts as stored."""

    system = "apply"

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Answer for all messages."""
        for index in range(len(messages)):
            answer(index, Delivered())


class Applier:
    """Applies messages in order per subject, which goes on when its row has committed.

    `fail` is called for a message whose function raised an error, `recover` for one that
    failed earlier and is applied now.
    """

    def __init__(
        self,
        state: RelayState,
        store: Store,
        function: Apply,
        fail: Callable[[Subject, Retry], None],
        recover: Callable[[RowId], None],
    ) -> None:
        self._state = state
        self._store = store
        self._function = function
        self._fail = fail
        self._recover = recover
        self._waiting: dict[RowId, Subject] = {}
        self._size = _BATCH
        self._called: RowId | None = None
        """The message whose function was called last."""
        self._suspects: dict[RowId, None] = {}
        """The messages whose function failed a batch. Each is applied alone, between batches."""
        self._was_alone = True
        self._ends_at = float("inf")
        self._scope = anyio.CancelScope()
        self._told: set[str] = set()

    @property
    def waiting(self) -> int:
        """How many messages wait to be applied."""
        return len(self._waiting)

    @property
    def is_done(self) -> bool:
        """Whether no message waits to be applied."""
        return not self._waiting

    def add(self, subject: Subject) -> None:
        """Have the busy row of a subject applied."""
        row = subject.busy_row.id
        if row in self._waiting:  # its shard was lost and taken again meanwhile
            self._state.give_back(self._take(row))
        self._waiting[row] = subject
        self._state.rows.move(subject.busy_row, "applying")

    async def apply(self) -> None:
        """Apply one batch. Raises the driver's error if the database fails, keeping the rest."""
        batch = self._batch()
        if not batch:
            return
        began = self._state.clock()
        if began >= self._ends_at:  # also if the database fails at once, before it can be cut
            self._leave()
            return
        error: FunctionFailed | psycopg.Error | None = None
        is_applied = False
        with anyio.CancelScope(deadline=self._ends_at) as self._scope:
            try:
                calls = [self._call(subject) for subject in batch.values()]
                is_applied = await self._store.apply(list(batch), calls)
            except (FunctionFailed, psycopg.Error) as failure:
                error = failure
        if self._scope.cancelled_caught:
            self._leave()
        elif is_applied:
            self._applied(batch, self._state.clock() - began)
        else:
            self._not_applied(batch, error)

    def _batch(self) -> dict[RowId, Subject]:
        """The messages of the next transaction: a suspect alone, after a batch of others."""
        others = (each for each in self._waiting.items() if each[0] not in self._suspects)
        batch = dict(islice(others, self._size))
        self._was_alone = bool(self._suspects) and not (self._was_alone and batch)
        if not self._was_alone:
            return batch
        row = next(iter(self._suspects))
        return {row: self._waiting[row]}

    def _applied(self, batch: Mapping[RowId, Subject], seconds: float) -> None:
        for row in batch:
            self._settled(row)
        is_long = seconds > _LONG
        self._size = max(1, self._size // 2) if is_long else min(_BATCH, 2 * self._size)

    def _not_applied(
        self, batch: Mapping[RowId, Subject], error: FunctionFailed | psycopg.Error | None
    ) -> None:
        """Make the batch smaller; of one message, act on the error. None: the row is gone."""
        row, *others = batch
        if others and isinstance(error, FunctionFailed) and self._suspect(batch):
            return
        self._size = max(1, len(batch) // 2)
        if isinstance(error, psycopg.Error) and kind_of(error) not in CONFLICTS:
            # Our connection failed, which counts against no message. If this message is the
            # reason, as when it crashes the server, the others must not wait for it.
            self._waiting[row] = self._waiting.pop(row)
            raise error
        if others:
            return
        if error is None:
            logger.info("Row of event %s was settled by another publisher", row.event_id)
            self._settled(row)
        else:
            self._failed(row, error if isinstance(error, FunctionFailed) else FunctionFailed(error))

    def _suspect(self, batch: Mapping[RowId, Subject]) -> bool:
        """Apply the message that failed the batch alone, if that is known.

        After the call for the last one, COMMIT may have failed. That one is then called first.
        """
        called, last = self._called, [*batch][-1]
        if called is None:
            return False
        if called == last:
            self._waiting = {called: self._waiting.pop(called), **self._waiting}
            return False
        self._suspects[called] = None
        return True

    def stop(self, ends_at: float) -> None:
        """Leave the messages that are not applied at `ends_at`; the next publisher applies them."""
        self._ends_at = self._scope.deadline = ends_at

    def _leave(self) -> None:
        """Give back the messages that wait, when the time after a stop is over."""
        waiting, self._waiting = self._waiting, {}
        self._suspects.clear()
        for subject in waiting.values():
            self._state.give_back(subject)

    def _call(self, subject: Subject) -> Callable[[AsyncConnection], Awaitable[None]]:
        message, row = _message(subject), subject.busy_row.id

        async def call(connection: AsyncConnection) -> None:
            self._called = row
            await self._function(connection, message)

        return call

    def _take(self, row: RowId) -> Subject:
        """Take a message out of those that wait."""
        self._suspects.pop(row, None)
        return self._waiting.pop(row)

    def _settled(self, row: RowId) -> None:
        self._state.delivered += 1
        self._state.deleted += 1
        if self._state.finish(self._take(row), "settled"):
            self._recover(row)

    def _failed(self, row: RowId, failure: FunctionFailed) -> None:
        self._tell(row, failure)
        self._fail(self._take(row), Retry(failure.report))

    def _tell(self, row: RowId, failure: FunctionFailed) -> None:
        """Log the first failure of each kind with its traceback, but without the error's text."""
        kind = str(failure)
        if kind not in self._told and len(self._told) < _KINDS:
            self._told.add(kind)
            without_text = FunctionFailed(failure.error).with_traceback(failure.error.__traceback__)
            text = "The function to apply failed for event %s: %s (later ones are not logged)"
            logger.warning(text, row.event_id, kind, exc_info=without_text)


def _message(subject: Subject) -> Message:
    (made,) = subject.messages(picked_up_ns=0)
    if isinstance(made, Fault):
        raise AssertionError("a row that is not a valid message was sent")  # noqa: TRY004 - a defect
    return made
