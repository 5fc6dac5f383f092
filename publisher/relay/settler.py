"""Settle: delete acknowledged rows, record failures, and bury messages that were given up."""

import logging
import math
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

import anyio
import psycopg

from dsql_outbox.outbox.errors import OutboxError
from dsql_outbox.outbox.failure import LASTING, kind_of, text_of
from dsql_outbox.outbox.settings import MAX_TRANSACTION_ROWS
from dsql_outbox.publisher.relay.memory.subjects import Hold, Subject
from dsql_outbox.publisher.tuned_settings import LONG_GATHER, TunedSettings
from dsql_outbox.schema.outbox_rows import OutboxRow, RowId

from .outcomes import Outcomes
from .state import RelayState, outage_wait
from .store import Store

if TYPE_CHECKING:
    from .applier import Applier

logger: Final = logging.getLogger("dsql_outbox")

_REST: Final = 4
"""A turn begins this many times later than the one before took, `LONG_GATHER` at most: a database
that is slow now gets fewer statements, each for more rows."""

_AGAIN: Final = 0.1
"""Seconds between two tries to settle the rest at the end."""

_BYTES: Final = 8 << 20
"""The most bytes of the rows in one statement.

Aurora DSQL allows 10 MiB of changes per transaction, including its own data per row.
It is not known whether deleted rows count. If they do, a larger delete could never
succeed, and the relay would stop.
"""


class Settler:
    """Brings the tables up to date, in as few statements as possible.

    An acknowledged row is remembered until it is deleted, so a database failure in between
    causes no second delivery. The DELETE is right even if another publisher owns the shard by
    then: the row's whole key names one message, and the broker has it. A failure is recorded,
    and a message buried, only while the lease lasts under which its row was read.
    """

    def __init__(
        self, state: RelayState, store: Store, settings: TunedSettings, outcomes: Outcomes
    ) -> None:
        self._state = state
        self._changes = state.changes
        self._store = store
        self._settings = settings
        self._outcomes = outcomes
        self._settled_at = float("-inf")
        self._took = 0.0
        """Seconds of the last turn."""
        self.applier: Applier | None = None
        self.failing_since: float | None = None
        """The time since when the database takes no changes, or None."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to settle."""
        return not self._is_ready and self._is_applied

    @property
    def _is_ready(self) -> bool:
        """Whether `settle` has something to do."""
        has_batch = self.applier is not None and self.applier.is_ready
        return has_batch or not self._changes.are_none

    @property
    def _is_applied(self) -> bool:
        """Whether no message waits to be applied; `Applier.stop` gives them until a time."""
        return self.applier is None or self.applier.is_done

    async def run(self) -> None:
        """Settle until the last call of the sink has ended, and no message waits to be applied.

        Raises lasting errors.
        """
        state = self._state
        while not self._is_over:
            await self._gather()
            try:
                await self.settle()
                self._took = state.clock() - self._settled_at
                self.failing_since = None
            except psycopg.Error as error:
                if kind_of(error) in LASTING:
                    raise
                if self.failing_since is None:
                    self.failing_since = state.clock()
                logger.warning("Relay waits for the database: %s", text_of(error))
                await state.to_stop.wait(outage_wait(state.clock() - self.failing_since))

    @property
    def _is_over(self) -> bool:
        """Whether nothing more can come, and all messages are applied."""
        return self._state.is_drained and self._is_applied

    async def _gather(self) -> None:
        """Wait for something to settle, then until a turn is worth its statements."""
        state = self._state
        while not (self._is_ready or self._is_over):
            await state.to_settle.wait(float("inf"))
        until = self._settled_at + max(self._settings.gather, min(LONG_GATHER, _REST * self._took))
        while not self._is_urgent and (wait := until - state.clock()) > 0:
            await state.to_settle.wait(wait)
        self._settled_at = state.clock()

    @property
    def _is_urgent(self) -> bool:
        """Whether a batch is full, or something waits for this turn."""
        state = self._state
        deletes, shares = self._changes.deletes, state.rows.shares
        if deletes >= self._settings.batch_rows or state.is_stopping:
            return True
        if shares.waits_for_deletion or (state.ends_when_empty and shares.rows == deletes):
            return True
        return bool(self._changes.letters) or (self.applier is not None and self.applier.is_ready)

    async def settle_all(self) -> None:
        """Settle the rest, again and again until the database answers. Raises lasting errors."""
        while not self.is_done:
            try:
                await self.settle()
            except psycopg.Error as error:
                if kind_of(error) in LASTING:
                    raise
                await anyio.sleep(_AGAIN)

    async def settle(self) -> None:
        """Settle one batch of each kind. Raises an error of the database, and keeps the rest.

        If the database refuses one kind, the other kinds are settled.
        """
        error: psycopg.Error | OutboxError | None = None
        # `_forget` is behind `_record`: a row may recover while its failure is being recorded.
        kinds = [self._record, self._bury, self._apply, self._delete, self._forget]
        for settle_kind in kinds:
            try:
                await settle_kind()
            except (psycopg.Error, OutboxError) as failure:
                error = error or failure
        self._state.wake_waiting()
        if error is not None:
            raise error

    async def _record(self) -> None:
        failures = self._changes.failures
        if not failures:
            return
        batch = dict(islice(failures.items(), MAX_TRANSACTION_ROWS))
        # A failure in a shard that was lost meanwhile is left to the new owner.
        ours = [each for each in batch.values() if self._outcomes.has_lease(each[2].shard)]
        if ours:
            await self._store.record([failure for failure, _, _ in ours])
            logger.debug("Recorded the failures of %d rows", len(ours))
        for _, hold, _ in ours:
            hold.is_stored = True
        for row, each in batch.items():
            if failures.get(row) is each:  # else it failed again, or recovered, meanwhile
                del failures[row]
                self._try_blocked(each[1], each[2])
        self._state.rows.on_idle()

    def _try_blocked(self, hold: Hold, subject: Subject) -> None:
        """Have a blocked row tried again that no table knows.

        The lease ended for a moment. If it is renewed before the reader gives up the shard,
        nobody else finds the row, and no operator sees it.
        """
        if not hold.is_stored and hold.retry_at == math.inf:
            hold.retry_at = self._state.clock()
            self._state.retry_times.add(subject, hold)
            self._state.to_read.set()

    async def _bury(self) -> None:
        letters, outcomes = self._changes.letters, self._outcomes
        if not letters:
            return
        rows = {row: subject.busy_row for row, (_, subject) in letters.items()}
        # A row of each of three tables changes, and the payload is in two of them.
        batch = _rows_that_fit(rows, MAX_TRANSACTION_ROWS // 3, _BYTES // 2)
        lost = [row for row in batch if not outcomes.has_lease(letters[row][1].shard)]
        for row in lost:  # the new owner finds it
            outcomes.give_back(letters.pop(row)[1])
        ours = [letters[row][0] for row in batch if row in letters]
        if ours:
            await self._store.bury(ours)
            logger.debug("Buried %d rows", len(ours))
        for letter in ours:
            outcomes.note_buried(letters.pop(letter.row)[1])

    async def _apply(self) -> None:
        if self.applier is not None:
            await self.applier.apply()

    async def _forget(self) -> None:
        recovered = list(islice(self._changes.recovered, MAX_TRANSACTION_ROWS))
        if recovered:
            await self._store.forget(recovered)
            self._changes.recovered.difference_update(recovered)

    async def _delete(self) -> None:
        changes, move = self._changes, self._state.rows.move
        rows = changes.acknowledged
        share = 2 if changes.parts else 1  # so that neither kind waits for the other
        batch = _rows_that_fit(rows, MAX_TRANSACTION_ROWS // share, _BYTES // share)
        ids, parts = [*batch], 0
        size = sum(rows[row].size for row in batch)
        for part in changes.parts:
            size += part.size
            if ids and (len(ids) + len(part) > MAX_TRANSACTION_ROWS or size > _BYTES):
                break
            ids += part.ids
            parts += 1
        if not ids:
            return
        deleted = await self._store.delete(ids)
        self._state.deleted += deleted
        logger.debug("Deleted %d rows, of %d that were to be", deleted, len(ids))
        for part in changes.note_deleted(parts):
            self._state.rows.move(part, "settled")
        for row in batch:
            move(rows.pop(row), "settled")


def _rows_that_fit(rows: Mapping[RowId, OutboxRow], most: int, size: int) -> list[RowId]:
    """The first rows that fit into one transaction, at least one."""
    chosen: list[RowId] = []
    total = 0
    for row, each in islice(rows.items(), most):
        total += each.size
        if chosen and total > size:
            break
        chosen.append(row)
    return chosen
