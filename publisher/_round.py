"""One relay round: read, publish, settle."""

import math
from collections.abc import Mapping, Sequence
from time import monotonic, time_ns
from typing import Final

import msgspec

from dsql_outbox.outbox import Message, SinkUnavailable

from ._cursors import Cursors
from ._leases import Leases
from ._rows import OutboxRow, RowId
from ._select import Hold, select
from ._settings import PublisherSettings
from ._store import Store
from ._waves import Waves, publish_in_waves
from .sinks import Delivered, NotAttempted, Outcome, Rejected, Retry, Sink

_ERROR_LENGTH: Final = 1_000


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What one round did, in messages.

    `held` rows wait behind others of their subject. `behind` tells that more
    rows are known to be there; `unavailable` is what a broker that could not be
    reached said.
    """

    read: int = 0
    delivered: int = 0
    failed: int = 0
    dead: int = 0
    held: int = 0
    behind: bool = False
    unavailable: SinkUnavailable | None = None


class Relay:
    """Relays the rows of the shards that are ours; holds what is remembered between rounds."""

    def __init__(
        self,
        store: Store,
        sink: Sink,
        settings: PublisherSettings,
        leases: Leases,
    ) -> None:
        self._store = store
        self._sink = sink
        self._settings = settings
        self._leases = leases
        self._epochs: dict[int, int] = {}
        self._holds: dict[str, Hold] = {}
        self._cursors = Cursors(rows=settings.batch_rows, head_interval=settings.head_interval)
        self._acknowledged: set[RowId] = set()

    async def round(self) -> Round:
        """Do one round; raises the driver's error if the database fails.

        What the broker has acknowledged is remembered until its row is deleted,
        so a database that fails in between causes no second delivery. Deleting
        it is right whoever owns the shard by then: the row's whole key names
        one message, and the broker has it.
        """
        await self._delete_acknowledged()
        with self._leases.round() as epochs:
            await self._follow(epochs)
            return await self._relay() if epochs else Round()

    async def _follow(self, epochs: Mapping[int, int]) -> None:
        """Forget shards that were lost, if only for a while, and begin with those gained."""
        lost = {s for s, epoch in self._epochs.items() if epochs.get(s) != epoch}
        self._cursors.drop(lost)
        self._holds = {k: hold for k, hold in self._holds.items() if hold.id.shard not in lost}
        self._epochs = {s: epoch for s, epoch in self._epochs.items() if s not in lost}
        if gained := epochs.keys() - self._epochs.keys():
            self._holds |= await self._store.holds(gained)
            self._cursors.add(gained)
            self._epochs = dict(epochs)

    async def _relay(self) -> Round:
        rows = await self._read()
        now = monotonic()
        selection = select(rows, self._holds, self._acknowledged, now)
        self._cursors.rewind(selection.rewind)
        waves = await self._publish(selection.rows)
        failed, dead = await self._settle(selection.rows, waves.outcomes)
        return Round(
            read=len(rows),
            delivered=sum(isinstance(outcome, Delivered) for outcome in waves.outcomes),
            failed=failed,
            dead=dead,
            held=selection.held,
            behind=self._cursors.behind,
            unavailable=waves.unavailable,
        )

    async def _read(self) -> list[OutboxRow]:
        now = monotonic()
        starts = self._cursors.starts(now)
        limits = {shard: self._cursors.limit(shard) for shard in starts}
        byte_limit = self._settings.batch_bytes // len(starts)
        rows = await self._store.read(starts, limits, byte_limit)
        self._cursors.advance(starts, limits, rows, now)
        return rows

    async def _publish(self, rows: Sequence[OutboxRow]) -> Waves:
        shards = [row.shard for row in rows]
        waves = await publish_in_waves(self._sink, self._messages(rows), shards, self._leases)
        if waves.unavailable is not None:
            self._leases.sink_failed()
        elif rows:
            self._leases.sink_worked()
        return waves

    def _messages(self, rows: Sequence[OutboxRow]) -> list[Message]:
        picked_up = time_ns()
        return [
            row.message(
                attempt=self._attempt(row),
                picked_up_ns=picked_up,
                epoch=self._epochs[row.shard],
            )
            for row in rows
        ]

    def _attempt(self, row: OutboxRow) -> int:
        hold = self._holds.get(row.key)
        return hold.attempts + 1 if hold is not None and hold.id == row.id else 1

    async def _settle(
        self, rows: Sequence[OutboxRow], outcomes: Sequence[Outcome]
    ) -> tuple[int, int]:
        """Delete what was delivered, and record what failed; returns (failed, dead).

        A failure in a shard that was lost meanwhile is its new owner's to find.
        """
        ours = self._leases.sendable()
        failed = dead = 0
        recovered: list[RowId] = []
        for row, outcome in zip(rows, outcomes, strict=True):
            match outcome:
                case Delivered():
                    self._acknowledged.add(row.id)
                    if self._attempt(row) > 1:
                        del self._holds[row.key]
                        recovered.append(row.id)
                case Retry(error) | Rejected(error) if row.shard in ours:
                    final = isinstance(outcome, Rejected)
                    died = await self._fail(row, error[:_ERROR_LENGTH], final=final)
                    dead += died
                    failed += not died
                case Retry() | Rejected() | NotAttempted():
                    pass
        await self._delete_acknowledged()
        if recovered:
            await self._store.forget_failures(recovered)
        return failed, dead

    async def _fail(self, row: OutboxRow, error: str, *, final: bool) -> bool:
        """Let the row's subject wait, or give the row up; returns whether it died."""
        settings, attempts = self._settings, self._attempt(row)
        exhausted = final or attempts >= settings.attempts
        if exhausted and settings.on_dead_letter == "release":
            await self._store.bury(row.id, error=error, attempts=attempts)
            self._holds.pop(row.key, None)
            return True
        seconds = None if exhausted else self._backoff(attempts)
        await self._store.record_failure(row.id, error=error, attempts=attempts, seconds=seconds)
        retry_at = math.inf if seconds is None else monotonic() + seconds
        self._holds[row.key] = Hold(row.id, attempts, retry_at)
        return False

    def _backoff(self, attempts: int) -> float:
        settings = self._settings
        return min(settings.backoff_cap, settings.backoff_base * 2.0 ** min(attempts - 1, 64))

    async def _delete_acknowledged(self) -> None:
        if self._acknowledged:
            await self._store.delete(self._acknowledged)
            self._acknowledged.clear()
