"""A function of the user that runs in the transaction in which a row is deleted.

So a read model follows the events in order per subject and exactly once, without a
checkpoint: the row is the checkpoint. If another publisher settled the row, the function's
changes are rolled back.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import psycopg

from dsql_outbox.outbox import PASSING, AsyncConnection, Message, kind_of
from dsql_outbox.publisher.outbox_rows import Fault, RowId
from dsql_outbox.publisher.sinks import Answer, Delivered, Retry

from .memory.subjects import Subject
from .state import RelayState
from .store import Store

logger: Final = logging.getLogger("dsql_outbox")

Apply = Callable[[AsyncConnection, Message], Awaitable[None]]
"""A function that gets an open transaction and the message whose row leaves the outbox."""

_BATCH: Final = 50
"""The most messages of one transaction; the function changes rows of its own too."""


class Nowhere:
    """The sink of a publisher without a broker: every message counts as stored."""

    system = "apply"

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Answer for all messages."""
        for index in range(len(messages)):
            answer(index, Delivered())


class Applier:
    """Applies messages that the broker has; a subject goes on when its row has committed.

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

    @property
    def is_done(self) -> bool:
        """Whether no message waits to be applied."""
        return not self._waiting

    def add(self, subject: Subject) -> None:
        """Have the busy row of a subject applied."""
        row = subject.busy_row.id
        if row in self._waiting:  # its shard was lost and taken again meanwhile
            self._state.give_back(self._waiting[row])
        self._waiting[row] = subject

    async def apply(self) -> None:
        """Apply the waiting messages. Raises the driver's error if it passes, keeping the rest."""
        while self._waiting:
            batch = list(self._waiting.items())[:_BATCH]
            if not await self._try(batch):
                for row, _ in batch:
                    await self._alone(row)

    async def _try(self, batch: Sequence[tuple[RowId, Subject]]) -> bool:
        """Apply all in one transaction. Returns False if that cannot be, and nothing changed."""
        try:
            is_applied = await self._store.apply([row for row, _ in batch], self._work(batch))
        except psycopg.Error as error:
            if kind_of(error) in PASSING:
                raise
            return False
        except Exception:  # noqa: BLE001 - the message at fault is found when each goes alone
            return False
        if is_applied:
            for row, _ in batch:
                self._settled(row)
        return is_applied

    async def _alone(self, row: RowId) -> None:
        work = self._work([(row, self._waiting[row])])
        try:
            if not await self._store.apply([row], work):
                logger.info("Row of event %s was settled by another publisher", row.event_id)
            self._settled(row)
        except psycopg.Error as error:
            if kind_of(error) in PASSING:
                raise
            self._failed(row, f"{type(error).__name__} ({error.sqlstate})")
        except Exception as error:  # noqa: BLE001 - it becomes the failure of the message
            self._failed(row, type(error).__name__)

    def _work(
        self, batch: Sequence[tuple[RowId, Subject]]
    ) -> Callable[[AsyncConnection], Awaitable[None]]:
        messages = [_message(subject) for _, subject in batch]

        async def work(connection: AsyncConnection) -> None:
            for message in messages:
                await self._function(connection, message)

        return work

    def _settled(self, row: RowId) -> None:
        state, subject = self._state, self._waiting.pop(row)
        state.delivered += 1
        state.deleted += 1
        hold = subject.hold
        state.queues.settled([state.queues.delivered(subject)])
        if hold is not None and hold.id == row:
            state.let_go(subject, row)
            self._recover(row)
        state.go_on(subject)
        state.released(row.shard)

    def _failed(self, row: RowId, reason: str) -> None:
        subject = self._waiting.pop(row)
        if subject.shard.is_lost:
            self._state.give_back(subject)
        else:
            self._fail(subject, Retry(f"the function to apply raised {reason}"))


def _message(subject: Subject) -> Message:
    made = subject.message(picked_up_ns=0)
    if isinstance(made, Fault):
        raise AssertionError("a row that is not a valid message was sent")  # noqa: TRY004 - a defect
    return made
