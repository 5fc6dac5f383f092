"""Put messages into the outbox again: the part that all replays share."""

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Final, Generic, Literal, Protocol, TypeVar
from uuid import UUID

import anyio
import msgspec

from dsql_outbox.outbox import array_literal
from dsql_outbox.publisher.relay.outbox_rows import REPLAY_HEADER

from .replay_positions import Candidate, Placed, Places
from .replay_rate import MAX_BYTES, Pace
from .session import OperatorSession, OperatorTransaction

K = TypeVar("K")
K_contra = TypeVar("K_contra", contravariant=True)

_encode: Final = msgspec.json.Encoder().encode

ReplayStatus = Literal["replayed", "planned", "waiting", "missing", "unreadable"]
"""What became of an event: ``planned`` in a dry run; ``waiting`` if it is in the outbox
already, ``missing`` if it is not there, or not any more, ``unreadable`` if the headers of its
dead letter can be no message's: these three were left alone."""


class Replayed(msgspec.Struct, frozen=True, rename="camel"):
    """What a replay did with one event.

    `replay` is its number and makes the dedupe id, ``<event id>/r<number>``;
    `position` is its place in the outbox. Both are None if it was left alone.
    """

    event_id: UUID
    status: ReplayStatus
    subject: str | None = None
    replay: int | None = None
    position: int | None = None


class Source(Protocol[K_contra]):
    """Where the messages of a replay come from; a key names one of them."""

    async def candidates(
        self, transaction: OperatorTransaction, keys: Sequence[K_contra], /
    ) -> tuple[list[Candidate | UUID], int]:
        """One for each key, in order, or the event's id if there is none; the clock.

        The clock is the database's, in microseconds.
        """
        ...

    async def put(
        self, transaction: OperatorTransaction, placed: Sequence[Placed], columns: dict[str, str], /
    ) -> None:
        """Insert their outbox rows; `columns` are what every source's statement takes."""
        ...


class _RequeuedPage(msgspec.Struct, frozen=True):
    """One transaction: `keys` counts those that are done with."""

    keys: int
    placed: Sequence[Placed]
    told: Sequence[Replayed]


class Requeue(Generic[K]):
    """One run of a replay, in transactions of a few hundred events."""

    def __init__(
        self, session: OperatorSession, source: Source[K], *, reason: str, pace: Pace, dry_run: bool
    ) -> None:
        self._session = session
        self._source = source
        self._reason = reason
        self._pace = pace
        self._dry_run = dry_run
        self._places = Places()

    async def run(self, keys: AsyncIterable[K]) -> AsyncGenerator[Replayed]:
        """Replay in the order of `keys`; tells of each event once its transaction is over."""
        pending: list[K] = []
        async for key in keys:
            pending.append(key)
            if len(pending) == self._pace.rows:
                async with aclosing(self._drain(pending)) as told:
                    async for each in told:
                        yield each
                pending.clear()
        async with aclosing(self._drain(pending)) as told:
            async for each in told:
                yield each

    async def _drain(self, pending: Sequence[K]) -> AsyncGenerator[Replayed]:
        while pending:
            await anyio.sleep(self._pace.wait(monotonic()))
            step = await self._step(pending)
            if not self._dry_run:
                self._places.keep(step.placed)
                self._pace.spend(len(step.placed), monotonic())
            for each in step.told:
                yield each
            pending = pending[step.keys :]

    async def _step(self, keys: Sequence[K]) -> _RequeuedPage:
        async def work(transaction: OperatorTransaction) -> _RequeuedPage:
            asked, now_us = await self._source.candidates(transaction, keys)
            found = _within_bytes(asked)
            chosen, told = _choose(found)
            placed = self._places.place(chosen, now_us)
            if placed and not self._dry_run:
                await self._put(transaction, placed)
            told += [self._tell(each) for each in placed]
            return _RequeuedPage(len(found), placed, told)

        return await self._session.transaction(work)

    async def _put(self, transaction: OperatorTransaction, placed: Sequence[Placed]) -> None:
        event_ids = array_literal(each.candidate.event_id for each in placed)
        positions = array_literal(each.position for each in placed)
        record = {
            "event_ids": event_ids,
            "numbers": array_literal(each.number for each in placed),
            "positions": positions,
            "reason": self._reason,
        }
        await transaction.change("replay_record", record, len(placed))
        columns = {
            "event_ids": event_ids,
            "positions": positions,
            "previous_positions": array_literal(each.previous_position for each in placed),
            "headers": array_literal(map(_headers, placed)),
        }
        await self._source.put(transaction, placed, columns)

    def _tell(self, placed: Placed) -> Replayed:
        candidate = placed.candidate
        if self._dry_run:
            return Replayed(candidate.event_id, "planned", candidate.key, placed.number)
        return Replayed(
            candidate.event_id, "replayed", candidate.key, placed.number, placed.position
        )


def _headers(placed: Placed) -> str:
    return _encode(placed.candidate.headers | {REPLAY_HEADER: str(placed.number)}).decode()


def _within_bytes(found: Sequence[Candidate | UUID]) -> Sequence[Candidate | UUID]:
    """The first of them that fit one transaction; one always does.

    Headers name every entity, percent-encoded, so they can be larger than the payload.
    """
    total = 0
    for n, each in enumerate(found):
        total += each.size + len(_encode(each.headers)) if isinstance(each, Candidate) else 0
        if n and total > MAX_BYTES:
            return found[:n]
    return found


def _choose(found: Sequence[Candidate | UUID]) -> tuple[list[Candidate], list[Replayed]]:
    """Those that can be replayed, and what is to be told of the others."""
    chosen: dict[UUID, Candidate] = {}
    left: list[Replayed] = []
    for each in found:
        if isinstance(each, UUID):
            left.append(Replayed(each, "missing"))
        elif each.fault is not None:
            left.append(Replayed(each.event_id, "unreadable", each.key))
        elif each.waiting or each.event_id in chosen:
            left.append(Replayed(each.event_id, "waiting", each.key))
        else:
            chosen[each.event_id] = each
    return list(chosen.values()), left
