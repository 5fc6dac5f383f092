"""A relay of one publisher that owns all shards: it reads all, sends, settles, again and again.

It is slow, but right, so what the simulation finds wrong with it is wrong with the
simulation. The tests plant faults in it that the simulation must find.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any

import anyio
import psycopg
from benchmarks.simulation.publishers import Parts

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher.burial import Letter
from dsql_outbox.publisher.outbox_rows import OutboxRow, RowId
from dsql_outbox.publisher.relay.store import HEAD, Failure, PassedOver, Range
from dsql_outbox.publisher.sinks.port import Delivered, Outcome, Rejected, Retry

_BATCH = 1000


class NaiveRelay:
    """One publisher of a simulation."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._stopped = False
        self._attempts: dict[RowId, int] = {}

    async def run(self) -> None:
        """Relay until `stop`."""
        while not self._stopped:
            try:
                await self.relay()
            except psycopg.Error:
                await anyio.sleep(1)
            await anyio.sleep(0.05)

    def stop(self) -> None:
        """Let `run` return."""
        self._stopped = True

    async def relay(self) -> None:
        """Read all rows, send the first of each subject, and settle what was answered."""
        store, shards = self._parts.store, self._parts.shards
        failed = {each.row: each for each in await store.failures(shards)}
        self._attempts = {row: each.attempts for row, each in failed.items()}
        ranges = [Range(shard, HEAD, _BATCH, 1 << 20, _BATCH) for shard in shards]
        read = await store.read(ranges, PassedOver({}, ()))
        rows = [
            row
            for row in self.first(row for each in read.ranges for row in each.rows)
            if row.id not in failed or failed[row.id].seconds <= 0
        ]
        outcomes = await self.send(rows)
        await self.settle(outcomes, self._attempts)

    def first(self, rows: Iterable[OutboxRow]) -> list[OutboxRow]:
        """The rows that no other row of their subject precedes."""
        return list({row.key: row for row in reversed(list(rows)) if not row.waits}.values())

    async def send(self, rows: list[OutboxRow]) -> dict[RowId, Outcome]:
        """Send rows; returns what was answered."""
        outcomes: dict[RowId, Outcome] = {}
        sent: list[tuple[RowId, Message]] = []
        for row in rows:
            attempt = self._attempts.get(row.id, 0) + 1
            message = row.message(attempt=attempt, picked_up_ns=0, epoch=self.epoch(row))
            if isinstance(message, Message):
                sent.append((row.id, message))
            else:
                outcomes[row.id] = Rejected(message.reason)

        def answer(index: int, outcome: Outcome) -> None:
            outcomes[sent[index][0]] = outcome

        try:
            if sent:
                await self._parts.sink.publish([message for _, message in sent], answer)
        except SinkUnavailable as error:
            self.unavailable(error, (row for row, _ in sent), outcomes)
        return outcomes

    def epoch(self, _: OutboxRow) -> int:
        """The epoch of the lease of a row's shard."""
        return 0

    def unavailable(
        self, error: SinkUnavailable, sent: Iterable[RowId], outcomes: dict[RowId, Outcome]
    ) -> None:
        """Note that the broker was away: what has no answer is sent again."""

    async def settle(self, outcomes: dict[RowId, Outcome], attempts: dict[RowId, int]) -> None:
        """Delete, record or bury what was answered."""
        settings, store = self._parts.settings, self._parts.store
        failures: list[Failure] = []
        letters: list[Letter] = []
        for row, outcome in outcomes.items():
            count = attempts.get(row, 0) + 1
            if isinstance(outcome, Rejected) or (
                isinstance(outcome, Retry) and count >= settings.attempts
            ):
                if settings.on_dead_letter == "block":
                    failures.append(Failure(row, outcome.error, count, None))
                else:
                    letters.append(Letter(row, outcome.error, count))
            elif isinstance(outcome, Retry):
                wait = settings.for_topic("").backoff(count)
                failures.append(Failure(row, outcome.error, count, wait))
        await self.repeated(store.record, failures)
        await self.repeated(store.bury, letters)
        await self.repeated(store.delete, [r for r, o in outcomes.items() if o == Delivered()])

    async def repeated(
        self, statement: Callable[[Collection[Any]], Awaitable[object]], rows: Collection[Any]
    ) -> None:
        """Run a statement until it is answered: what was acknowledged must not be forgotten."""
        while rows:
            try:
                await statement(rows)
            except psycopg.Error:
                await anyio.sleep(1)
            else:
                return
