"""A function of the user that runs in the transaction in which a row is deleted.

So a read model follows the events in order per subject and exactly once, without a
checkpoint: the row is the checkpoint. If another publisher settled the row, the function's
changes are rolled back.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
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

_BATCH: Final = 64
"""The most messages of one transaction; the function changes rows of its own too, and Aurora DSQL
allows 3,000 of them in all.

After a transaction that took longer than `_LONG`, or a failure of which no message is suspect,
the next batch has half as many, and after a success twice as many.
"""

_LONG: Final = 1.0
"""Seconds of a transaction during which no failure is recorded and no row is deleted."""

_KINDS: Final = 20
"""The most kinds of failures of a function that are logged."""


class Nowhere:
    """The sink of a publisher without a broker: every message counts as stored.

    It takes runs: a transaction applies several messages of one subject, in order.
    """

    system = "apply"
    keeps_prefix = True

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Answer for all messages."""
        for index in range(len(messages)):
            answer(index, Delivered())


class Applier:
    """Applies runs of messages, in order per subject, which goes on when its rows have committed.

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
        self._waiting: dict[str, Subject] = {}
        """The subjects with rows to apply, by their keys. They take turns."""
        self.waiting = 0
        """How many messages wait to be applied."""
        self._size = _BATCH
        self._called: RowId | None = None
        """The message whose function was called last."""
        self._suspects: dict[str, None] = {}
        """The subjects whose last row failed a batch. It is applied alone, between batches."""
        self._was_alone = True
        self._ends_at = float("inf")
        self._scope = anyio.CancelScope()
        self._told: set[str] = set()

    @property
    def is_done(self) -> bool:
        """Whether no message waits to be applied."""
        return not self._waiting

    def add(self, subject: Subject) -> None:
        """Have the run of a subject applied. The answers for all of its messages come here."""
        earlier = self._waiting.get(subject.key)
        if earlier is subject:
            return
        if earlier is not None:  # its shard was lost and taken again meanwhile
            self._remove(earlier)
            self._state.give_back(earlier)
        for row in subject.busy:
            self._state.rows.move(row, "applying")
        self._waiting[subject.key] = subject
        self.waiting += len(subject.busy)

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
                calls = [self._call(row) for row in self._rows(batch)]
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
        batch: dict[RowId, Subject] = {}
        for key, subject in self._waiting.items():
            others = subject.busy[:-1] if key in self._suspects else subject.busy
            batch |= {row.id: subject for row in others[: self._size - len(batch)]}
            if len(batch) == self._size:
                break
        subjects = (self._waiting[key] for key in self._suspects)
        alone = next((subject for subject in subjects if len(subject.busy) == 1), None)
        self._was_alone = alone is not None and not (self._was_alone and batch)
        if alone is None or not self._was_alone:
            return batch
        return {alone.busy_row.id: alone}

    def _applied(self, batch: Mapping[RowId, Subject], seconds: float) -> None:
        for subject in batch.values():
            self._settled(subject)
        is_long = seconds > _LONG
        self._size = max(1, self._size // 2) if is_long else min(_BATCH, 2 * self._size)

    def _not_applied(
        self, batch: Mapping[RowId, Subject], error: FunctionFailed | psycopg.Error | None
    ) -> None:
        """Make the batch smaller; of one message, act on the error. None: the row is gone."""
        row, *others = batch
        subject = batch[row]
        if others and isinstance(error, FunctionFailed) and self._suspect(batch):
            return
        self._size = max(1, len(batch) // 2)
        if isinstance(error, psycopg.Error) and kind_of(error) not in CONFLICTS:
            # Our connection failed, which counts against no message. If this message is the
            # reason, as when it crashes the server, the others must not wait for it.
            if self._waits(subject):
                self._waiting[subject.key] = self._waiting.pop(subject.key)
            raise error
        if others:
            return
        if error is None:
            logger.info("Row of event %s was settled by another publisher", row.event_id)
            self._settled(subject)
        else:
            failure = error if isinstance(error, FunctionFailed) else FunctionFailed(error)
            self._failed(subject, row, failure)

    def _suspect(self, batch: Mapping[RowId, Subject]) -> bool:
        """Apply the message that failed the batch alone, if that is known.

        The rows of its run behind it wait until it is settled. After the call for the last one,
        COMMIT may have failed. The subject of that one is then the first.
        """
        called, last = self._called, [*batch][-1]
        if called is None:
            return False
        subject = batch[called]
        if not self._waits(subject):
            return True
        if called == last:
            del self._waiting[subject.key]
            self._waiting = {subject.key: subject, **self._waiting}
            return False
        self._cut(subject, 1 + [row.id for row in subject.busy].index(called))
        self._suspects[subject.key] = None
        return True

    def stop(self, ends_at: float) -> None:
        """Leave the messages that are not applied at `ends_at`; the next publisher applies them."""
        self._ends_at = self._scope.deadline = ends_at

    def _leave(self) -> None:
        """Give back the messages that wait, when the time after a stop is over."""
        for subject in [*self._waiting.values()]:
            self._remove(subject)
            self._state.give_back(subject)

    def _rows(self, batch: Mapping[RowId, Subject]) -> Iterator[tuple[RowId, Message]]:
        """The messages of a batch, whose rows of each subject are the first ones of its run."""
        made: dict[str, Iterator[Message]] = {}
        for row, subject in batch.items():
            if subject.key not in made:
                made[subject.key] = _messages(subject)
            yield row, next(made[subject.key])

    def _call(self, applied: tuple[RowId, Message]) -> Callable[[AsyncConnection], Awaitable[None]]:
        row, message = applied

        async def call(connection: AsyncConnection) -> None:
            self._called = row
            await self._function(connection, message)

        return call

    def _waits(self, subject: Subject) -> bool:
        """Whether a subject was not given back during the transaction."""
        return self._waiting.get(subject.key) is subject

    def _remove(self, subject: Subject) -> None:
        """Take a subject out of those that wait; the rows behind its busy row go back."""
        self._cut(subject, 1)
        self.waiting -= 1
        del self._waiting[subject.key]
        self._suspects.pop(subject.key, None)

    def _cut(self, subject: Subject, at: int) -> None:
        self.waiting -= len(subject.busy) - at
        self._state.queues.cut(subject, at)

    def _settled(self, subject: Subject) -> None:
        """Let the busy row of a subject be settled; the rest of its run waits behind the others."""
        if not self._waits(subject):
            return
        self._state.delivered += 1
        self._state.deleted += 1
        self.waiting -= 1
        row = subject.busy_row.id
        del self._waiting[subject.key]
        if len(subject.busy) > 1:
            self._waiting[subject.key] = subject
        else:
            self._suspects.pop(subject.key, None)
        if self._state.finish(subject, "settled"):
            self._recover(row)

    def _failed(self, subject: Subject, row: RowId, failure: FunctionFailed) -> None:
        self._tell(row, failure)
        if self._waits(subject):
            self._remove(subject)
            self._fail(subject, Retry(failure.report))

    def _tell(self, row: RowId, failure: FunctionFailed) -> None:
        """Log the first failure of each kind with its traceback, but without the error's text."""
        kind = str(failure)
        if kind not in self._told and len(self._told) < _KINDS:
            self._told.add(kind)
            without_text = FunctionFailed(failure.error).with_traceback(failure.error.__traceback__)
            text = "The function to apply failed for event %s: %s (later ones are not logged)"
            logger.warning(text, row.event_id, kind, exc_info=without_text)


def _messages(subject: Subject) -> Iterator[Message]:
    for made in subject.messages(picked_up_ns=0):
        if isinstance(made, Fault):
            raise AssertionError("a row that is not a valid message was sent")  # noqa: TRY004 - a defect
        yield made
