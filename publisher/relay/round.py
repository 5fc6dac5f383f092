"""A relay round: read, publish, settle. In consecutive rounds these steps overlap."""

import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from time import monotonic, time_ns
from typing import Final, NamedTuple

import anyio
import msgspec

from dsql_outbox.outbox import MAX_TRANSACTION_ROWS, Message, SinkUnavailable
from dsql_outbox.publisher.leases.keeper import Leases
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.publisher.sinks import Delivered, Outcome, Rejected, Retry, Sink

from .cursors import HEAD, Cursors, RowPlace
from .held_subjects import Holds
from .outbox_rows import OutboxRow, RowId
from .selection import select
from .store import Store
from .waves import publish_in_waves

logger: Final = logging.getLogger("dsql_outbox")

_DELETED_BYTES: Final = 8 << 20
"""The most bytes of the rows in one delete.

Aurora DSQL allows 10 MiB of changes per transaction, including its own data per row.
It is not known whether deleted rows count. If they do, a larger delete could never
succeed, and the relay would stop.
"""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one round, in numbers of messages.

    `deleted` rows left the outbox. `held` rows wait behind another row of their
    subject; `unsent` rows wait for the next round. `statements` counts statements.
    `behind` says that there are rows to read, `sweeping` that some of them were never
    read. `retry_in` is the number of seconds until the next failed message is due.
    `unavailable` is the error of a broker that could not be reached.
    """

    read: int = 0
    delivered: int = 0
    deleted: int = 0
    failed: int = 0
    dead: int = 0
    held: int = 0
    unsent: int = 0
    statements: int = 0
    behind: bool = False
    sweeping: bool = False
    retry_in: float = float("inf")
    unavailable: SinkUnavailable | None = None


class _Read(NamedTuple):
    """The rows of a read, with the epochs of the shards' leases at that time."""

    rows: list[OutboxRow]
    epochs: Mapping[int, int]


class _Acknowledged(NamedTuple):
    """The subject of an acknowledged row, and its size in bytes."""

    key: str
    size: int


class Relay:
    """Relays the rows of the shards of one publisher, and keeps the state between rounds."""

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
        self._holds = Holds(store, settings)
        self._cursors = Cursors(rows=settings.batch_rows, head_interval=settings.head_interval)
        self._ahead: _Read | None = None
        self._acknowledged: dict[RowId, _Acknowledged] = {}
        self._deleted: dict[RowId, str] = {}

    async def round(self, *, overlap: bool = False, probe: bool = False) -> Round:
        """Do one round; raises the driver's error if the database fails.

        With `overlap`, while there is more to read, the next rows are read and
        the last round's are deleted as these are published; `settle` does what
        is left over. A `probe` sends one message only.

        What the broker has acknowledged is remembered until its row is deleted,
        so a database that fails in between causes no second delivery. Deleting
        it is right whoever owns the shard by then: the row's whole key names
        one message, and the broker has it.
        """
        statements, deleted = self._store.statements, self._store.deleted
        if len(self._acknowledged) > self._settings.batch_rows:
            await self.settle()  # deleting has failed: no more is sent meanwhile
        with self._leases.round() as epochs:
            await self._follow(epochs)
            try:
                done = await self._relay(overlap=overlap, probe=probe) if epochs else Round()
            except Exception:
                self._start_over()
                raise
            if self._ahead is None or self._leases.are_leaving:
                await self.settle()  # before a shard is another's, who would send it once more
            if self._ahead is None:
                self._deleted.clear()
        return msgspec.structs.replace(
            done,
            statements=self._store.statements - statements,
            deleted=self._store.deleted - deleted,
        )

    async def settle(self) -> None:
        """Delete the rows that the broker acknowledged; raises the driver's error."""
        while self._acknowledged:
            rows = _deletable(self._acknowledged)
            await self._store.delete(rows)
            for row in rows:  # a read that is under way, or was done ahead, may hold them yet
                self._deleted[row] = self._acknowledged.pop(row).key

    async def _follow(self, epochs: Mapping[int, int]) -> None:
        """Forget shards that were lost, also if they were taken again, and start with new ones."""
        lost = {s for s, epoch in self._epochs.items() if epochs.get(s) != epoch}
        self._cursors.drop(lost)
        self._holds.drop(lost)
        self._epochs = {s: epoch for s, epoch in self._epochs.items() if s not in lost}
        if gained := epochs.keys() - self._epochs.keys():
            await self._holds.load(gained)
            self._cursors.add(gained)
            self._epochs = dict(epochs)

    def _start_over(self) -> None:
        """Read all shards from their head again, because the rows of the failed round are lost."""
        self._cursors.back_to(dict.fromkeys(self._epochs, HEAD))

    async def _relay(self, *, overlap: bool, probe: bool) -> Round:
        await self._holds.refresh(self._epochs)
        rows = await self._next()
        settled = self._deleted | {row: each.key for row, each in self._acknowledged.items()}
        selection = select(
            rows, self._holds.by_key, settled, monotonic(), again=self._cursors.again
        )
        self._deleted.clear()  # what is read from now on holds none of these
        sendable = {r.shard for r in [*selection.rows, *selection.faulty]}
        self._cursors.chosen({r.shard for r in rows}, sendable)
        self._cursors.back_to(dict.fromkeys(selection.rewind, HEAD))
        chosen = _one_of(selection.rows) if probe else selection.rows
        faulty = [] if probe else selection.faulty
        done: list[_Sent] = []

        async def send() -> None:
            done.append(await self._send(chosen, faulty))

        if overlap and self._cursors.behind:
            await _together(self.settle, self._read_ahead, send)
        else:
            await send()
        (sent,) = done
        # Not sooner: a read that is under way moves the cursors on when it ends.
        self._cursors.back_to(_places(sent.unsent))
        self._cursors.back_to(_places(selection.faulty))  # and what waits behind them
        if probe:
            self._cursors.back_to(_places(selection.rows))
        return Round(
            read=len(rows),
            delivered=sent.delivered,
            failed=sent.failed,
            dead=sent.dead,
            held=selection.held,
            unsent=len(sent.unsent),
            behind=self._cursors.behind or self._ahead is not None,
            sweeping=self._cursors.sweeping,
            retry_in=self._holds.next_due(monotonic()),
            unavailable=sent.unavailable,
        )

    async def _next(self) -> list[OutboxRow]:
        """The rows that were read ahead, without those of shards lost since then, or a new read."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return (await self._read()).rows
        return [r for r in ahead.rows if ahead.epochs[r.shard] == self._epochs.get(r.shard)]

    async def _read(self) -> _Read:
        began = monotonic()
        epochs = dict(self._epochs)
        due = {row.shard: row for row in sorted(self._holds.due(began), reverse=True)}
        for row in due.values():
            self._cursors.back_to({row.shard: RowPlace(row.position, HEAD.event_id)})
        starts = self._cursors.starts(began)
        limits = {shard: self._cursors.limit(shard) for shard in starts}
        byte_limit = self._settings.batch_bytes // len(starts)
        rows = await self._store.read(starts, limits, byte_limit)
        now = monotonic()
        self._cursors.advance(starts, limits, rows, now, now - began)
        if any(_is_missing(row, starts[s], limits[s], rows) for s, row in due.items()):
            self._holds.doubt()
        return _Read(rows, epochs)

    async def _read_ahead(self) -> None:
        self._ahead = await self._read()

    async def _send(self, rows: Sequence[OutboxRow], faulty: Sequence[OutboxRow]) -> "_Sent":
        """Publish rows, fail the faulty ones, and record the outcomes of both."""
        shards = [row.shard for row in rows]
        waves = await publish_in_waves(self._sink, self._messages(rows), shards, self._leases)
        if waves.unavailable is not None:
            self._leases.sink_failed()
        elif rows:
            self._leases.sink_worked()
        ended = list(zip(rows, waves.outcomes, strict=True))
        delivered = [row for row, outcome in ended if isinstance(outcome, Delivered)]
        self._acknowledged |= {row.id: _Acknowledged(row.key, row.size) for row in delivered}
        await self._holds.forget(delivered)
        late = {row.key for row, outcome in ended if not isinstance(outcome, Delivered)}
        ended += [(row, _rejected(row)) for row in faulty if row.key not in late]
        failed, dead, unsent = await self._fail(ended)
        return _Sent(len(delivered), failed, dead, unsent, waves.unavailable)

    def _messages(self, rows: Sequence[OutboxRow]) -> list[Message]:
        picked_up, epochs, holds = time_ns(), self._epochs, self._holds
        return [
            row.message(attempt=holds.attempt(row), picked_up_ns=picked_up, epoch=epochs[row.shard])
            for row in rows
        ]

    async def _fail(
        self, ended: Sequence[tuple[OutboxRow, Outcome]]
    ) -> tuple[int, int, list[OutboxRow]]:
        """Record failures; returns the numbers of failed and dead rows, and the unsent rows.

        A failure in a shard that was lost meanwhile is left to the new owner. A row
        behind a failed one of its subject does not count as unsent: it is held.
        """
        ours = self._leases.sendable()
        failed = dead = 0
        unsent: list[OutboxRow] = []
        for row, outcome in ended:
            if isinstance(outcome, Retry | Rejected) and row.shard in ours:
                became = await self._holds.fail(row, outcome)
                failed += became == "failed"
                if became == "dead":
                    dead += 1
                    self._deleted[row.id] = row.key  # a read that is under way may hold it yet
            elif not isinstance(outcome, Delivered):
                unsent.append(row)
        return failed, dead, [row for row in unsent if row.key not in self._holds.by_key]


class _Sent(NamedTuple):
    delivered: int
    failed: int
    dead: int
    unsent: list[OutboxRow]
    unavailable: SinkUnavailable | None


def _rejected(row: OutboxRow) -> Rejected:
    """The outcome of a faulty row; it is logged here, because no sink gets the row."""
    shard, position, event_id = row.id
    text = "Row of shard %d, position %d, event %s can be no message: %s"
    logger.warning(text, shard, position, event_id, row.fault)
    return Rejected(f"can be no message: {row.fault}")


async def _together(*works: Callable[[], Awaitable[None]]) -> None:
    """Run all at the same time, each to its end; then raise the first error.

    A failure of the database must not cancel the publishing that runs beside it.
    """
    errors: list[Exception] = []

    async def run(work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for work in works:
            tasks.start_soon(run, work)
    if errors:
        raise errors[0]


def _deletable(rows: Mapping[RowId, _Acknowledged]) -> list[RowId]:
    """The first rows that fit into one transaction, at least one."""
    chosen: list[RowId] = []
    total = 0
    for row, each in islice(rows.items(), MAX_TRANSACTION_ROWS):
        total += each.size
        if chosen and total > _DELETED_BYTES:
            break
        chosen.append(row)
    return chosen


def _is_missing(wanted: RowId, start: RowPlace, limit: int, rows: Sequence[OutboxRow]) -> bool:
    """Whether a read that began before this row ended after it without finding it."""
    mine = [row for row in rows if row.shard == wanted.shard]
    went_past = len(mine) < limit or mine[-1].position > wanted.position
    return start.position <= wanted.position and went_past and all(r.id != wanted for r in mine)


def _one_of(rows: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
    """A row to probe the broker with: the first one of a random subject.

    The subject is random because only a part of the broker may fail.
    """
    if not rows:
        return rows
    key = random.choice(rows).key  # noqa: S311 - spreads probes, guards nothing
    return [next(row for row in rows if row.key == key)]


def _places(rows: Sequence[OutboxRow]) -> dict[int, RowPlace]:
    """The places from which to read the shards so that all these rows are read again."""
    places: dict[int, RowPlace] = {}
    for row in reversed(rows):
        places[row.shard] = RowPlace(row.position, HEAD.event_id)
    return places
