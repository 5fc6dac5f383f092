"""A function of the user that runs in the transaction in which a row is deleted.

So a read model follows the events in order per subject and exactly once, without a
checkpoint: the row is the checkpoint. If another publisher settled the row, the function's
changes are rolled back.

Many messages share a transaction. One that fails it, or takes the function long, is applied
alone and on another connection after that, so that it delays its own subject only.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, TypeGuard

import anyio
import psycopg

from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.outbox.failure import CONFLICTS, kind_of
from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.first_errors import FirstErrors
from dsql_outbox.publisher.relay.memory.subjects import Subject, messages_in
from dsql_outbox.publisher.sinks.port import Answer, Delivered, Retry
from dsql_outbox.schema.outbox_rows import Fault, RowId
from dsql_outbox.schema.session import CallTimedOut, FunctionFailed

from .outcomes import Outcomes
from .state import RelayState
from .store import Store

logger: Final = logging.getLogger("dsql_outbox")

Apply = Callable[[AsyncConnection, Message], Awaitable[None]]
"""A function that gets an open transaction and the message whose row leaves the outbox."""

Start = Callable[[Callable[[], Awaitable[None]]], object]
"""Starts some work that runs beside that of the caller."""

_BATCH: Final = 64
"""The most messages of one transaction; the function changes rows of its own too, and Aurora DSQL
allows 3,000 of them in all.

After a transaction that took longer than `_LONG`, or a failure of which no message is suspect,
the next batch has half as many, and after a success twice as many.
"""

_LONG: Final = 1.0
"""Seconds of a transaction during which no failure is recorded and no row is deleted."""

_ASIDE: Final = 3
"""The most messages that are applied alone at one time, each on a connection of its own.

While as many hang, the next one that fails a batch waits. The batches go on.
"""


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
    """Applies runs of messages, in order per subject, which goes on when they have committed."""

    def __init__(
        self, state: RelayState, store: Store, function: Apply, outcomes: Outcomes
    ) -> None:
        self._state = state
        self._store = store
        self._function = function
        self._outcomes = outcomes
        self._waiting: dict[str, Subject] = {}
        """The subjects with rows for the next batches, by their keys. They take turns."""
        self._suspects: set[str] = set()
        """Those whose last row failed a batch. It steps aside when the rows before it are gone."""
        self._aside: dict[str, Subject] = {}
        """The subjects whose only row on its way is applied alone."""
        self._places = anyio.Semaphore(_ASIDE, fast_acquire=True)
        self._start: Start = _refuse_start
        self._size = _BATCH
        self._ends_at = float("inf")
        self._scopes: dict[Subject | None, anyio.CancelScope] = {}
        """Those of the transactions that run, by the subject that is aside, or None."""
        self._first = FirstErrors()

    @property
    def is_done(self) -> bool:
        """Whether no message waits to be applied."""
        return not (self._waiting or self._aside)

    @property
    def is_ready(self) -> bool:
        """Whether there is a batch to apply."""
        return bool(self._waiting)

    def begin(self, start: Start) -> None:
        """Take `start` to apply messages alone, beside the batches."""
        self._start = start

    def add(self, subject: Subject) -> None:
        """Have the run of a subject applied. The answers for all of its messages come here."""
        earlier = self._waiting.get(subject.key) or self._aside.get(subject.key)
        if earlier is subject:
            return
        if earlier is not None:  # its shard was lost and taken again meanwhile
            self._remove(earlier)
            self._outcomes.give_back(earlier)
        for row in subject.busy:
            self._state.rows.move(row, "applying")
        self._state.changes.applying += len(subject.busy)
        if subject.busy_hold is None:
            self._waiting[subject.key] = subject
        else:  # it has its time, and would maybe fail a batch again
            self._set_aside(subject)

    async def apply(self) -> None:
        """Apply one batch. Raises the driver's error if the database fails, keeping the rest."""
        if self._state.clock() >= self._ends_at:  # also if the database fails before it can be cut
            self.leave()
        elif batch := self._batch():
            await self._transaction(batch, None)

    async def _apply_aside(self, subject: Subject) -> None:
        """Apply the row of a subject that stepped aside."""
        async with self._places:
            if self._is_aside(subject):
                await self._transaction({subject.busy_row.id: subject}, subject)
        self._state.wake_waiting()
        self._state.to_settle.set()

    async def _transaction(self, batch: Mapping[RowId, Subject], aside: Subject | None) -> None:
        error: FunctionFailed | psycopg.Error | None = None
        is_applied = False
        called: list[RowId] = []
        began = self._state.clock()
        with anyio.CancelScope(deadline=self._ends_at) as self._scopes[aside]:
            try:
                calls = [self._call(row, called) for row in self._rows(batch)]
                is_applied = await self._store.apply([*batch], calls, is_aside=aside is not None)
            except (FunctionFailed, psycopg.Error) as failure:
                error = failure
        if self._scopes.pop(aside).cancelled_caught:
            if aside is None or self._is_aside(aside):  # or its shard was lost
                self.leave()
        elif is_applied:
            for subject in batch.values():
                self._settle(subject)
            if aside is None:
                self._resize(self._state.clock() - began)
        elif aside is None:
            self._narrow_down(batch, error, called)
        elif _is_outage(error):
            self._step_back(aside)
        elif self._is_aside(aside):
            self._settle_or_fail(aside, aside.busy_row.id, error)

    def _batch(self) -> dict[RowId, Subject]:
        """The messages of the next transaction."""
        batch: dict[RowId, Subject] = {}
        for key, subject in self._waiting.items():
            rows = subject.busy[:-1] if key in self._suspects else subject.busy
            batch |= {row.id: subject for row in rows[: self._size - len(batch)]}
            if len(batch) == self._size:
                break
        return batch

    def _resize(self, seconds: float) -> None:
        is_long = seconds > _LONG
        self._size = max(1, self._size // 2) if is_long else min(_BATCH, 2 * self._size)

    def _narrow_down(
        self,
        batch: Mapping[RowId, Subject],
        error: FunctionFailed | psycopg.Error | None,
        called: Sequence[RowId],
    ) -> None:
        """Make the batch smaller; of one message, act on the error. None: the row is gone."""
        row, *others = batch
        subject = batch[row]
        if error and not _is_outage(error) and self._suspect(batch, error, called):
            return
        self._size = max(1, len(batch) // 2)
        if _is_outage(error):
            # Our connection failed, which counts against no message. If this message is the
            # reason, as when it crashes the server, the others must not wait for it.
            if self._waits(subject):
                self._waiting[subject.key] = self._waiting.pop(subject.key)
            raise error
        if not others:
            self._settle_or_fail(subject, row, error)

    def _suspect(
        self, batch: Mapping[RowId, Subject], error: Exception, called: Sequence[RowId]
    ) -> bool:
        """Have the message applied alone that failed the batch, if that is known.

        The rows of its run behind it wait until it is settled. After the call for the last one,
        COMMIT may have failed. The subject of that one is then the first.
        """
        is_slow = isinstance(error, FunctionFailed) and isinstance(error.error, CallTimedOut)
        if not called or (len(batch) == 1 and not is_slow):
            return False
        row, last = called[-1], [*batch][-1]
        subject = batch[row]
        if not self._waits(subject):
            return True
        if row == last and not is_slow:
            del self._waiting[subject.key]
            self._waiting = {subject.key: subject, **self._waiting}
            return False
        self._cut(subject, 1 + [each.id for each in subject.busy].index(row))
        self._suspects.add(subject.key)
        self._step_aside_if_alone(subject)
        return True

    def _step_aside_if_alone(self, subject: Subject) -> None:
        """Apply a suspect alone, beside the batches, once no row is before it."""
        if len(subject.busy) == 1 and subject.key in self._suspects:
            self._suspects.remove(subject.key)
            self._set_aside(self._waiting.pop(subject.key))

    def _set_aside(self, subject: Subject) -> None:
        self._aside[subject.key] = subject
        self._start(partial(self._apply_aside, subject))

    def _step_back(self, subject: Subject) -> None:
        """Let a message that met an outage wait for it with the others."""
        if self._is_aside(subject):
            self._waiting[subject.key] = self._aside.pop(subject.key)

    def _is_aside(self, subject: Subject) -> bool:
        """Whether a subject is aside, and its shard was not lost meanwhile."""
        return self._aside.get(subject.key) is subject

    def stop(self, ends_at: float) -> None:
        """Leave the messages that are not applied at `ends_at`; the next publisher applies them."""
        self._ends_at = ends_at
        for scope in self._scopes.values():
            scope.deadline = ends_at

    def leave(self) -> None:
        """Give back the messages that wait, and end the transactions of those that are aside."""
        for subject in [*self._waiting.values(), *self._aside.values()]:
            self._remove(subject)
            self._outcomes.give_back(subject)

    def _rows(self, batch: Mapping[RowId, Subject]) -> Iterator[tuple[RowId, Message]]:
        """The messages of a batch, whose rows of each subject are the first ones of its run."""
        made: dict[str, Iterator[Message]] = {}
        for row, subject in batch.items():
            if subject.key not in made:
                made[subject.key] = _messages(subject)
            yield row, next(made[subject.key])

    def _call(
        self, applied: tuple[RowId, Message], called: list[RowId]
    ) -> Callable[[AsyncConnection], Awaitable[None]]:
        row, message = applied

        async def call(connection: AsyncConnection) -> None:
            called.append(row)
            await self._function(connection, message)

        return call

    def _waits(self, subject: Subject) -> bool:
        """Whether a subject was not given back during the transaction."""
        return self._waiting.get(subject.key) is subject or self._is_aside(subject)

    def _remove(self, subject: Subject) -> None:
        """Take a subject out of those that wait; the rows behind its busy row go back."""
        self._cut(subject, 1)
        self._state.changes.applying -= 1
        self._take_out(subject)
        self._suspects.discard(subject.key)
        if (scope := self._scopes.get(subject)) is not None:
            scope.cancel()

    def _take_out(self, subject: Subject) -> None:
        self._waiting.pop(subject.key, None)
        self._aside.pop(subject.key, None)

    def _cut(self, subject: Subject, at: int) -> None:
        self._state.changes.applying -= len(subject.busy) - at
        self._outcomes.cut(subject, at)

    def _settle(self, subject: Subject) -> None:
        """Let the busy row of a subject be settled; the rest of its run waits behind the others."""
        if not self._waits(subject):
            return
        self._state.changes.applying -= 1
        self._take_out(subject)
        if len(subject.busy) > 1:
            self._waiting[subject.key] = subject
        self._outcomes.note_applied(subject)
        self._step_aside_if_alone(subject)

    def _settle_or_fail(self, subject: Subject, row: RowId, error: Exception | None) -> None:
        """Act on a transaction of one message that did not commit. None: the row is gone."""
        if error is None:
            logger.info("Row of event %s was settled by another publisher", row.event_id)
            self._settle(subject)
            return
        failure = error if isinstance(error, FunctionFailed) else FunctionFailed(error)
        text = "The function to apply failed for event %s: %s (later ones are not logged)"
        self._first.log(text, FunctionFailed(failure.error), failure.error, row.event_id)
        if self._waits(subject):
            self._remove(subject)
            self._outcomes.fail(subject, Retry(failure.report))


def _is_outage(error: Exception | None) -> TypeGuard[psycopg.Error]:
    """Whether the database failed, rather than the function or its race for a row."""
    return isinstance(error, psycopg.Error) and kind_of(error) not in CONFLICTS


def _refuse_start(_: object) -> None:
    raise AssertionError("a message is applied alone only while the relay runs")


def _messages(subject: Subject) -> Iterator[Message]:
    for made in messages_in([subject], picked_up_ns=0):
        if isinstance(made, Fault):
            raise AssertionError("a row that is not a valid message was sent")  # noqa: TRY004 - a defect
        yield made
